/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Calls that are left because a signal, a stop or other work is to be looked at first.
 *
 * Such a call is left with an error that no program sees, and whether it has ended is decided
 * afterwards: where a handler runs, the call fails with EINTR or is made again when the handler
 * returns; where none runs, it is made again at once. So nothing is counted when it is left. The
 * kernel tells of each handler before it makes that decision, by signal_deliver.
 *
 * A call that is made again by restart_syscall belongs to the one that it continues. An entry
 * may stay behind after its call: what it says is compared with the thread's registers.
 */
#pragma once

#include "probetop.h"

#define ERESTARTSYS 512		/* made again, unless the handler has no SA_RESTART */
#define ERESTARTNOINTR 513	/* made again, always */
#define ERESTARTNOHAND 514	/* made again, unless there is a handler */
#define ERESTART_RESTARTBLOCK 516	/* the same, by restart_syscall */
#define EINTR 4
#define SA_RESTART 0x10000000

struct interrupted {
	u64 regs;	/* where the kernel keeps the thread's registers */
	u64 ip;		/* of the instruction after the call */
	u64 time;	/* when it began, kept while a handler runs; 0: unknown */
	u32 call;
	u32 error;
	u32 handled;	/* a handler runs, and then the call is made again */
	u32 pad;
};

BPF_TABLE("lru_hash", u32, struct interrupted, interrupted, PT_INTERRUPTED);

/* Key of the call whose handler was left for another one, by a signal within it. */
#define OUTER(tid) ((tid) | 1U << 31)

/* The bits of thread_info.flags that have the kernel look for signals: before Linux 6.18, since */
#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)
#define SIGNAL_WORK (1 << 0 | 1 << 6 | 1 << 1 | 1 << 2)
#define IP_OF(regs) pt_read((regs) + offsetof(struct pt_regs, pc))
#else
#define SIGNAL_WORK (1 << 2 | 1 << 17 | 1 << 1 | 1 << 2)
#define IP_OF(regs) pt_read((regs) + offsetof(struct pt_regs, ip))
#endif

/*
 * Will the kernel decide later whether a call that returns this error has ended? Without work to
 * do first it is the program's: a filter of seccomp may return any number.
 */
static __always_inline int is_undecided(u64 task, u32 error)
{
	if (error < ERESTARTSYS || error > ERESTART_RESTARTBLOCK || error == 515)
		return 0;
	return (pt_read(task + OFF_FLAGS) & SIGNAL_WORK) != 0;
}

static __always_inline void note_interrupted(u64 regs, u32 tid, u32 call, u32 error)
{
	struct interrupted new = {.call = call, .error = error}, *old = interrupted.lookup(&tid);
	u32 outer = OUTER(tid);

	if (old && old->handled)
		interrupted.update(&outer, old);
	new.regs = regs;
	new.ip = IP_OF(regs);
	interrupted.update(&tid, &new);
}

/* The call that restart_syscall continues; itself where that is not known. */
static __always_inline u32 continued_call(u32 tid, u32 call)
{
	struct interrupted *old = interrupted.lookup(&tid);

	if (!old || old->error != ERESTART_RESTARTBLOCK)
		return call;
	return old->call & (CALLS - 1);
}

/* Is the thread still where it left this call, and nothing decided about it? */
static __always_inline int is_at_its_return(struct interrupted *left)
{
	u64 ip = IP_OF(left->regs);
#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)
	/* it has gone back to the instruction already, which has two or four bytes */
	return ip == left->ip - 4 || ip == left->ip - 2;
#else
	return ip == left->ip &&
	       (s32)pt_read(left->regs + offsetof(struct pt_regs, ax)) == -(s32)left->error;
#endif
}

/* Does a thread stand before the instruction that makes this call again? */
static __always_inline int is_made_again(struct interrupted *left, u64 regs)
{
	u64 ip = IP_OF(regs);

	return ip == left->ip - 2 || ip == left->ip - 4;
}

/* Is the call made again when a handler with these flags has returned? */
static __always_inline int goes_on_after(u32 error, u64 flags)
{
	return error == ERESTARTNOINTR || (error == ERESTARTSYS && (flags & SA_RESTART));
}
