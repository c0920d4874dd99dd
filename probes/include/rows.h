/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * A hash table per CPU of (process, what) -> counters, in memory that user space maps.
 *
 * User space reads
 *   rows     the counters, PT_ROWS (a power of two) for each of PT_CPUS
 *   touched  per CPU how many rows changed in this epoch and in the one before
 *   lists    their indexes, and when each was noted: for each CPU a list of even epochs, then one
 *            of odd ones; the last few of a list may have been counted, but not written yet
 *   crowded  a ring buffer that wakes it when a CPU's list has become long
 *
 * An event costs one lookup and one cache line, which no other CPU writes: no hash map, no
 * atomic, no lock. The first event of a row in an epoch also notes the process's name. It changes
 * with an execution, after which a process has other rows: the one noted last has the name.
 *
 * A row's counters only ever grow; a row that rested for a whole epoch, whose list user space
 * has read to its end since, may be given to another key. Its old and new owner cannot be
 * confused: the old one had no event since the last poll, so all that was added since is the new
 * one's.
 */
#pragma once

#include "probetop.h"

#define PT_WAYS 8		/* rows tried for one key */
#define PT_CROWD (PT_ROWS / 8)	/* changed rows after which user space should read them */

struct row {
	u64 count;
	u64 sum;
	u32 epoch;		/* of the last event */
	u32 start;		/* which process of that id: see struct pt_process */
	u64 key;		/* process id << 32 | what + 1; 0: free */
	char comm[PT_COMM];	/* the process's, as of this epoch's first event */
	struct {
		u32 id;
		u32 count;
	} extra[2];		/* cleared with a new key, otherwise the program's */
#ifdef PT_WIDE
	u64 wide[PT_WIDE];	/* the program's, and only ever growing as well */
#endif
};

struct touched {
	u32 epoch[2];
	u32 count[2];
	u64 others;		/* events that found no row */
	u64 pad[5];		/* a cache line for each CPU */
};

BPF_F_TABLE("array", u32, struct row, rows, PT_CPUS * PT_ROWS, PT_MMAPABLE);
BPF_F_TABLE("array", u32, struct touched, touched, PT_CPUS, PT_MMAPABLE);
BPF_F_TABLE("array", u32, u64, lists, 2 * PT_CPUS * PT_ROWS, PT_MMAPABLE);
BPF_RINGBUF_OUTPUT(crowded, 1);

#define PT_INDEX_BITS 24

/* When a row was noted, in units of 1024 ns, above its index: as many bits of it as there are. */
static __always_inline u64 pt_noted(void)
{
	return bpf_ktime_get_ns() >> 10 << PT_INDEX_BITS;
}

static __always_inline void pt_touch(struct row *row, u32 index, u32 epoch, u32 cpu, u64 leader)
{
	struct touched *t = touched.lookup(&cpu);
	u32 side = epoch & 1, n, at;
	u64 *entry;

	row->epoch = epoch;
	if (leader)
		bpf_probe_read_kernel(row->comm, PT_COMM, (void *)(leader + OFF_COMM));
	if (!t)
		return;
	/* signed: a program that read the epoch before must not empty the list of a newer one */
	if ((s32)(epoch - t->epoch[side]) > 0) {
		t->count[side] = 0;
		t->epoch[side] = epoch;
	}
	n = t->count[side];
	if (n >= PT_ROWS)
		return;
	/* at once: an interrupt's program that runs within this one must take another place */
	t->count[side] = n + 1;
	at = (2 * cpu + side) * PT_ROWS + n;
	entry = lists.lookup(&at);
	if (!entry)
		return;
	*entry = pt_noted() | index;
	if (n + 1 == PT_CROWD)
		crowded.ringbuf_output(&n, sizeof(n), PT_FORCE_WAKEUP);
}

/*
 * The row of this key and start on this CPU, made if need be; NULL when all its ways are in use.
 * Without a leader the caller writes the name, or what stands in its place.
 */
static __always_inline struct row *pt_row_of(u64 key, u32 start, u64 leader, u32 cpu, u32 epoch)
{
	u32 hash = (u32)((key * 0x9e3779b97f4a7c15ULL) >> 40);
	struct touched *t;
	struct row *row;
	u32 index, way;

#pragma unroll
	for (way = 0; way < PT_WAYS; way++) {
		index = cpu * PT_ROWS + ((hash + way) & (PT_ROWS - 1));
		row = rows.lookup(&index);
		if (!row)
			return NULL;
		if (row->key == key && row->start == start) {
			if (row->epoch != epoch)
				pt_touch(row, index, epoch, cpu, leader);
			return row;
		}
	}
#pragma unroll
	for (way = 0; way < PT_WAYS; way++) {
		index = cpu * PT_ROWS + ((hash + way) & (PT_ROWS - 1));
		row = rows.lookup(&index);
		if (!row)
			return NULL;
		/* signed: a program may have read the epoch before the one that this row is of */
		if (!row->key || (s32)(epoch - row->epoch) >= 2) {
			row->extra[0].id = row->extra[0].count = 0;
			row->extra[1].id = row->extra[1].count = 0;
			row->key = key;
			row->start = start;
			pt_touch(row, index, epoch, cpu, leader);
			return row;
		}
	}
	t = touched.lookup(&cpu);
	if (t)
		t->others++;
	return NULL;
}

/* The row of a process and of what it does. */
static __always_inline struct row *pt_row(struct pt_process p, u32 what, u32 cpu, u32 epoch)
{
	return pt_row_of((u64)p.tgid << 32 | (what + 1), p.start, p.leader, cpu, epoch);
}
