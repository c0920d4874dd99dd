/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Which system calls are made, by whom, how many fail and why, and how long they take?
 *
 * User space maps, and reads without a system call:
 *   control  the control page: enabled, epoch, filters, sampling
 *   rows     a hash table per CPU of (process, call) -> calls, errors, two errnos
 *   touched  per CPU the rows that changed in this epoch and in the one before
 *   others   calls that found no row, per CPU and call: counted, without a process
 *   errnos   errors that did not fit into their row, per call and errno
 *   slots    (LATENCY, written by user space) the histogram that a call has, 0 for none
 *   hists    (LATENCY) the histograms;  timing  (LATENCY) what was missed
 *
 * What one system call costs: no hash map, no atomic, no lock, one cache line written.
 * With LATENCY two clock reads and one more line on either side.
 *
 * A row's counters only ever grow; a row that rested for three epochs, which user space has
 * read since, may be given to another key. Its old and new owner cannot be confused: the
 * old one had no call since the last poll, so all that was added since is the new one's.
 */
#include "probetop.h"

#define WAYS 8			/* rows tried for one key */
#define CALLS 1024		/* 0..511 native, 512..1023 32-bit compat calls */
#define UNKNOWN 511
#define ERRNOS 144		/* 1..133 as they are, 512..530 from 134 on, 143 the rest */

struct row {
	u64 calls;
	u64 errors;
	u64 key;		/* process id << 32 | call + 1; 0: free */
	u32 epoch;		/* of the last call */
	u32 pad;
	char comm[PT_COMM];	/* as of this epoch's first call */
	struct {
		u32 errno;
		u32 count;
	} errs[2];
};

struct touched {
	u32 epoch[2];
	u32 count[2];
	u64 others;		/* how often others was counted in */
	u32 index[2][PT_ROWS];
};

struct other {
	u64 calls;
	u64 errors;
};

BPF_F_TABLE("array", u32, struct control, control, 1, PT_MMAPABLE);
BPF_F_TABLE("array", u32, struct row, rows, PT_CPUS * PT_ROWS, PT_MMAPABLE);
BPF_F_TABLE("array", u32, struct touched, touched, PT_CPUS, PT_MMAPABLE);
BPF_F_TABLE("array", u32, struct other, others, PT_CPUS * CALLS, PT_MMAPABLE);
BPF_F_TABLE("array", u32, u64, errnos, CALLS * ERRNOS, PT_MMAPABLE);

static __always_inline u32 errno_index(u32 e)
{
	if (e < 134)
		return e;
	if (e >= 512 && e < 521)
		return e - 512 + 134;
	return ERRNOS - 1;
}

/* First call of this row in this epoch: note it for the reader, refresh the name. */
static __always_inline void touch(struct row *row, u32 index, u32 epoch, u32 cpu)
{
	struct touched *t = touched.lookup(&cpu);
	u32 side = epoch & 1, n;

	row->epoch = epoch;
	bpf_get_current_comm(row->comm, PT_COMM);
	if (!t)
		return;
	if (t->epoch[side] != epoch) {
		t->epoch[side] = epoch;
		t->count[side] = 0;
	}
	n = t->count[side];
	if (n >= PT_ROWS)
		return;
	t->index[side][n] = index;
	t->count[side] = n + 1;
}

/* The row of this key on this CPU, made if need be; NULL when all its ways are in use. */
static __always_inline struct row *row_of(u64 key, u32 cpu, u32 epoch)
{
	u32 hash = (u32)((key * 0x9e3779b97f4a7c15ULL) >> 40);
	struct row *row;
	u32 index, way;

#pragma unroll
	for (way = 0; way < WAYS; way++) {
		index = cpu * PT_ROWS + ((hash + way) & (PT_ROWS - 1));
		row = rows.lookup(&index);
		if (!row)
			return NULL;
		if (row->key == key) {
			if (row->epoch != epoch)
				touch(row, index, epoch, cpu);
			return row;
		}
	}
#pragma unroll
	for (way = 0; way < WAYS; way++) {
		index = cpu * PT_ROWS + ((hash + way) & (PT_ROWS - 1));
		row = rows.lookup(&index);
		if (!row)
			return NULL;
		if (!row->key || epoch - row->epoch >= 3) {
			row->errs[0].errno = row->errs[0].count = 0;
			row->errs[1].errno = row->errs[1].count = 0;
			row->key = key;
			touch(row, index, epoch, cpu);
			return row;
		}
	}
	return NULL;
}

static __always_inline void count_error(struct row *row, u32 call, u32 e)
{
	u64 *shared;
	u32 index;

	row->errors++;
	if (row->errs[0].errno == e) {
		row->errs[0].count++;
		return;
	}
	if (!row->errs[0].errno) {
		row->errs[0].errno = e;
		row->errs[0].count = 1;
		return;
	}
	if (!row->errs[1].errno)
		row->errs[1].errno = e;
	if (row->errs[1].errno == e) {
		row->errs[1].count++;
		return;
	}
	index = call * ERRNOS + errno_index(e);
	shared = errnos.lookup(&index);
	if (shared)
		__sync_fetch_and_add(shared, 1);
}

#define LOAD(type, base, offset) (*(type *)((base) + (offset)))

