/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Which system calls are made, by whom, how many fail and why, and how long they take?
 *
 * User space maps, and reads without a system call:
 *   control  the control page: enabled, epoch, filters, sampling
 *   rows     a hash table per CPU of (process, call) -> calls, errors, two errnos
 *   touched, lists   per CPU the rows that changed in this epoch and in the one before
 *   others   calls that found no row, per CPU and call: counted, without a process
 *   errnos   errors that did not fit into their row, or had none, per call and errno
 *   slots    (LATENCY, written by user space) the histogram that a call has, 0 for none
 *   hists    (LATENCY) the histograms, and what was missed; slot 0 is of calls without one
 *
 * What one system call costs: no hash map, no atomic, no lock, one cache line written.
 * With LATENCY two clock reads and one more line on either side; where one call in N is timed,
 * the others cost a look at a line of the CPU's own and one at the thread's.
 *
 * Nothing here may be interrupted by another task: see PERF.
 */
#include "rows.h"

#define CALLS 1024		/* 0..511 native, 512..1023 32-bit compat calls */
#define UNKNOWN 511
#define ERRNOS 160		/* 1..133 as they are, 512..531 from 134 on, 159 the rest */

struct other {
	u64 calls;
	u64 errors;
};

BPF_F_TABLE("array", u32, struct control, control, 1, PT_MMAPABLE);
BPF_F_TABLE("array", u32, struct other, others, PT_CPUS * CALLS, PT_MMAPABLE);
BPF_F_TABLE("array", u32, u64, errnos, CALLS * ERRNOS, PT_MMAPABLE);

static __always_inline u32 errno_index(u32 e)
{
	if (e < 134)
		return e;
	if (e >= 512 && e < 532)
		return e - 512 + 134;
	return ERRNOS - 1;
}

/* An error that has no place in a row. */
static __always_inline void count_shared(u32 call, u32 e)
{
	u32 index = call * ERRNOS + errno_index(e);
	u64 *shared = errnos.lookup(&index);

	if (shared)
		__sync_fetch_and_add(shared, 1);
}

static __always_inline void count_error(struct row *row, u32 call, u32 e)
{
	row->sum++;
	if (row->extra[0].id == e) {
		row->extra[0].count++;
		return;
	}
	if (!row->extra[0].id) {
		row->extra[0].id = e;
		row->extra[0].count = 1;
		return;
	}
	if (!row->extra[1].id)
		row->extra[1].id = e;
	if (row->extra[1].id == e) {
		row->extra[1].count++;
		return;
	}
	count_shared(call, e);
}

#if !defined(__TARGET_ARCH_arm64) && !defined(__aarch64__) && OFF_XOL >= 0 && OFF_XOL_VADDR >= 0
#define URETPROBE 335

/*
 * Since Linux 6.11 the end of a function that a return probe waits for is a system call,
 * which takes its number away. It comes from the page that the kernel put into the process.
 */
static __always_inline int is_uretprobe(u64 task, u64 regs)
{
	u64 ip = pt_read(regs + offsetof(struct pt_regs, ip));
	u64 area = pt_read(pt_read(task + OFF_MM) + OFF_XOL);

	return area && ip - pt_read(area + OFF_XOL_VADDR) < 4096;
}
#else
#define URETPROBE UNKNOWN
#define is_uretprobe(task, regs) 0
#endif

#define LOAD(type, base, offset) (*(type *)((base) + (offset)))

/* The number of the call that this thread returns from, as an index below CALLS. */
static __always_inline u32 call_index(u64 task, u64 regs)
{
	u32 compat, nr;
#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)
	const u32 compat_bit = 1 << 22;		/* TIF_32BIT */
	u32 at_nr = offsetof(struct pt_regs, syscallno);
#else
	const u32 compat_bit = 2;		/* TS_COMPAT */
	u32 at_nr = offsetof(struct pt_regs, orig_ax);
#endif
#if PT_DIRECT
	compat = LOAD(u32, task, OFF_COMPAT);
	nr = LOAD(u32, regs, at_nr);
#else
	bpf_probe_read_kernel(&compat, 4, (void *)(task + OFF_COMPAT));
	bpf_probe_read_kernel(&nr, 4, (void *)(regs + at_nr));
#endif
	if (nr >= UNKNOWN)
		nr = is_uretprobe(task, regs) ? URETPROBE : UNKNOWN;
	return compat & compat_bit ? nr + CALLS / 2 : nr;
}

/* A new thread returns 0 from the call that its parent made: that is no call of its own. */
static __always_inline int is_birth(u32 call, s64 ret)
{
	if (ret)
		return 0;
#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)
	if (call == 220)			/* clone */
		return 1;
#else
	if (call >= 56 && call <= 58)		/* clone, fork, vfork */
		return 1;
#endif
	/* clone3; 32-bit fork, clone, vfork, clone3 */
	return call == 435 || call == CALLS / 2 + 2 || call == CALLS / 2 + 120 ||
	       call == CALLS / 2 + 190 || call == CALLS / 2 + 435;
}

#if PT_DIRECT
#define CURRENT() pt_current_task_btf()
#define TID(task) LOAD(u32, task, OFF_PID)
#define TGID(task) LOAD(u32, task, OFF_TGID)
#define process_of(task, tgid) pt_process_of(task, tgid)
#else
#define CURRENT() bpf_get_current_task()
#define TID(task) ((u32)bpf_get_current_pid_tgid())
#define TGID(task) ((u32)(bpf_get_current_pid_tgid() >> 32))
#define process_of(task, tgid) pt_current_process(tgid)
#endif

#ifdef LATENCY
#include "hist.h"

#define STARTS 65536

struct start {
	u64 time;
	u32 tid;	/* whose: 0 for nobody */
};

