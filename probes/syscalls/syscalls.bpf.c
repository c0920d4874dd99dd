/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Which system calls are made, by whom, how many fail and why, and how long they take?
 *
 * User space maps, and reads without a system call:
 *   control  the control page: enabled, epoch, filters, sampling
 *   rows     a hash table per CPU of (process, call) -> calls, errors, two errnos
 *   touched, lists   per CPU the rows that changed in this epoch and in the one before
 *   others   calls that found no row, per call: counted, without a process. Up to 256 CPUs have
 *            a slice of their own; with more, some share one, by atomic additions
 *   errnos   errors that did not fit into their row, or had none, per call and errno
 *   owners   (LATENCY) which call a histogram is of: its index plus 1, 0 for none
 *   hists    (LATENCY) the histograms, and what was missed; slot 0 is of calls without one
 *   peaks    (LATENCY) the longest of the last rounds of reading, per histogram and CPU
 *
 * What one system call costs: no hash map, no atomic, no lock, one cache line written.
 * With LATENCY two clock reads and one more line on either side; where one call in N is timed,
 * the others cost a look at a line of the CPU's own and one at the thread's. Only what signals
 * interrupt takes a hash map.
 *
 * Nothing here may be interrupted by another task: see PERF.
 */
#include "rows.h"

#define CALLS 1024		/* 0..511 native, 512..1023 32-bit compat calls */
#define UNKNOWN 511
#define ERRNOS 160		/* 1..133 as they are, 512..531 from 134 on, 158, 159 the rest */
#define BY_SIGSYS (4096 + SIGSYS)	/* no errno: what seccomp answers by a signal */
#define SIGSYS 31

struct other {
	u64 calls;
	u64 errors;
};

BPF_F_TABLE("array", u32, struct control, control, 1, PT_MMAPABLE);
BPF_F_TABLE("array", u32, struct other, others, PT_OTHERS * CALLS, PT_MMAPABLE);
BPF_F_TABLE("array", u32, u64, errnos, CALLS * ERRNOS, PT_MMAPABLE);

#if PT_OTHERS < PT_CPUS
#define ADD_OTHER(place) __sync_fetch_and_add(&(place), 1)
#else
#define ADD_OTHER(place) ((place)++)
#endif

