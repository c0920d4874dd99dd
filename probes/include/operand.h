/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Values that an event carries: a field of a tracepoint's record, or an argument of a static
 * probe, which the compiler left in a register, in memory or as a constant.
 *
 * Where it is comes as two constants (probes/symbols/usdt_operands.py makes them): `how` and `at`.
 */
#pragma once

#include "probetop.h"

#define HOW_SIZE 15		/* bytes of the value: 1, 2, 4 or 8; 0: there is none */
#define HOW_SIGNED (1ULL << 4)
#define HOW_RECORD (1ULL << 5)	/* in what the program is given, `at` bytes behind its start */
#define HOW_BASE (1ULL << 6)	/* `at` plus a register ... */
#define HOW_INDEX (1ULL << 7)	/* ... plus another, times a power of two ... */
#define HOW_MEMORY (1ULL << 8)	/* ... is the address of the value, else it is the value */
#define HOW_LOW (1ULL << 9)	/* one of 8 bytes in the kernel's half of addresses is none */
#define HOW_BASE_AT(how) ((how) >> 16 & 0xffff)
#define HOW_INDEX_AT(how) ((how) >> 32 & 0xffff)
#define HOW_SCALE(how) ((how) >> 48 & 7)

static __always_inline u64 pt_register(void *ctx, u64 offset)
{
	u64 value = 0;

	/* not by loads, for those need offsets that the compiler knows */
	bpf_probe_read_kernel(&value, sizeof(value), ctx + offset);
	return value;
}

/* Returns 0 if the value could not be read (its page may not be in memory), or is not wanted. */
static __always_inline int pt_operand(void *ctx, u64 how, u64 at, u64 *value)
{
	u32 size = how & HOW_SIZE, unused;
	u64 raw = 0;

	if (how & HOW_RECORD) {
		if (bpf_probe_read_kernel(&raw, size, ctx + at))
			return 0;
		/* whoever knows one such address knows where all of the kernel is */
		if ((how & HOW_LOW) && (s64)raw < 0)
			return 0;
	} else {
		if (how & HOW_BASE)
			at += pt_register(ctx, HOW_BASE_AT(how));
		if (how & HOW_INDEX)
			at += pt_register(ctx, HOW_INDEX_AT(how)) << HOW_SCALE(how);
		if (!(how & HOW_MEMORY))
			raw = at;
		else if (bpf_probe_read_user(&raw, size, (void *)at))
			return 0;
	}
	unused = 64 - 8 * size;
	if (how & HOW_SIGNED)
		*value = (s64)(raw << unused) >> unused;
	else
		*value = raw << unused >> unused;
	return 1;
}
