/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * A target of the latency probe: the constants that make a program its own, the control page,
 * and where its durations and those who are charged with them are recorded.
 */
#pragma once

/*
 * Programs are compiled only where a target needs them (USE_..., see probes/latency/planner.py):
 * each has the row table's look-up in it, which takes the compiler a twentieth of a second.
 */
#include "rows.h"
#include "hist.h"
#include "operand.h"

/* Constants that the loader replaces; the numbers are those of probes/latency/planner.py. */
#define PATCH(n)								\
	({									\
		u64 __v;							\
		asm volatile("%0 = 0x50544f50000000" #n " ll" : "=r"(__v));	\
		__v;								\
	})
#define PATCH_TARGET PATCH(01)
#define PATCH_HOW_A PATCH(02)	/* two values, the key of a pair or what is measured; how = 0: none */
#define PATCH_AT_A PATCH(03)
#define PATCH_HOW_B PATCH(04)
#define PATCH_AT_B PATCH(05)
#define PATCH_HOW_TEXT PATCH(06)	/* the address of a text to tell calls apart by; 0: none */
#define PATCH_AT_TEXT PATCH(07)

/* Bytes of a text that are kept, with its zero: a row's name, extras and wide words. */
#ifdef PT_WIDE
#define TEXT (32 + 8 * PT_WIDE)
#define NOT_IN_MEMORY 0xff00
#else
#define TEXT 32
#endif

BPF_F_TABLE("array", u32, struct control, control, 1, PT_MMAPABLE);

static __always_inline struct control *enabled(void)
{
	u32 zero = 0;
	struct control *c = control.lookup(&zero);

	return c && c->enabled ? c : NULL;
}

static __always_inline struct hist *hist_of(u32 target)
{
	return target < PT_HISTS ? pt_hist(bpf_get_smp_processor_id(), target) : NULL;
}

/* The idle threads of all CPUs share the number 0: there the CPU stands for the thread. */
static __always_inline u32 thread_id(void)
{
	u32 tid = bpf_get_current_pid_tgid();

	return tid ? tid : 1U << 31 | bpf_get_smp_processor_id();
}

/*
 * Who is charged: the process, or what the event's text says. Then the text's hash takes the
 * place of the process id, and itself that of the name. `comm` is the name of a process without a
 * leader, NULL for one that has one.
 */
static __always_inline struct row *row_of(void *ctx, struct control *c, u32 target,
					  struct pt_process p, const char *comm, u32 cpu)
{
	struct row *row;
#ifdef USE_TEXT
	u64 key = (u64)p.tgid << 32 | (target + 1);
	u64 text[TEXT / 8] = {}, how = PATCH_HOW_TEXT, address, hash = 0, *to;
	u32 i;

	if (how) {
		if (!pt_operand(ctx, how, PATCH_AT_TEXT, &address))
			return NULL;
		/* no text has a character behind its end */
		if (bpf_probe_read_user_str(text, TEXT, (void *)address) < 0)
			text[0] = NOT_IN_MEMORY;
#pragma unroll
		for (i = 0; i < TEXT / 8; i++) {
			hash = (hash ^ text[i]) * 0x9e3779b97f4a7c15ULL;
			hash ^= hash >> 29;
		}
		key = hash >> 32 << 32 | (target + 1);
		p.start = 0;
		p.leader = 0;
	}
	row = pt_row_of(key, p.start, p.leader, cpu, c->epoch);
	if (row && how) {
		to = (u64 *)row->comm;
#pragma unroll
		for (i = 0; i < TEXT / 8; i++)
			to[i] = text[i];
		return row;
	}
#else
	row = pt_row(p, target, cpu, c->epoch);
#endif
	if (row && comm)
		__builtin_memcpy(row->comm, comm, PT_COMM);
	return row;
}

/* `alone`: no other task can get this CPU meanwhile. */
static __always_inline void record_as(void *ctx, struct control *c, struct hist *h, u32 target,
				      struct pt_process p, const char *comm, u64 value, int alone)
{
	u32 cpu = bpf_get_smp_processor_id();
	struct row *row;

	if (!alone)
		pt_hold_cpu();
	pt_record(c, h, cpu, target, value);
	row = row_of(ctx, c, target, p, comm, cpu);
	if (row) {
		row->count++;
		row->sum += value;
	}
	if (!alone)
		pt_release_cpu();
}

static __always_inline void record(void *ctx, struct control *c, struct hist *h, u32 target,
				   u32 tgid, u64 value)
{
	record_as(ctx, c, h, target, pt_current_process(tgid), NULL, value, 0);
}