/* The number of the call that this thread returns from, as an index below CALLS. */
static __always_inline u32 call_index(u64 task, u64 regs)
{
	u32 compat, nr;
#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)
	const u32 compat_bit = 1 << 22;		/* TIF_32BIT */
	u32 at_nr = offsetof(struct pt_regs, syscallno);
#else
	const u32 compat_bit = 2;		/* TS_COMPAT */
	u32 at_nr = offsetof(struct pt_regs, orig_ax);
#endif
#if PT_DIRECT
	compat = LOAD(u32, task, OFF_COMPAT);
	nr = LOAD(u32, pt_task_pt_regs(task), at_nr);
#else
	bpf_probe_read_kernel(&compat, 4, (void *)(task + OFF_COMPAT));
	bpf_probe_read_kernel(&nr, 4, (void *)(regs + at_nr));
#endif
	if (nr >= UNKNOWN)
		nr = UNKNOWN;
	return compat & compat_bit ? nr + CALLS / 2 : nr;
}

/* A new thread returns 0 from the call that its parent made: that is no call of its own. */
static __always_inline int is_birth(u32 call, s64 ret)
{
	if (ret)
		return 0;
#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)
	if (call == 220)			/* clone */
		return 1;
#else
	if (call >= 56 && call <= 58)		/* clone, fork, vfork */
		return 1;
#endif
	/* clone3; 32-bit fork, clone, vfork, clone3 */
	return call == 435 || call == CALLS / 2 + 2 || call == CALLS / 2 + 120 ||
	       call == CALLS / 2 + 190 || call == CALLS / 2 + 435;
}

#if PT_DIRECT
#define CURRENT() pt_current_task_btf()
#else
#define CURRENT() bpf_get_current_task()
#endif

#ifdef LATENCY
#define STARTS 65536

struct start {
	u64 time;
	u32 tid;
	u32 generation;
};

struct hist {
	u64 total;
	u64 count;
	u32 buckets[PT_BUCKETS];
};

struct timing {
	u64 missed;	/* returns whose start was overwritten, or that had no histogram */
	u64 pad[7];
};

BPF_F_TABLE("array", u32, struct start, starts, STARTS, 0);
BPF_F_TABLE("array", u32, u64, slots, CALLS, PT_MMAPABLE);
BPF_F_TABLE("array", u32, struct hist, hists, PT_SLICES * PT_HISTS, PT_MMAPABLE);
BPF_F_TABLE("array", u32, struct timing, timing, PT_CPUS, PT_MMAPABLE);

#define NEVER (1ULL << 63)	/* start.time: this call is not one of those timed */

#if PT_SLICES < PT_CPUS
#define ADD(place, n) __sync_fetch_and_add(&(place), n)
#else
#define ADD(place, n) ((place) += (n))
#endif

int on_enter(struct bpf_raw_tracepoint_args *ctx)
{
	u32 zero = 0, tid = bpf_get_current_pid_tgid(), index = tid & (STARTS - 1);
	struct control *c = control.lookup(&zero);
	struct start *s;

	if (!c || !c->enabled)
		return 0;
	s = starts.lookup(&index);
	if (!s)
		return 0;
	s->tid = tid;
	s->time = NEVER;
	if (c->sample <= 1 || !(bpf_get_prandom_u32() & (c->sample - 1)))
		s->time = bpf_ktime_get_ns();
	return 0;
}

static __always_inline void time_call(u32 call, u32 cpu)
{
	u32 tid = bpf_get_current_pid_tgid(), index = tid & (STARTS - 1), place;
	struct start *s = starts.lookup(&index);
	struct timing *t = timing.lookup(&cpu);
	struct hist *h;
	u64 spent, bucket;
	u64 *slot;

	if (!s || !t)
		return;
	if (s->tid != tid) {
		t->missed++;
		return;
	}
	s->tid = 0;
	if (s->time == NEVER)
		return;
	slot = slots.lookup(&call);
	if (!slot)
		return;
	if (!*slot || *slot >= PT_HISTS) {
		t->missed++;
		return;
	}
	spent = bpf_ktime_get_ns() - s->time;
	place = (cpu & (PT_SLICES - 1)) * PT_HISTS + *slot;
	h = hists.lookup(&place);
	if (!h)
		return;
	bucket = pt_bucket(spent);
	/* the compiler must not check another copy than the one it indexes with */
	asm volatile("" : "+r"(bucket));
	if (bucket >= PT_BUCKETS)
		return;
	ADD(h->buckets[bucket], 1);
	ADD(h->count, 1);
	ADD(h->total, spent);
}
#endif

int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u32 zero = 0, cpu, call, tgid, index;
	struct control *c = control.lookup(&zero);
	struct touched *t;
	struct other *other;
	s64 ret = ctx->args[1];
	struct row *row;
	u64 task;

	if (!c || !c->enabled)
		return 0;
	tgid = bpf_get_current_pid_tgid() >> 32;
	if (c->filters && !pt_wanted(c, tgid))
		return 0;
	task = CURRENT();
	call = call_index(task, ctx->args[0]);
	if (is_birth(call, ret))
		return 0;
	cpu = bpf_get_smp_processor_id();
	row = row_of((u64)tgid << 32 | (call + 1), cpu, c->epoch);
	if (row) {
		row->calls++;
		if (ret < 0 && ret >= -4095)
			count_error(row, call, -ret);
	} else {
		index = cpu * CALLS + (call & (CALLS - 1));
		other = others.lookup(&index);
		if (!other)
			return 0;
		t = touched.lookup(&cpu);
		if (t)
			t->others++;
		other->calls++;
		if (ret < 0 && ret >= -4095)
			other->errors++;
	}
#ifdef LATENCY
	time_call(call, cpu);
#endif
	return 0;
}
