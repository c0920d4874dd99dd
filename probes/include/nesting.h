/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Calls that a thread is inside of, innermost last: a stack of starts per thread and target.
 */
#pragma once

#include "target.h"

#define DEPTH 32		/* nested calls of one target by one thread */
#define THREAD_STACK_BITS 14	/* stacks of the kernel are aligned and at least so large */

struct thread_key {
	u32 tid;
	u32 target;
};

struct frame {
	u64 time;
	u64 sp;		/* stack pointer at the entry; 0 if unknown */
};

struct stack {
	u32 depth;
	u32 burst;	/* the burst that the starts are of, see stack_now */
	struct frame frames[DEPTH];
	u32 function[DEPTH];	/* the address of each one's entry, as far as it tells them apart */
};

BPF_TABLE("lru_hash", struct thread_key, struct stack, stacks, PT_THREADS);
BPF_TABLE("percpu_array", u32, struct stack, empty, 1);

/*
 * A stack without the starts of an earlier burst: their ends came while nothing was attached, so
 * that a later end would take them for its own. While attached for good there is one burst.
 */
static __always_inline struct stack *stack_now(struct control *c, struct stack *s)
{
	u32 burst = c->enabled;

	if (s && s->burst != burst) {
		s->burst = burst;
		s->depth = 0;
	}
	return s;
}

/* The stack of the current thread, made if need be; NULL when that is impossible (counted). */
static __always_inline struct stack *stack_of(struct control *c, struct hist *h,
					      struct thread_key *key)
{
	struct stack *s = stacks.lookup(key);
	u32 zero = 0;

	if (s)
		return stack_now(c, s);
	s = empty.lookup(&zero);
	if (!s)
		return NULL;
	stacks.update(key, s);
	s = stacks.lookup(key);
	if (!s)
		PT_ADD(h->overflow, 1);
	return stack_now(c, s);
}

#if defined(__aarch64__) || defined(__TARGET_ARCH_arm64)
#define IP(ctx) ((u32)(ctx)->pc)
#else
#define IP(ctx) ((u32)(ctx)->ip)
#endif

/*
 * Calls of one target nest like their stack frames. A frame below the new call's stack
 * pointer has been left without a return (a long jump, a return that was not delivered), and
 * so has one at it, unless another function began there: that has jumped to this one as its
 * last deed, and both will return. A thread has one stack in user space, as the kernel's own
 * return probes have it; in the kernel only frames of the same stack are compared, for an
 * interrupt has another one.
 */
static __always_inline void enter(u32 target, u64 sp, u32 ip)
{
	struct thread_key key = {.tid = thread_id(), .target = target};
	struct control *c = enabled();
	struct hist *h = hist_of(target);
	u64 same_stack = (u64)((s64)sp >> 63) << THREAD_STACK_BITS;
	struct stack *s;
	u32 depth, i;

	if (!c || !h)
		return;
	if (c->filters && !pt_wanted(c, bpf_get_current_pid_tgid() >> 32))
		return;
	s = stack_of(c, h, &key);
	if (!s)
		return;
	depth = s->depth;
	for (i = 0; i < DEPTH; i++) {
		u32 top = (depth - 1) & (DEPTH - 1);
		u64 above = s->frames[top].sp;

		if (!depth || depth > DEPTH || !sp || above > sp)
			break;
		if ((above ^ sp) & same_stack)
			break;
		if (above == sp && s->function[top] != ip)
			break;
		depth--;
		PT_ADD(h->missed, 1);
	}
	if (depth >= DEPTH) {
		PT_ADD(h->overflow, 1);
		s->depth = depth + 1;
		return;
	}
	s->depth = depth + 1;
	/* the compiler must leave the check to where the verifier sees it */
	asm volatile("" : "+r"(depth));
	depth &= DEPTH - 1;
	s->frames[depth].sp = sp;
	s->function[depth] = ip;
	/* the clock last, for what we do before it is not the function's time */
	s->frames[depth].time = bpf_ktime_get_ns();
}

/*
 * A return belongs to the innermost frame whose stack pointer fits: the return has popped
 * the return address, and a trampoline may have saved registers (up to 32 bytes away).
 */
static __always_inline void leave(void *ctx, u32 target, u64 sp)
{
	u64 now = bpf_ktime_get_ns();
	struct thread_key key = {.tid = thread_id(), .target = target};
	struct control *c = enabled();
	struct hist *h = hist_of(target);
	struct stack *s;
	struct frame *top;
	u32 depth, i;

	if (!c || !h)
		return;
	s = stack_now(c, stacks.lookup(&key));
	if (!s || !s->depth) {
		/* a call that did not pass the filters, else one begun before us */
		if (!c->filters || pt_wanted(c, bpf_get_current_pid_tgid() >> 32))
			PT_ADD(h->missed, 1);
		return;
	}
	depth = s->depth;
	if (depth > DEPTH) {
		s->depth = depth - 1;
		return;
	}
	for (i = 0; i < DEPTH; i++) {
		top = &s->frames[(depth - 1) & (DEPTH - 1)];
		if (!sp || !top->sp || top->sp + 32 > sp || depth <= 1)
			break;
		depth--;
		PT_ADD(h->missed, 1);
	}
	s->depth = --depth;
	/* as above */
	asm volatile("" : "+r"(depth));
	top = &s->frames[depth & (DEPTH - 1)];
	record(ctx, c, h, target, bpf_get_current_pid_tgid() >> 32, now - top->time);
}

/*
 * Static probes that begin and end something nest as well, but their places say nothing of
 * a stack: Python's own calls need none. So an end belongs to the newest start. One that
 * never ends is buried below newer ones, and overwritten when those are DEPTH deep, so that
 * it cannot stand in the way for good.
 */
static __always_inline void nest(u32 target)
{
	struct thread_key key = {.tid = thread_id(), .target = target};
	struct control *c = enabled();
	struct hist *h = hist_of(target);
	struct stack *s;
	u32 depth, owner;

	if (!c || !h)
		return;
	if (c->filters && !pt_wanted(c, bpf_get_current_pid_tgid() >> 32))
		return;
	s = stack_of(c, h, &key);
	if (!s)
		return;
	depth = s->depth;
	s->depth = depth + 1;
	owner = depth;
	/* as above */
	asm volatile("" : "+r"(depth));
	depth &= DEPTH - 1;
	if (owner >= DEPTH && s->function[depth] == owner - DEPTH)
		PT_ADD(h->missed, 1);
	/* whose start this is, for a deeper one may take its place */
	s->function[depth] = owner;
	s->frames[depth].time = bpf_ktime_get_ns();
}

static __always_inline void unnest(void *ctx, u32 target)
{
	u64 now = bpf_ktime_get_ns(), start;
	struct thread_key key = {.tid = thread_id(), .target = target};
	struct control *c = enabled();
	struct hist *h = hist_of(target);
	struct stack *s;
	u32 depth, owner;

	if (!c || !h)
		return;
	s = stack_now(c, stacks.lookup(&key));
	if (!s || !s->depth) {
		if (!c->filters || pt_wanted(c, bpf_get_current_pid_tgid() >> 32))
			PT_ADD(h->missed, 1);
		return;
	}
	depth = s->depth - 1;
	s->depth = depth;
	owner = depth;
	/* as above */
	asm volatile("" : "+r"(depth));
	depth &= DEPTH - 1;
	/* overwritten, which was counted then */
	if (s->function[depth] != owner)
		return;
	start = s->frames[depth].time;
	record(ctx, c, h, target, bpf_get_current_pid_tgid() >> 32, now - start);
}
