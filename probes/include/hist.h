/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Histograms of durations, log-linear, in memory that user space maps.
 *
 * Up to 16 CPUs have a slice of their own; with more, some share one, by atomic additions.
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

static __always_inline void pt_record(struct hist *h, u64 ns)
{
	u64 bucket = pt_bucket(ns);

	/* the compiler must not check another copy than the one it indexes with */
	asm volatile("" : "+r"(bucket));
	if (bucket >= PT_BUCKETS)
		return;
	PT_ADD(h->buckets[bucket], 1);
	PT_ADD(h->count, 1);
	PT_ADD(h->total, ns);
}