static __always_inline u32 errno_index(u32 e)
{
	if (e < 134)
		return e;
	if (e >= 512 && e < 532)
		return e - 512 + 134;
	return e == BY_SIGSYS ? ERRNOS - 2 : ERRNOS - 1;
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

#define LOAD(type, base, offset) (*(type *)((base) + (offset)))
#define NO_NUMBER (~0U)		/* of a call that took its number away */

#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)
#define OFF_NUMBER offsetof(struct pt_regs, syscallno)
#define COMPAT_BIT (1 << 22)	/* TIF_32BIT */
#define RESTART_SYSCALL 128
#else
#define OFF_NUMBER offsetof(struct pt_regs, orig_ax)
#define COMPAT_BIT 2		/* TS_COMPAT */
#define RESTART_SYSCALL 219
#endif
#define COMPAT_RESTART_SYSCALL (CALLS / 2)

/* What the register of the result held when the call was made. */
#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)
#define REGISTER_BEFORE(regs, nr) LOAD32(regs, offsetof(struct pt_regs, orig_x0))
#else
#define REGISTER_BEFORE(regs, nr) (nr)
#endif

#if PT_DIRECT
#define LOAD32(base, offset) LOAD(u32, base, offset)
#else
#define LOAD32(base, offset) ((u32)pt_read((base) + (offset)))
#endif

#if !defined(__TARGET_ARCH_arm64) && !defined(__aarch64__) && OFF_XOL >= 0 && OFF_XOL_VADDR >= 0
/* Since Linux 6.11 the end of a function that a return probe waits for is a system call. */
#define URETPROBE 335

/* It comes from the page that the kernel put into the process. */
static __always_inline int is_uretprobe(u64 mm, u64 ip)
{
	u64 area = pt_read(mm + OFF_XOL);

	return area && ip - pt_read(area + OFF_XOL_VADDR) < 4096;
}
#else
#define URETPROBE UNKNOWN
#define is_uretprobe(mm, ip) 0
#endif

#if OFF_TRAMPOLINES >= 0 && OFF_TRAMPOLINE_VADDR >= 0
/* Since Linux 6.18 a uprobe on a nop of five bytes is a system call as well. */
#define UPROBE 336
#define MOST_TRAMPOLINES 8	/* one is enough for two gigabytes of code on either side */

/* It comes from one of the pages that the kernel put into the process for it. */
static __always_inline int is_uprobe(u64 mm, u64 ip)
{
	u64 at = pt_read(mm + OFF_TRAMPOLINES);
	u32 i;

	for (i = 0; i < MOST_TRAMPOLINES; i++) {
		if (!at)
			return 0;
		if (ip - pt_read(at + OFF_TRAMPOLINE_VADDR) < 4096)
			return 1;
		at = pt_read(at);	/* they are a list, whose links come first */
	}
	return 0;
}
#else
#define UPROBE UNKNOWN
#define is_uprobe(mm, ip) 0
#endif

/* What a call without a usable number is, as far as that can be told. */
static __always_inline u32 unnumbered(u64 task, u64 regs)
{
#if URETPROBE != UNKNOWN || UPROBE != UNKNOWN
	u64 ip = pt_read(regs + offsetof(struct pt_regs, ip));
	u64 mm = pt_read(task + OFF_MM);

	if (is_uretprobe(mm, ip))
		return URETPROBE;
	if (is_uprobe(mm, ip))
		return UPROBE;
#endif
	return UNKNOWN;
}

/*
 * Did seccomp answer the call that this thread returns from by a signal? Then the call's result
 * is what was in its register before, and the signal is sent to this thread alone.
 */
static __always_inline int is_refused(u64 task)
{
	return (pt_read(task + OFF_PENDING) & (1 << (SIGSYS - 1))) != 0;
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

#include "interrupted.h"

#ifdef LATENCY
#include "call_times.h"
#else
#define interrupt_call(tid)
#define begin_handler(left, tid)
#define time_call(c, tid, call, cpu, regs)
#endif

#if PT_DIRECT && !defined(__TARGET_ARCH_arm64) && !defined(__aarch64__)
#define EXECVE 59
#define EXECVEAT 322
#define COMPAT_EXECVE (CALLS / 2 + 11)
#define COMPAT_EXECVEAT (CALLS / 2 + 358)
#define RENAMED 4096

static __always_inline u32 call_index(u64 task, u64 regs)
{
	u32 nr = LOAD32(regs, OFF_NUMBER);

	if (nr >= UNKNOWN)
		nr = UNKNOWN;
	return LOAD32(task, OFF_COMPAT) & COMPAT_BIT ? nr + CALLS / 2 : nr;
}

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

/* Count a call, which failed where `error` is not 0. */
static __always_inline void count_call(struct control *c, struct pt_process who, u32 call,
				       u32 cpu, u32 error)
{
	struct row *row = pt_row(who, call, cpu, c->epoch);
	struct other *other;
	u32 index;

	if (row) {
		row->count++;
		if (error)
			count_error(row, call, error);
		return;
	}
	index = (cpu & (PT_OTHERS - 1)) * CALLS + (call & (CALLS - 1));
	other = others.lookup(&index);
	if (!other)
		return;
	ADD_OTHER(other->calls);
	if (error) {
		ADD_OTHER(other->errors);
		count_shared(call, error);
	}
}

static __always_inline int end_call(u64 task, u64 regs, s64 ret)
{
	u32 zero = 0, cpu, nr, call, tgid, error;
	struct control *c = control.lookup(&zero);

	if (!c || !c->enabled)
		return 0;
	tgid = TGID(task);
	if (c->filters && !pt_wanted(c, tgid))
		return 0;
	call = nr = LOAD32(regs, OFF_NUMBER);
	error = ret < 0 && ret >= -4095 ? -ret : 0;
	if (nr >= UNKNOWN) {
		call = UNKNOWN;
		if (nr == NO_NUMBER) {
			call = unnumbered(task, regs);
			error = 0;	/* what is taken for the result is the program's register */
		}
	}
	if (LOAD32(task, OFF_COMPAT) & COMPAT_BIT)
		call += CALLS / 2;
	call = executed_by(task, call, ret);
	if (is_birth(call, ret))
		return 0;
	if (call == RESTART_SYSCALL || call == COMPAT_RESTART_SYSCALL)
		call = continued_call(TID(task), call);
	if (error && is_undecided(task, error)) {
		note_interrupted(regs, TID(task), call, error);
		interrupt_call(TID(task));
		return 0;
	}
	if ((u32)ret == REGISTER_BEFORE(regs, nr) && is_refused(task))
		error = BY_SIGSYS;
	cpu = bpf_get_smp_processor_id();
	count_call(c, process_of(task, tgid), call, cpu, error);
	time_call(c, TID(task), call, cpu, regs);
	return 0;
}

/* A signal's handler is about to run: does that end a call which was left for it? */
static __always_inline int deliver(u64 handler, u64 flags)
{
	u64 both = bpf_get_current_pid_tgid();
	u32 zero = 0, tid = both, cpu, call;
	struct control *c = control.lookup(&zero);
	struct interrupted *left;

	/* SIG_DFL and SIG_IGN run nothing */
	if (handler <= 1 || !c || !c->enabled)
		return 0;
	left = interrupted.lookup(&tid);
	if (!left)
		return 0;
	if (goes_on_after(left->error, flags) || !is_at_its_return(left)) {
		begin_handler(left, tid);
		return 0;
	}
	call = left->call & (CALLS - 1);
	cpu = bpf_get_smp_processor_id();
	interrupted.delete(&tid);
	count_call(c, pt_current_process(both >> 32), call, cpu, EINTR);
	time_call(c, tid, call, cpu, 0);
	return 0;
}

#ifdef LATENCY
static __always_inline int is_exec(u32 nr)
{
#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)
	return nr == 221 || nr == 281 || nr == 11 || nr == 387;
#else
	return nr == 59 || nr == 322 || nr == 11 || nr == 358;
#endif
}

static __always_inline int begin_wanted(u64 task, u32 nr)
{
	u32 zero = 0, every;
	struct control *c = control.lookup(&zero);

	if (!c || !c->enabled)
		return 0;
	/* an execve may change what filters look at, which shows only when it returns */
	if (c->filters && !is_exec(nr) && !pt_wanted(c, TGID(task)))
		return 0;
	every = PT_ONCE(c->sample);
	if (every > 1 && is_skipped(every))
		return 0;
	begin_call(TID(task));
	return 0;
}
#endif

#ifdef PERF
/*
 * Where the kernel preempts programs on raw tracepoints, it leaves out what ends on the same CPU
 * until a preempted one goes on. Those that perf runs are not preempted.
 */
struct perf_call {
	u64 common;
	s64 number;
	s64 ret;	/* at the exit only */
};

struct perf_signal {
	u64 common;
	int signal;
	int error;
	int code;
	u64 handler;
	u64 flags;
};

int on_exit(struct perf_call *ctx)
{
	u64 task = CURRENT();

	return end_call(task, pt_task_pt_regs(task), ctx->ret);
}

int on_signal(struct perf_signal *ctx)
{
	return deliver(ctx->handler, ctx->flags);
}

#ifdef LATENCY
int on_enter(struct perf_call *ctx)
{
	return begin_wanted(CURRENT(), ctx->number);
}
#endif
#else
int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	return end_call(CURRENT(), ctx->args[0], ctx->args[1]);
}

/* signal_deliver(signal, info, action) */
int on_signal(struct bpf_raw_tracepoint_args *ctx)
{
	u64 action = ctx->args[2];

	return deliver(pt_read(action + OFF_HANDLER), pt_read(action + OFF_SA_FLAGS));
}

#ifdef LATENCY
int on_enter(struct bpf_raw_tracepoint_args *ctx)
{
	return begin_wanted(CURRENT(), ctx->args[1]);
}
#endif
#endif
