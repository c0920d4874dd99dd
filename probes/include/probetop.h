/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What our programs share: the control page that user space writes, the filters in it,
 * and the log-linear bucket of a duration.
 *
 * Whoever writes the control page has no privileges, and may write anything at any moment. So no
 * word of it is an address or an unchecked index, and what is checked is read once (PT_ONCE).
 *
 * Offsets of kernel structures (OFF_struct_field) and constants (PT_...) come from the
 * loader by -D: from the running kernel's BTF, and from the number of its CPUs.
 */
#pragma once

#include <linux/ptrace.h>
#include <linux/types.h>

#define PT_COMM 16

/*
 * A word that user space may change at any moment: read it once, or what was checked is not
 * what is used.
 */
#define PT_ONCE(x) (*(volatile typeof(x) *)&(x))
#define PT_DEEPEST 256	/* levels of cgroups; a kernel has far fewer */

/* Map flag: user space maps the values and never asks the kernel for them. */
#define PT_MMAPABLE (1U << 10)

/* Flags of a write to a ring buffer. */
#define PT_NO_WAKEUP 1
#define PT_FORCE_WAKEUP 2

/* Bits of control.filters: which of the words below must match. */
#define PT_FILTER_PID 1
#define PT_FILTER_COMM 2
#define PT_FILTER_UID 4
#define PT_FILTER_CGROUP 8
#define PT_FILTER_STARTED 16
#define PT_FILTER_OTHERS 32

/* /proc/PID/stat tells when a process started in units of this many ns. */
#define PT_TICK 10000000

struct control {
	u64 enabled;	/* 0: programs return at once; else 1, or the ktime at which a burst began */
	u64 epoch;	/* raised by user space at every poll */
	u64 filters;	/* PT_FILTER_* */
	u64 cgroup;	/* id of a cgroup2 directory ... */
	u64 level;	/* ... and how far below the root it is */
	u32 pid;	/* of a process, in the namespace of whoever asks */
	u32 uid;
	char comm[PT_COMM];
	u64 sample;	/* time one call in this many */
	u64 wake;	/* wake the reader when a CPU has written this many bytes */
	u64 since;	/* ktime of the last change of filters or sampling */
	u64 started;	/* when the process of `pid` started, in ns since boot, to a tick */
	u32 reader;	/* thread group ids of the one that reads this ... */
	u32 broker;	/* ... and of the one that loaded it: neither is an other */
	u64 round;	/* raised by user space before and after it reads histograms */
};

/*
 * Helpers by number, for a BCC older than the kernel does not declare them. They give
 * pointers that the verifier lets us read directly, without a call each time.
 */
static u64 (*pt_current_task_btf)(void) = (void *)158;
static u64 (*pt_task_pt_regs)(u64 task) = (void *)175;

/*
 * What counts without atomics must have its CPU for itself. Programs of uprobes may lose it to
 * another task, where the kernel lets programs say that they must not.
 */
#if defined(PT_PREEMPT_DISABLE) && defined(PT_PREEMPT_ENABLE)
static void (*pt_hold_cpu)(void) = (void *)PT_PREEMPT_DISABLE;
static void (*pt_release_cpu)(void) = (void *)PT_PREEMPT_ENABLE;
#else
#define pt_hold_cpu()
#define pt_release_cpu()
#endif

static __always_inline u64 pt_read(u64 address)
{
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)address);
	return value;
}

/* Is a task in the cgroup of the filter, or in one below it? */
static __always_inline int pt_in_cgroup(struct control *c, u64 task)
{
	u64 group = pt_read(pt_read(task + OFF_CGROUPS) + OFF_DFL_CGRP);
	u64 level = PT_ONCE(c->level);

	/* what lies behind a cgroup's own level is no ancestor, but any memory of the kernel */
	if (level >= PT_DEEPEST || (u32)pt_read(group + OFF_CGROUP_LEVEL) < level)
		return 0;
#if OFF_ANCESTOR_IDS >= 0
	return pt_read(group + OFF_ANCESTOR_IDS + 8 * level) == c->cgroup;
#else
	group = pt_read(group + OFF_ANCESTORS + 8 * level);
	return pt_read(pt_read(group + OFF_CGROUP_KN) + OFF_KN_ID) == c->cgroup;
#endif
}

