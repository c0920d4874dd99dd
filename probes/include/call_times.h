/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * How long system calls take, from the first entry to the return that the program sees.
 *
 * A call gets its histogram when it is first timed: the next slot that nobody has, for which
 * CPUs compete by inserting into `claims`. Two of them may claim one each for the same call; user
 * space adds up all slots of a call, as `owners` tells.
 */
#pragma once

#include "interrupted.h"
#include "hist.h"
#include "threads.h"

#define CLAIM_TRIES 8

#define MADE_AGAIN 1	/* state of a place: the next entry continues a call that was interrupted */

/* How many calls a CPU leaves out until it times the next one. */
struct skip {
	u64 left;
	u64 pad[7];	/* a cache line for each CPU */
};

BPF_F_TABLE("array", u32, struct spans, starts, PT_SETS, 0);
BPF_F_TABLE("array", u32, struct skip, skips, PT_CPUS, 0);
BPF_F_TABLE("array", u32, u64, slots, CALLS, 0);
BPF_F_TABLE("array", u32, u64, owners, PT_HISTS, PT_MMAPABLE);
BPF_F_TABLE("array", u32, u32, last_slot, 1, 0);
BPF_HASH(claims, u32, u32, PT_HISTS);

static __always_inline struct spans *starts_of(u32 tid)
{
	u32 index = tid & (PT_SETS - 1);

	return starts.lookup(&index);
}

/*
 * Is this call left out, where one in `every` is timed? The gaps are random: programs repeat
 * themselves, and every 16th call of a loop would be the same call forever.
 */
static __always_inline int is_skipped(u32 every)
{
	u32 cpu = bpf_get_smp_processor_id();
	struct skip *skip = skips.lookup(&cpu);

	if (!skip)
		return 1;
	if (skip->left) {
		skip->left--;
		return 1;
	}
	skip->left = bpf_get_prandom_u32() % (2 * every - 1);
	return 0;
}

static __always_inline void begin_call(u32 tid)
{
	struct spans *set = starts_of(tid);
	struct span *s;

	if (!set)
		return;
	s = pt_take_span(set, tid);
	if (!s)
		return;
	if (s->state == MADE_AGAIN)
		s->state = 0;
	else
		s->time = bpf_ktime_get_ns();
}

/* A new call's slot, 0 if there is none left or others were faster. */
static __always_inline u32 claim_slot(u32 call)
{
	u32 zero = 0, slot, i, *last = last_slot.lookup(&zero);
	u64 owner = call + 1, *place;

	if (!last)
		return 0;
#pragma unroll
	for (i = 0; i < CLAIM_TRIES; i++) {
		slot = *last + 1;
		if (slot >= PT_HISTS)
			return 0;
		if (!claims.insert(&slot, &call)) {
			*last = slot;
			place = owners.lookup(&slot);
			if (place)
				*place = owner;
			place = slots.lookup(&call);
			if (place)
				*place = slot;
			return slot;
		}
		*last = slot;
	}
	return 0;
}

/*
 * A call was left, to be made again as far as is known by now. The thread gets a place even if
 * the beginning was not seen: what follows must not be taken for the whole.
 */
static __always_inline void interrupt_call(u32 tid)
{
	struct spans *set = starts_of(tid);
	struct span *s = set ? pt_take_span(set, tid) : NULL;

	if (s)
		s->state = MADE_AGAIN;
}

/* A handler runs before the call is made again: its own calls take the thread's place. */
static __always_inline void begin_handler(struct interrupted *left, u32 tid)
{
	struct spans *set = starts_of(tid);
	struct span *s = set ? pt_span(set, tid) : NULL;

	if (!s || s->state != MADE_AGAIN)
		return;
	left->time = s->time;
	left->handled = 1;
	s->state = 0;
	s->time = 0;
}

/* The call of this key that is made again now that its handler has returned; NULL if none is. */
static __always_inline struct interrupted *handled_call(u32 key, u64 regs)
{
	struct interrupted *left = interrupted.lookup(&key);

	return left && left->handled && is_made_again(left, regs) ? left : NULL;
}

/* A handler has returned, or something else whose number is not known. */
static __always_inline void end_handler(struct spans *set, u32 tid, u64 regs)
{
	struct interrupted *left = handled_call(tid, regs);
	struct span *s;

	if (!left)
		left = handled_call(OUTER(tid), regs);
	if (!left)
		return;
	left->handled = 0;
	s = pt_take_span(set, tid);
	if (!s)
		return;
	s->time = left->time;
	s->state = MADE_AGAIN;
}

static __always_inline void time_call(struct control *c, u32 tid, u32 call, u32 cpu, u64 regs)
{
	struct spans *set = starts_of(tid);
	struct span *s;
	struct hist *h;
	u64 *place, begun = 0, slot;

	if (!set)
		return;
	s = pt_span(set, tid);
	if (s) {
		begun = s->time;
		s->time = 0;
		s->state = 0;	/* sampling may have left out the entry that continued it */
	}
	if ((call & (CALLS / 2 - 1)) == UNKNOWN)
		end_handler(set, tid, regs);
	/* One in N is timed: most have no start, and one may be left of a call not asked for. */
	if (c->sample > 1 && (!begun || begun < c->since))
		return;
	place = slots.lookup(&call);
	if (!place)
		return;
	slot = *place;
	if (!slot)
		slot = claim_slot(call);
	if (slot >= PT_HISTS)
		return;
	h = pt_hist(cpu, slot);
	if (!h)
		return;
	if (!begun || !slot)
		PT_ADD(h->missed, 1);
	else
		pt_record(c, h, cpu, slot, bpf_ktime_get_ns() - begun);
}

/* A thread that ends leaves what it was inside of: exit, if nothing else. */
int on_thread_end(void *ctx)
{
	u32 tid = bpf_get_current_pid_tgid(), outer = OUTER(tid);
	struct spans *set = starts_of(tid);

	if (set)
		pt_end_span(set, tid);
	interrupted.delete(&tid);
	interrupted.delete(&outer);
	return 0;
}
