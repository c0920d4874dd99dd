/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * How long does it take, from an entry to its return, or from one event to another?
 *
 * One source for every mechanism; each program is loaded once for each target, with the
 * constants below (PATCH_...) replaced in its instructions: nothing is compiled anew.
 *
 * User space maps, and reads without a system call:
 *   control  the control page: enabled, epoch, filters
 *   hists    per target the durations, what was missed and what found no space
 *   rows     per CPU, process (or text of an argument) and target: calls and nanoseconds
 *   touched, lists   per CPU the rows that changed
 *
 * What a call costs beside the mechanism itself: two clock reads and two hash lookups; what
 * waits for a CPU is in an array instead, for switches of tasks are many.
 */
#include "target.h"
#include "nesting.h"

/* Linux 5.14 renamed the field. */
#define OFF_STATE (OFF_STATE_NEW >= 0 ? OFF_STATE_NEW : OFF_STATE_OLD)

struct pair_key {
	u64 a;
	u64 b;
	u32 target;
	u32 pad;
};

/* Whoever runs at the end may be another process: the one that began is noted with its name. */
struct begun {
	u64 time;
	u32 tgid;
	u32 start;
	char comm[PT_COMM];
};

BPF_TABLE("lru_hash", struct pair_key, struct begun, pairs, PT_PAIRS);

#ifdef USE_FUNCTIONS
int function_enter(struct pt_regs *ctx)
{
	enter(PATCH_TARGET, ctx->sp, IP(ctx));
	return 0;
}

int function_leave(struct pt_regs *ctx)
{
	leave(ctx, PATCH_TARGET, ctx->sp);
	return 0;
}
#endif

/* A thread that ends inside of calls returns from none of them. */
int thread_end(void *ctx)
{
	u32 target = PATCH_TARGET;
	struct thread_key key = {.tid = thread_id(), .target = target};
	struct control *c = enabled();
	struct hist *h = hist_of(target);
	struct stack *s;

	if (!c || !h)
		return 0;
	s = stacks.lookup(&key);
	if (!s)
		return 0;
	/* what is deeper was counted when it began */
	PT_ADD(h->missed, s->depth < DEPTH ? s->depth : DEPTH);
	stacks.delete(&key);
	return 0;
}

#ifdef USE_TRAMPOLINES
/* fentry and fexit know no stack pointer; the kernel runs them in pairs. */
int trampoline_enter(void *ctx)
{
	enter(PATCH_TARGET, 0, 0);
	return 0;
}

int trampoline_leave(void *ctx)
{
	leave(ctx, PATCH_TARGET, 0);
	return 0;
}
#endif

#ifdef USE_EVENTS
/* An event without an end: counted, by process too. */
int event(void *ctx)
{
	u32 target = PATCH_TARGET, tgid = bpf_get_current_pid_tgid() >> 32;
	struct control *c = enabled();
	struct hist *h = hist_of(target);
	struct row *row;

	if (!c || !h || (c->filters && !pt_wanted(c, tgid)))
		return 0;
	pt_hold_cpu();
	PT_ADD(h->count, 1);
	row = row_of(ctx, c, target, pt_current_process(tgid), NULL);
	if (row)
		row->count++;
	pt_release_cpu();
	return 0;
}
#endif

#ifdef USE_VALUES
/* An event that carries a number: how large it is takes the place of how long. */
int value_event(void *ctx)
{
	u32 target = PATCH_TARGET, tgid = bpf_get_current_pid_tgid() >> 32;
	struct control *c = enabled();
	struct hist *h = hist_of(target);
	u64 value, how = PATCH_HOW_A;

	if (!c || !h || (c->filters && !pt_wanted(c, tgid)))
		return 0;
	/* there is no bucket for less than nothing */
	if (!pt_operand(ctx, how, PATCH_AT_A, &value) || ((how & HOW_SIGNED) && (s64)value < 0)) {
		PT_ADD(h->missed, 1);
		return 0;
	}
	record(ctx, c, h, target, tgid, value);
	return 0;
}
#endif

