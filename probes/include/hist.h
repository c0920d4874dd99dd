/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Histograms of durations, log-linear, in memory that user space maps.
 *
 * Up to 16 CPUs have a slice of their own; with more, some share one, by atomic additions.
 *
 * User space raises control.round before and after it reads, and every CPU keeps the longest
 * duration of each of the last rounds for itself. So what was recorded between two readings has
 * a round of its own, and what is recorded meanwhile hides none of it.
 */
#pragma once

#include "probetop.h"

struct hist {
	u64 total;		/* ns */
	u64 count;
	u64 missed;		/* without a duration: the start or the end was not seen */
	u64 overflow;		/* there was no space to note the start */
	u32 buckets[PT_BUCKETS];
};

BPF_F_TABLE("array", u32, struct hist, hists, PT_SLICES * PT_HISTS, PT_MMAPABLE);

#define PT_ROUNDS 4	/* one reading ends in the round that is overwritten after the next one */

struct peak {
	u64 round;	/* in which the value was recorded */
	u64 value;	/* ns, the highest of that round */
};

struct peaks {
	struct peak of[PT_ROUNDS];	/* by round; a cache line for each CPU */
};

BPF_F_TABLE("array", u32, struct peaks, peaks, PT_HISTS * PT_CPUS, PT_MMAPABLE);

#if PT_SLICES < PT_CPUS
#define PT_ADD(place, n) __sync_fetch_and_add(&(place), n)
#else
#define PT_ADD(place, n) ((place) += (n))
#endif

static __always_inline struct hist *pt_hist(u32 cpu, u32 slot)
{
	u32 place = (cpu & (PT_SLICES - 1)) * PT_HISTS + slot;

	return hists.lookup(&place);
}

static __always_inline void pt_peak(u64 round, u32 cpu, u32 slot, u64 ns)
{
	u32 place = slot * PT_CPUS + cpu;
	struct peaks *p = peaks.lookup(&place);
	struct peak *own;

	if (!p)
		return;
	own = &p->of[round & (PT_ROUNDS - 1)];
	if (own->round == round && own->value >= ns)
		return;
	own->value = ns;
	own->round = round;
}

/* Record a duration in a slot whose histogram on this CPU is `h`. */
static __always_inline void pt_record(struct control *c, struct hist *h, u32 cpu, u32 slot, u64 ns)
{
	u64 bucket = pt_bucket(ns);

	/* first: whoever finds it in the histogram then finds it here as well */
	pt_peak(PT_ONCE(c->round), cpu, slot, ns);
	/* the compiler must not check another copy than the one it indexes with */
	asm volatile("" : "+r"(bucket));
	if (bucket >= PT_BUCKETS)
		return;
	PT_ADD(h->buckets[bucket], 1);
	PT_ADD(h->count, 1);
	PT_ADD(h->total, ns);
}
