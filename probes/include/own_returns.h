/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Calls that end at the function's own return instructions, where the stack pointer is exactly
 * what it was at the entry. A start below that of a later entry or return was left by an
 * exception, a long jump or a switch of stacks: it is missed, and never becomes a duration.
 *
 * Each event costs one look-up and one clock read more than the mechanism; nothing else grows.
 */
#pragma once

#include "nesting.h"

#define PATCH_SHARED PATCH_HOW_A	/* others return here too: no start is no miss */

/*
 * A goroutine moves between threads, and its stack between places: it is told by its structure,
 * and the stack pointer is counted from the upper end of its stack, where the frames stay.
 */
struct goroutine_key {
	u64 g;
	u32 tgid;
	u32 target;
};

#if defined(__aarch64__) || defined(__TARGET_ARCH_arm64)
#define GOROUTINE(ctx) ((ctx)->regs[28])
#else
#define GOROUTINE(ctx) ((ctx)->r14)
#endif

/* Drops starts that cannot return any more: those below `sp`, and with `same` those at it. */
static __always_inline u32 live_depth(struct hist *h, struct stack *s, u64 sp, u32 same)
{
	u32 depth = s->depth, i;

	for (i = 0; i < DEPTH; i++) {
		u64 top = s->frames[(depth - 1) & (DEPTH - 1)].sp;

		if (!depth || top > sp || (top == sp && !same))
			break;
		depth--;
		PT_ADD(h->missed, 1);
	}
	return depth;
}

static __always_inline void begin_own(struct hist *h, struct stack *s, u64 sp)
{
	u32 depth = live_depth(h, s, sp, 1);

	if (depth >= DEPTH) {
		PT_ADD(h->overflow, 1);
		return;
	}
	s->depth = depth + 1;
	/* the compiler must leave the check to where the verifier sees it */
	asm volatile("" : "+r"(depth));
	depth &= DEPTH - 1;
	s->frames[depth].sp = sp;
	/* the clock last, for what we do before it is not the function's time */
	s->frames[depth].time = bpf_ktime_get_ns();
}

/* Returns 0 if no start belongs to this end. */
static __always_inline int end_own(void *ctx, struct control *c, struct hist *h, struct stack *s,
				   u64 sp, u64 now)
{
	u32 target = PATCH_TARGET, depth = live_depth(h, s, sp, 0), last;
	struct frame *top;

	s->depth = depth;
	/* as above */
	last = depth - 1;
	asm volatile("" : "+r"(last));
	top = &s->frames[last & (DEPTH - 1)];
	/* deeper than there is space: that was counted when it began */
	if (!depth || top->sp != sp)
		return depth == DEPTH;
	s->depth = depth - 1;
	record(ctx, c, h, target, bpf_get_current_pid_tgid() >> 32, now - top->time);
	return 1;
}

static __always_inline void no_start(struct control *c, struct hist *h)
{
	u64 shared = PATCH_SHARED;

	/* a call that did not pass the filters, else one begun before us */
	if (!shared && (!c->filters || pt_wanted(c, bpf_get_current_pid_tgid() >> 32)))
		PT_ADD(h->missed, 1);
}

#ifdef USE_OWN
int own_enter(struct pt_regs *ctx)
{
	u32 target = PATCH_TARGET;
	struct thread_key key = {.tid = thread_id(), .target = target};
	struct control *c = enabled();
	struct hist *h = hist_of(target);
	struct stack *s;

	if (!c || !h)
		return 0;
	if (c->filters && !pt_wanted(c, bpf_get_current_pid_tgid() >> 32))
		return 0;
	s = stack_of(c, h, &key);
	if (s)
		begin_own(h, s, ctx->sp);
	return 0;
}

int own_leave(struct pt_regs *ctx)
{
	u64 now = bpf_ktime_get_ns();
	u32 target = PATCH_TARGET;
	struct thread_key key = {.tid = thread_id(), .target = target};
	struct control *c = enabled();
	struct hist *h = hist_of(target);
	struct stack *s;

	if (!c || !h)
		return 0;
	s = stack_now(c, stacks.lookup(&key));
	if (!s || !end_own(ctx, c, h, s, ctx->sp, now))
		no_start(c, h);
	return 0;
}
#endif

#ifdef USE_GO
BPF_TABLE("lru_hash", struct goroutine_key, struct stack, goroutines, PT_THREADS);

/* The stack pointer below the stack's end; returns 0 where the register holds no goroutine. */
static __always_inline int go_place(struct pt_regs *ctx, struct goroutine_key *key, u64 *sp)
{
	u64 ends[2], place = ctx->sp;

	key->g = GOROUTINE(ctx);
	key->tgid = bpf_get_current_pid_tgid() >> 32;
	if (bpf_probe_read_user(ends, sizeof(ends), (void *)key->g))
		return 0;
	*sp = place - ends[1];
	return place >= ends[0] && place < ends[1];
}

int go_enter(struct pt_regs *ctx)
{
	struct goroutine_key key = {.target = PATCH_TARGET};
	u32 target = PATCH_TARGET, zero = 0;
	struct control *c = enabled();
	struct hist *h = hist_of(target);
	struct stack *s;
	u64 sp;

	if (!c || !h)
		return 0;
	if (c->filters && !pt_wanted(c, bpf_get_current_pid_tgid() >> 32))
		return 0;
	if (!go_place(ctx, &key, &sp)) {
		PT_ADD(h->missed, 1);
		return 0;
	}
	s = goroutines.lookup(&key);
	if (!s) {
		s = empty.lookup(&zero);
		if (!s)
			return 0;
		goroutines.update(&key, s);
		s = goroutines.lookup(&key);
	}
	if (s)
		begin_own(h, stack_now(c, s), sp);
	else
		PT_ADD(h->overflow, 1);
	return 0;
}

int go_leave(struct pt_regs *ctx)
{
	u64 now = bpf_ktime_get_ns(), sp;
	struct goroutine_key key = {.target = PATCH_TARGET};
	u32 target = PATCH_TARGET;
	struct control *c = enabled();
	struct hist *h = hist_of(target);
	struct stack *s;

	/* where there is no goroutine there was no start: that was counted at the entry */
	if (!c || !h || !go_place(ctx, &key, &sp))
		return 0;
	s = stack_now(c, goroutines.lookup(&key));
	if (!s || !end_own(ctx, c, h, s, sp, now))
		no_start(c, h);
	return 0;
}
#endif