#ifdef USE_NEST
/* Two static probes on one thread. */
int nest_begin(void *ctx)
{
	nest(PATCH_TARGET);
	return 0;
}

int nest_end(void *ctx)
{
	unnest(ctx, PATCH_TARGET);
	return 0;
}

/* As thread_end; those that were overwritten are counted already. */
int nest_thread_end(void *ctx)
{
	u32 target = PATCH_TARGET, depth, missed = 0, i;
	struct thread_key key = {.tid = thread_id(), .target = target};
	struct control *c = enabled();
	struct hist *h = hist_of(target);
	struct stack *s;

	if (!c || !h)
		return 0;
	s = stacks.lookup(&key);
	if (!s)
		return 0;
	depth = s->depth;
#pragma unroll
	for (i = 0; i < DEPTH; i++) {
		u32 owner = s->function[i];

		/* the start of one that is still inside, and in the place that it had */
		missed += depth - 1 - owner < DEPTH && ((owner ^ i) & (DEPTH - 1)) == 0;
		/* one after the other: all at once do not fit into registers and stack */
		asm volatile("" : "+r"(missed) : : "memory");
	}
	PT_ADD(h->missed, missed);
	stacks.delete(&key);
	return 0;
}
#endif

/* Returns 0 if a value that is the key could not be read. */
static __always_inline int pair_key_of(void *ctx, struct pair_key *key)
{
	u64 how_a = PATCH_HOW_A, how_b = PATCH_HOW_B;

	if (!how_a) {
		key->a = thread_id();
		return 1;
	}
	if (!pt_operand(ctx, how_a, PATCH_AT_A, &key->a))
		return 0;
	return !how_b || pt_operand(ctx, how_b, PATCH_AT_B, &key->b);
}

static __always_inline void begin(struct control *c, struct pair_key *key, u32 tgid)
{
	struct pt_process p = pt_current_process(tgid);
	struct begun b = {.tgid = tgid, .start = p.start};

	bpf_probe_read_kernel(b.comm, PT_COMM, (void *)(p.leader + OFF_COMM));
	b.time = bpf_ktime_get_ns();
	pairs.update(key, &b);
}

/* Returns 0 if nobody saw the beginning. */
static __always_inline int end(void *ctx, struct control *c, struct pair_key *key)
{
	u64 now = bpf_ktime_get_ns();
	struct hist *h = hist_of(key->target);
	struct begun *b = pairs.lookup(key);
	struct pt_process p = {};

	if (!h || !b)
		return 0;
	p.tgid = b->tgid;
	p.start = b->start;
	/* what began before the filter was set may be somebody else's */
#ifndef PT_PIDNS
	if (!(c->filters & PT_FILTER_PID) || p.tgid == c->pid)
#endif
		record_as(ctx, c, h, key->target, p, b->comm, now - b->time, 0);
	pairs.delete(key);
	return 1;
}

#ifdef USE_PAIRS
int pair_begin(void *ctx)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct pair_key key = {.target = PATCH_TARGET};
	struct control *c = enabled();

	if (!c || (c->filters && !pt_wanted(c, tgid)))
		return 0;
	if (pair_key_of(ctx, &key))
		begin(c, &key, tgid);
	return 0;
}

/* The time belongs to the process that began: who is interrupted by the end is anybody. */
int pair_end(void *ctx)
{
	struct pair_key key = {.target = PATCH_TARGET};
	struct control *c = enabled();
	u64 joined = PATCH_HOW_A;
	struct hist *h;

	if (!c)
		return 0;
	if (pair_key_of(ctx, &key) && end(ctx, c, &key))
		return 0;
	/* what did not pass the filters is not missed; joined by values, it was anybody's */
	if (c->filters && (joined || !pt_wanted(c, bpf_get_current_pid_tgid() >> 32)))
		return 0;
	h = hist_of(key.target);
	if (h)
		PT_ADD(h->missed, 1);
	return 0;
}
#endif