static __always_inline int pt_same_comm(const char *a, const char *b)
{
	const u64 *x = (const u64 *)a, *y = (const u64 *)b;

	return x[0] == y[0] && x[1] == y[1];
}

/*
 * A process is known by its pid and by when it started, for pids are used again. It is called as
 * its first thread, the leader of its thread group, whatever names the others have: by another
 * name after an execution, so that `start` counts these too.
 */
struct pt_process {
	u64 leader;	/* the task of its first thread; 0: the caller knows its name */
	u32 tgid;
	u32 start;	/* ns since boot and executions, the lowest bits of both; 0: not known */
};

#define PT_EXECUTIONS 63	/* bits of `start` that count executions */
#define PT_START(time, executions) \
	(((u32)(time) & ~PT_EXECUTIONS) | ((u32)(executions) & PT_EXECUTIONS))

/* The process of a task that may be read directly, as the verifier knows its type. */
static __always_inline struct pt_process pt_process_of(u64 task, u32 tgid)
{
	struct pt_process p = {.tgid = tgid};

	p.leader = *(u64 *)(task + OFF_GROUP_LEADER);
	p.start = PT_START(*(u64 *)(p.leader + OFF_START_BOOTTIME),
			   *(u64 *)(p.leader + OFF_EXEC_ID));
	return p;
}

static __always_inline struct pt_process pt_current_process(u32 tgid)
{
#if PT_TASK_BTF
	return pt_process_of(pt_current_task_btf(), tgid);
#else
	struct pt_process p = {.tgid = tgid};

	p.leader = pt_read((u64)bpf_get_current_task() + OFF_GROUP_LEADER);
	p.start = PT_START(pt_read(p.leader + OFF_START_BOOTTIME), pt_read(p.leader + OFF_EXEC_ID));
	return p;
#endif
}

/*
 * Does a task that has the pid of the filter belong to the process that was meant? Pids are used
 * again, start times are not. Only called when the pid matches, so that others pay nothing. The
 * second takes a task that may be read directly, as the verifier knows its type.
 */
static __always_inline int pt_meant(struct control *c, u64 task)
{
	u64 leader;

	if (!(c->filters & PT_FILTER_STARTED))
		return 1;
	leader = pt_read(task + OFF_GROUP_LEADER);
	return pt_read(leader + OFF_START_BOOTTIME) - c->started < PT_TICK;
}

static __always_inline int pt_meant_typed(struct control *c, u64 task)
{
	u64 leader;

	if (!(c->filters & PT_FILTER_STARTED))
		return 1;
	leader = *(u64 *)(task + OFF_GROUP_LEADER);
	return *(u64 *)(leader + OFF_START_BOOTTIME) - c->started < PT_TICK;
}

#if PT_TASK_BTF
#define pt_current_meant(c) pt_meant_typed(c, pt_current_task_btf())
#else
#define pt_current_meant(c) pt_meant(c, (u64)bpf_get_current_task())
#endif

/* Is a process one of probetop's own, which is not to be seen in its own numbers? */
static __always_inline int pt_is_own(struct control *c, u32 tgid)
{
	return (c->filters & PT_FILTER_OTHERS) && (tgid == c->reader || tgid == c->broker);
}

/*
 * Has a task's process the pid of the filter? In a pid namespace of its own (PT_PIDNS is its
 * number) whoever asks sees other pids than the machine's: a process has one in each namespace
 * that it is in, one below the other.
 */
#ifdef PT_PIDNS
#define PT_NAMESPACES 8
#define PT_UPID_SIZE 16