/* How many calls a CPU leaves out until it times the next one. */
struct skip {
	u64 left;
	u64 pad[7];	/* a cache line for each CPU */
};

BPF_F_TABLE("array", u32, struct start, starts, STARTS, 0);
BPF_F_TABLE("array", u32, struct skip, skips, PT_CPUS, 0);
BPF_F_TABLE("array", u32, u64, slots, CALLS, PT_MMAPABLE);

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

int on_enter(void *ctx)
{
	u32 zero = 0, tid, index;
	struct control *c = control.lookup(&zero);
	struct start *s;
	u32 every;

	if (!c || !c->enabled)
		return 0;
	every = PT_ONCE(c->sample);
	if (every > 1 && is_skipped(every))
		return 0;
	tid = TID(CURRENT());
	index = tid & (STARTS - 1);
	s = starts.lookup(&index);
	if (!s)
		return 0;
	s->tid = tid;
	s->time = bpf_ktime_get_ns();
	return 0;
}

/*
 * A thread that ended within a call has left its start, and its number goes to another. With
 * sampling that one's first return would find it: none of its own has taken the place.
 */
static __always_inline void forget_start(u32 tid)
{
	u32 index = tid & (STARTS - 1);
	struct start *s = starts.lookup(&index);

	if (s)
		s->tid = 0;
}

static __always_inline void time_call(struct control *c, u32 tid, u32 call, u32 cpu)
{
	u32 index = tid & (STARTS - 1);
	struct start *s = starts.lookup(&index);
	struct hist *h;
	int begun;
	u64 *place, slot;

	if (!s)
		return;
	begun = s->tid == tid;
	/* One in N is timed: most have no start, and one may be left of a call not asked for. */
	if (c->sample > 1 && (!begun || s->time < c->since))
		return;
	place = slots.lookup(&call);
	if (!place)
		return;
	slot = PT_ONCE(*place);
	if (slot >= PT_HISTS)
		slot = 0;
	h = pt_hist(cpu, slot);
	if (!h)
		return;
	if (!begun || !slot) {
		PT_ADD(h->missed, 1);
		return;
	}
	s->tid = 0;
	pt_record(h, bpf_ktime_get_ns() - s->time);
}
#endif

#if PT_DIRECT && !defined(__TARGET_ARCH_arm64) && !defined(__aarch64__)
#define EXECVE 59
#define EXECVEAT 322
#define COMPAT_EXECVE (CALLS / 2 + 11)
#define COMPAT_EXECVEAT (CALLS / 2 + 358)
#define RENAMED 4096

/* Threads that are within an execveat that has got as far as their new name. */
BPF_F_TABLE("array", u32, u32, in_execveat, RENAMED, 0);

/*
 * On x86 what has been executed makes execve of the call's number, whichever it was. The thread
 * gets its new name before that. Others that are renamed are in no execveat.
 */
int on_rename(void *ctx)
{
	u64 task = pt_current_task_btf();
	u32 tid = TID(task), index = tid & (RENAMED - 1);
	u32 call = call_index(task, pt_task_pt_regs(task));
	u32 *place = in_execveat.lookup(&index);

	if (!place)
		return 0;
	if (call == EXECVEAT || call == COMPAT_EXECVEAT)
		*place = tid;
	else if (*place == tid)
		*place = 0;
	return 0;
}

static __always_inline u32 executed_by(u64 task, u32 call, s64 ret)
{
	u32 tid, index, *place;

	if (ret || (call != EXECVE && call != COMPAT_EXECVE))
		return call;
	tid = TID(task);
	index = tid & (RENAMED - 1);
	place = in_execveat.lookup(&index);
	if (!place || *place != tid)
		return call;
	*place = 0;
	return call == EXECVE ? EXECVEAT : COMPAT_EXECVEAT;
}
#else
#define executed_by(task, call, ret) (call)
#endif

static __always_inline int count_call(u64 task, u64 regs, s64 ret)
{
	u32 zero = 0, cpu, call, tgid, index;
	struct control *c = control.lookup(&zero);
	struct other *other;
	struct row *row;

	if (!c || !c->enabled)
		return 0;
	tgid = TGID(task);
	if (c->filters && !pt_wanted(c, tgid))
		return 0;
	call = executed_by(task, call_index(task, regs), ret);
	if (is_birth(call, ret)) {
#ifdef LATENCY
		forget_start(TID(task));
#endif
		return 0;
	}
	/* what it returns is what the function does, and no errno */
	if (URETPROBE != UNKNOWN && call == URETPROBE)
		ret = 0;
	cpu = bpf_get_smp_processor_id();
	row = pt_row(process_of(task, tgid), call, cpu, c->epoch);
	if (row) {
		row->count++;
		if (ret < 0 && ret >= -4095)
			count_error(row, call, -ret);
	} else {
		index = cpu * CALLS + (call & (CALLS - 1));
		other = others.lookup(&index);
		if (!other)
			return 0;
		other->calls++;
		if (ret < 0 && ret >= -4095) {
			other->errors++;
			count_shared(call, -ret);
		}
	}
#ifdef LATENCY
	time_call(c, TID(task), call, cpu);
#endif
	return 0;
}

#ifdef PERF
/*
 * Where the kernel preempts programs on raw tracepoints, it leaves out what ends on the same CPU
 * until a preempted one goes on. Those that perf runs are not preempted.
 */
struct perf_exit {
	u64 common;
	s64 number;
	s64 ret;
};

int on_exit(struct perf_exit *ctx)
{
	u64 task = CURRENT();

	return count_call(task, pt_task_pt_regs(task), ctx->ret);
}
#else
int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	return count_call(CURRENT(), ctx->args[0], ctx->args[1]);
}
#endif