#if defined(USE_RUNQ) || defined(USE_OFFCPU)
#define WAITS 65536
#define TASK_DEAD 0x80
#define LOAD(type, base, offset) (*(type *)((base) + (offset)))

/* Since when a thread waits; a thread's place is its number modulo WAITS. */
struct wait {
	u64 time;
	u32 tid;	/* whose: 0 for nobody */
	u32 pad;
};

static __always_inline void wait_begin(struct wait *w, u32 target, u32 tid, u64 now)
{
	struct hist *h;

	/* somebody else with the same place waits as well, and now nobody knows since when */
	if (w->tid && w->tid != tid) {
		h = hist_of(target);
		if (h)
			PT_ADD(h->missed, 1);
	}
	w->tid = tid;
	w->time = now;
}

static __always_inline void wait_end(void *ctx, struct control *c, struct wait *w, u32 target,
				     u64 task, u64 now)
{
	struct hist *h = hist_of(target);

	if (!h || w->tid != LOAD(u32, task, OFF_PID))
		return;
	w->tid = 0;
	if (!c->filters || pt_task_wanted(c, task))
		record_as(ctx, c, h, target, pt_process_of(task, LOAD(u32, task, OFF_TGID)), NULL,
			  now - w->time, 1);
}
#endif

#ifdef USE_RUNQ
BPF_F_TABLE("array", u32, struct wait, runq_waits, WAITS, 0);

/* A thread is runnable from its wakeup, or from being preempted, until it gets a CPU. */
int runq_wakeup(struct bpf_raw_tracepoint_args *ctx)
{
	u32 target = PATCH_TARGET, tid = LOAD(u32, ctx->args[0], OFF_PID);
	u32 index = tid & (WAITS - 1);
	struct control *c = enabled();
	struct wait *w = runq_waits.lookup(&index);

	if (c && w)
		wait_begin(w, target, tid, bpf_ktime_get_ns());
	return 0;
}

int runq_switch(struct bpf_raw_tracepoint_args *ctx)
{
	u64 preempted = ctx->args[0], prev = ctx->args[1], next = ctx->args[2], now;
	u32 target = PATCH_TARGET, tid = LOAD(u32, prev, OFF_PID);
	u32 index = tid & (WAITS - 1);
	struct control *c = enabled();
	struct wait *w;

	if (!c)
		return 0;
	now = bpf_ktime_get_ns();
	w = runq_waits.lookup(&index);
	if (w && tid) {
		if ((u8)preempted || !LOAD(u32, prev, OFF_STATE))
			wait_begin(w, target, tid, now);
		else if (w->tid == tid)
			w->tid = 0;	/* it was woken while it still ran */
	}
	index = LOAD(u32, next, OFF_PID) & (WAITS - 1);
	w = runq_waits.lookup(&index);
	if (w && LOAD(u32, next, OFF_PID))
		wait_end(ctx, c, w, target, next, now);
	return 0;
}
#endif

#ifdef USE_OFFCPU
BPF_F_TABLE("array", u32, struct wait, off_waits, WAITS, 0);

/* A thread is off the CPU from the switch away from it until the switch back. */
int offcpu_switch(struct bpf_raw_tracepoint_args *ctx)
{
	u64 prev = ctx->args[1], next = ctx->args[2], now;
	u32 target = PATCH_TARGET, tid = LOAD(u32, prev, OFF_PID);
	u32 index = tid & (WAITS - 1);
	struct control *c = enabled();
	struct wait *w;

	if (!c)
		return 0;
	now = bpf_ktime_get_ns();
	w = off_waits.lookup(&index);
	if (w && tid && !(LOAD(u32, prev, OFF_STATE) & TASK_DEAD))
		wait_begin(w, target, tid, now);
	index = LOAD(u32, next, OFF_PID) & (WAITS - 1);
	w = off_waits.lookup(&index);
	if (w && LOAD(u32, next, OFF_PID))
		wait_end(ctx, c, w, target, next, now);
	return 0;
}
#endif
