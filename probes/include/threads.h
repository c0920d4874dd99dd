/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Since when is a thread in something that ends? One answer for each thread, in an array.
 *
 * A thread's number chooses a set of PT_PLACES places, in one cache line. Nobody takes the place
 * of a thread that is still inside of what it began: who finds no place is not timed, rather
 * than the one that has waited for long. With PT_SETS sets, any thread below PT_SETS * PT_PLACES
 * has a place of its own.
 */
#pragma once

#include "probetop.h"

#define PT_PLACES 4

struct span {
	u64 time;	/* of the beginning; 0: it is inside of nothing */
	u32 tid;	/* whose place this is; 0: nobody's */
	u32 state;	/* the program's; 0: the place may go to another thread while time is 0 */
};

struct spans {
	struct span place[PT_PLACES];
};

/* The place that a thread has; NULL if it has none. */
static __always_inline struct span *pt_span(struct spans *set, u32 tid)
{
	u32 i;

#pragma unroll
	for (i = 0; i < PT_PLACES; i++)
		if (set->place[i].tid == tid)
			return &set->place[i];
	return NULL;
}

/* The same, taken if need be; NULL if all places are in use. */
static __always_inline struct span *pt_take_span(struct spans *set, u32 tid)
{
	struct span *s = pt_span(set, tid);
	u32 i;

	if (s)
		return s;
#pragma unroll
	for (i = 0; i < PT_PLACES; i++) {
		s = &set->place[i];
		if (!s->time && !s->state) {
			s->tid = tid;
			return s;
		}
	}
	return NULL;
}

/* A thread ends, and whatever it was inside of with it. */
static __always_inline void pt_end_span(struct spans *set, u32 tid)
{
	struct span *s = pt_span(set, tid);

	if (!s)
		return;
	s->state = 0;
	s->time = 0;
	s->tid = 0;
}