static __always_inline int pt_has_pid(struct control *c, u64 task, u32 tgid)
{
	u64 pid = pt_read(pt_read(task + OFF_GROUP_LEADER) + OFF_THREAD_PID), at, ns;
	u32 deepest = pt_read(pid + OFF_PID_LEVEL), level;

#pragma unroll
	for (level = 1; level < PT_NAMESPACES; level++) {
		at = pid + OFF_PID_NUMBERS + level * PT_UPID_SIZE;
		if (level <= deepest && (u32)pt_read(at + OFF_UPID_NR) == c->pid) {
			ns = pt_read(at + OFF_UPID_NS);
			if ((u32)pt_read(ns + OFF_PIDNS_NUMBER) == PT_PIDNS)
				return 1;
		}
	}
	return 0;
}
#else
#define pt_has_pid(c, task, tgid) ((tgid) == (c)->pid)
#endif

/* Does a task act for the user of the filter? A program with the setuid bit acts for two. */
static __always_inline int pt_of_user(struct control *c, u64 task)
{
	u64 cred = pt_read(task + OFF_CRED);

	return (u32)pt_read(cred + OFF_UID) == c->uid || (u32)pt_read(cred + OFF_EUID) == c->uid;
}

static __always_inline int pt_current_of_user(struct control *c)
{
	return (u32)bpf_get_current_uid_gid() == c->uid ||
	       pt_of_user(c, (u64)bpf_get_current_task());
}

/* Is a task's process called as in the filter? */
static __always_inline int pt_named(struct control *c, u64 task)
{
	char comm[PT_COMM] __attribute__((aligned(8))) = {};
	u64 leader = pt_read(task + OFF_GROUP_LEADER);

	bpf_probe_read_kernel_str(comm, PT_COMM, (void *)(leader + OFF_COMM));
	return pt_same_comm(comm, c->comm);
}

/* Does the current process pass the filters? Only called when there are any. */
static __always_inline int pt_wanted(struct control *c, u32 tgid)
{
	u64 f = c->filters;

	if (pt_is_own(c, tgid))
		return 0;
	if ((f & PT_FILTER_PID) && (!pt_has_pid(c, (u64)bpf_get_current_task(), tgid) ||
				    !pt_current_meant(c)))
		return 0;
	if ((f & PT_FILTER_UID) && !pt_current_of_user(c))
		return 0;
	if ((f & PT_FILTER_CGROUP) && !pt_in_cgroup(c, (u64)bpf_get_current_task()))
		return 0;
	return !(f & PT_FILTER_COMM) || pt_named(c, (u64)bpf_get_current_task());
}

/* As pt_wanted, for a task that is not the current one, and may be read directly. */
static __always_inline int pt_task_wanted(struct control *c, u64 task)
{
	u64 f = c->filters;

	if (pt_is_own(c, *(u32 *)(task + OFF_TGID)))
		return 0;
	if ((f & PT_FILTER_PID) &&
	    (!pt_has_pid(c, task, *(u32 *)(task + OFF_TGID)) || !pt_meant_typed(c, task)))
		return 0;
	if ((f & PT_FILTER_UID) && !pt_of_user(c, task))
		return 0;
	if ((f & PT_FILTER_CGROUP) && !pt_in_cgroup(c, task))
		return 0;
	return !(f & PT_FILTER_COMM) || pt_named(c, task);
}

#define PT_BUCKETS 1280

/* The bucket of a duration: 32 a power of two (HdrHistogram's layout; see probes/core/histogram.py). */
static __always_inline u64 pt_bucket(u64 ns)
{
	u64 shift, x;

	if (ns < 32)
		return ns;
	if (ns >> 44)
		return PT_BUCKETS - 1;
	/* floor(log2 ns) - 5 by halving: BPF has no instruction that counts zeros */
	x = ns >> 32 ? ns >> 32 : ns;
	shift = ns >> 32 ? 32 : 0;
	if (x >> 16) { x >>= 16; shift += 16; }
	if (x >> 8) { x >>= 8; shift += 8; }
	if (x >> 4) { x >>= 4; shift += 4; }
	if (x >> 2) { x >>= 2; shift += 2; }
	if (x >> 1) shift += 1;
	shift -= 5;
	return 32 * shift + (ns >> shift);
}
