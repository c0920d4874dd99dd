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
 *   peaks    per target and CPU the longest of the last rounds of reading
 *   rows     per CPU, process (or text of an argument) and target: calls and nanoseconds
 *   touched, lists   per CPU the rows that changed
 *
 * What a call costs beside the mechanism itself: two clock reads and two hash lookups; what
 * waits for a CPU is in an array instead, for switches of tasks are many.
 */
#include "target.h"
#include "nesting.h"
#include "own_returns.h"

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
	s = stack_now(c, stacks.lookup(&key));
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
	row = row_of(ctx, c, target, pt_current_process(tgid), NULL, bpf_get_smp_processor_id());
	if (row)
		row->count++;
	pt_release_cpu();
	return 0;
}
#endif

#ifdef USE_UNTIMED
/* A call of a function of a timed target, of which the end cannot be seen. */
int untimed(void *ctx)
{
	u32 target = PATCH_TARGET;
	struct control *c = enabled();
	struct hist *h = hist_of(target);

	if (!c || !h || (c->filters && !pt_wanted(c, bpf_get_current_pid_tgid() >> 32)))
		return 0;
	PT_ADD(h->missed, 1);
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
	s = stack_now(c, stacks.lookup(&key));
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
	/* of an earlier burst: whether its end came meanwhile is not known */
	if (b->time < c->enabled) {
		pairs.delete(key);
		return 0;
	}
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

/*
 * The time belongs to the process that began: who is interrupted by the end is anybody. Where
 * `owed` is 0, an end whose beginning was not seen is none that anybody misses.
 */
static __always_inline int end_pair(void *ctx, int owed)
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
	if (!owed)
		return 0;
	if (joined ? (c->filters & ~PT_FILTER_OTHERS) :
		     (c->filters && !pt_wanted(c, bpf_get_current_pid_tgid() >> 32)))
		return 0;
	h = hist_of(key.target);
	if (h)
		PT_ADD(h->missed, 1);
	return 0;
}

int pair_end(void *ctx)
{
	return end_pair(ctx, 1);
}
#endif

#ifdef USE_BLOCK
/*
 * block_rq_complete(request, error, bytes). A write that is to be followed by a flush of the
 * disk's cache ends twice: when its data is written, and, with no bytes left, when the flush has
 * ended, which is a request of its own. What only flushes ends, but is never issued itself.
 */
int block_end(struct bpf_raw_tracepoint_args *ctx)
{
	return end_pair(ctx, (u32)ctx->args[2] != 0);
}
#endif

#if defined(USE_RUNQ) || defined(USE_OFFCPU)
#include "threads.h"

#define TASK_DEAD 0x80
#define LOAD(type, base, offset) (*(type *)((base) + (offset)))

/* A thread waits from now on; who finds no place for that is missed. */
static __always_inline void wait_begin(struct spans *waits, u32 target, u32 tid, u64 now)
{
	struct span *s = pt_take_span(waits, tid);
	struct hist *h;

	if (s) {
		s->time = now;
		return;
	}
	h = hist_of(target);
	if (h)
		PT_ADD(h->missed, 1);
}

static __always_inline void wait_end(void *ctx, struct control *c, struct spans *waits, u32 target,
				     u64 task, u64 now)
{
	struct hist *h = hist_of(target);
	struct span *s = pt_span(waits, LOAD(u32, task, OFF_PID));
	u64 begun;

	if (!h || !s || !s->time)
		return;
	begun = s->time;
	s->time = 0;
	/* of an earlier burst, as above */
	if (begun < c->enabled)
		return;
	if (!c->filters || pt_task_wanted(c, task))
		record_as(ctx, c, h, target, pt_process_of(task, LOAD(u32, task, OFF_TGID)), NULL,
			  now - begun, 1);
}
#endif

#ifdef USE_RUNQ
BPF_F_TABLE("array", u32, struct spans, runq_waits, PT_SETS, 0);

/* A thread is runnable from its wakeup, or from being preempted, until it gets a CPU. */
int runq_wakeup(struct bpf_raw_tracepoint_args *ctx)
{
	u32 target = PATCH_TARGET, tid = LOAD(u32, ctx->args[0], OFF_PID);
	u32 index = tid & (PT_SETS - 1);
	struct control *c = enabled();
	struct spans *w = runq_waits.lookup(&index);

	if (c && w)
		wait_begin(w, target, tid, bpf_ktime_get_ns());
	return 0;
}

int runq_switch(struct bpf_raw_tracepoint_args *ctx)
{
	u64 preempted = ctx->args[0], prev = ctx->args[1], next = ctx->args[2], now;
	u32 target = PATCH_TARGET, tid = LOAD(u32, prev, OFF_PID);
	u32 index = tid & (PT_SETS - 1);
	struct control *c = enabled();
	struct span *woken;
	struct spans *w;

	if (!c)
		return 0;
	now = bpf_ktime_get_ns();
	w = runq_waits.lookup(&index);
	if (w && tid) {
		if ((u8)preempted || !LOAD(u32, prev, OFF_STATE))
			wait_begin(w, target, tid, now);
		else if ((woken = pt_span(w, tid)))
			woken->time = 0;	/* while it still ran */
	}
	index = LOAD(u32, next, OFF_PID) & (PT_SETS - 1);
	w = runq_waits.lookup(&index);
	if (w && LOAD(u32, next, OFF_PID))
		wait_end(ctx, c, w, target, next, now);
	return 0;
}
#endif

#ifdef USE_OFFCPU
BPF_F_TABLE("array", u32, struct spans, off_waits, PT_SETS, 0);

/* A thread is off the CPU from the switch away from it until the switch back. */
int offcpu_switch(struct bpf_raw_tracepoint_args *ctx)
{
	u64 prev = ctx->args[1], next = ctx->args[2], now;
	u32 target = PATCH_TARGET, tid = LOAD(u32, prev, OFF_PID);
	u32 index = tid & (PT_SETS - 1);
	struct control *c = enabled();
	struct spans *w;

	if (!c)
		return 0;
	now = bpf_ktime_get_ns();
	w = off_waits.lookup(&index);
	if (w && tid && !(LOAD(u32, prev, OFF_STATE) & TASK_DEAD))
		wait_begin(w, target, tid, now);
	index = LOAD(u32, next, OFF_PID) & (PT_SETS - 1);
	w = off_waits.lookup(&index);
	if (w && LOAD(u32, next, OFF_PID))
		wait_end(ctx, c, w, target, next, now);
	return 0;
}
#endif
