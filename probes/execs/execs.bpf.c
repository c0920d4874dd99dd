/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Which programs are started, by whom, with which arguments, and how do they end?
 *
 * User space maps, and reads without a system call:
 *   control  the control page: enabled, filters, when to wake the reader
 *   stats    counters per CPU: executions, failed ones, exits, events that found no space
 *   events   a ring buffer of struct exec_event and struct exit_event
 *
 * What it costs: an execution about two microseconds beside its own several hundred; the
 * end of a process that executed nothing one counter. Every system call pays for the two that
 * are traced, for the sake of what fails, by the kernel's own test of which calls are: 25 to 50 ns.
 *
 * A process is told of by its first thread, the leader of its thread group: that one has its name,
 * its start and how it ends, whichever thread executes, starts a child, or ends last.
 *
 * The arguments are read from the new stack after the execution has succeeded: they were
 * written a moment ago and are in memory, whatever happens to the caller's copy.
 * Where they are to stay hidden (PT_ARGS is 0), nothing reads them.
 */
#include "probetop.h"

#define ARGS 4096		/* bytes of arguments that are kept */
#define PATH 128
#define FAILED_ARGS 12		/* arguments kept of a failed execution */
#define FAILED_ARG 256		/* bytes kept of each */

#define TYPE_EXEC 1
#define TYPE_EXIT 2
#define TRUNCATED 1
#define NO_ARGS 2
#define HIDDEN 4
#define PATH_TRUNCATED 8

#define PF_FORKNOEXEC 0x40
#define SIGNAL_GROUP_EXIT 4

struct exec_event {
	u32 type;
	u32 pid;
	u64 time;		/* monotonic ns, as in all events */
	u64 started;		/* as in exit_event */
	u64 cgroup;
	u32 ppid;
	u32 uid;
	s32 ret;
	u32 flags;
	char comm[PT_COMM];
	char parent[PT_COMM];
	char path[PATH];
	u32 length;		/* bytes used in args, each argument with its zero */
	u32 euid;		/* the effective user's, of a setuid program another than uid */
	char args[ARGS];
};

struct exit_event {
	u32 type;
	u32 pid;
	u64 time;
	u64 begun;		/* when the process started, monotonic ns */
	u64 started;		/* the same, in ns since boot: with the pid it says which process */
	u32 code;		/* as wait(2) gives it */
	u32 pad;
	char comm[PT_COMM];
};

struct stats {
	u64 execs;
	u64 failed;
	u64 exits;
	u64 lost;
	u64 unread;		/* bytes since the reader was woken */
	u64 pad[3];
};

struct pending {
	u64 path;
	u64 argv;
};

BPF_F_TABLE("array", u32, struct control, control, 1, PT_MMAPABLE);
BPF_F_TABLE("array", u32, struct stats, stats, PT_CPUS, PT_MMAPABLE);
BPF_TABLE("percpu_array", u32, struct exec_event, scratch, 2);
#if !PT_REGS
BPF_TABLE("lru_hash", u32, struct pending, pending, 4096);
#endif
BPF_RINGBUF_OUTPUT(events, PT_RING_PAGES);

/* Processes whose end was told a moment ago. */
struct process {
	u64 started;
	u32 pid;
	u32 pad;
};

BPF_TABLE("lru_hash", struct process, u32, ended, 4096);

static __always_inline struct control *enabled(void)
{
	u32 zero = 0;
	struct control *c = control.lookup(&zero);

	return c && c->enabled ? c : NULL;
}

static __always_inline struct stats *my_stats(void)
{
	u32 cpu = bpf_get_smp_processor_id();

	return stats.lookup(&cpu);
}

/* The reader polls anyway: wake it only when much was written meanwhile. */
static __always_inline u64 wakeup(struct control *c, struct stats *s, u64 size)
{
	s->unread += size;
	if (s->unread < c->wake)
		return PT_NO_WAKEUP;
	s->unread = 0;
	return PT_FORCE_WAKEUP;
}

static __always_inline u64 leader_of(u64 task)
{
	return pt_read(task + OFF_GROUP_LEADER);
}

static __always_inline u64 parent_of_current(void)
{
	return leader_of(pt_read((u64)bpf_get_current_task() + OFF_REAL_PARENT));
}

static __always_inline void read_comm(char *comm, u64 task)
{
	__builtin_memset(comm, 0, PT_COMM);
	bpf_probe_read_kernel_str(comm, PT_COMM, (void *)(task + OFF_COMM));
}

/* Is the current process, or its parent, the one of the filter? */
static __always_inline int pid_related(struct control *c, u32 pid, u32 ppid)
{
	if (pt_has_pid(c, (u64)bpf_get_current_task(), pid))
		return pt_current_meant(c);
	return pt_has_pid(c, parent_of_current(), ppid) && pt_meant(c, parent_of_current());
}

/* A process passes if it or its parent is the one looked for. */
static __always_inline int related(struct control *c, u32 pid, u32 ppid, const char *comm,
				   const char *parent)
{
	u64 f = c->filters;

	if (pt_is_own(c, pid) || pt_is_own(c, ppid))
		return 0;
	if ((f & PT_FILTER_PID) && !pid_related(c, pid, ppid))
		return 0;
	if ((f & PT_FILTER_UID) && !pt_current_of_user(c))
		return 0;
	if ((f & PT_FILTER_CGROUP) && !pt_in_cgroup(c, (u64)bpf_get_current_task()))
		return 0;
	if ((f & PT_FILTER_COMM) && !pt_same_comm(comm, c->comm) &&
	    !pt_same_comm(parent, c->comm))
		return 0;
	return 1;
}

static __always_inline void describe(struct exec_event *e, s32 ret)
{
	u64 parent = parent_of_current(), leader = leader_of((u64)bpf_get_current_task());

	e->type = TYPE_EXEC;
	e->pid = bpf_get_current_pid_tgid() >> 32;
	e->time = bpf_ktime_get_ns();
	e->started = pt_read(leader + OFF_START_BOOTTIME);
	e->cgroup = bpf_get_current_cgroup_id();
	e->ppid = pt_read(parent + OFF_TGID);
	e->uid = bpf_get_current_uid_gid();
	e->euid = pt_read(pt_read((u64)bpf_get_current_task() + OFF_CRED) + OFF_EUID);
	e->ret = ret;
	e->flags = 0;
	e->length = 0;
	e->path[0] = 0;
	read_comm(e->comm, leader);
	read_comm(e->parent, parent);
}

static __always_inline void send(struct control *c, struct exec_event *e, struct stats *s)
{
	u64 size = e->length;

	if (size > ARGS)
		size = ARGS;
	size += offsetof(struct exec_event, args);
	if (events.ringbuf_output(e, size, wakeup(c, s, size)))
		s->lost++;
}

#define DEV_FD 0x2f64662f7665642fULL	/* "/dev/fd/", as a number */
#define MEMFD 0x3a64666d656dULL		/* "memfd:" */

/*
 * A program that is executed by its descriptor has the path /dev/fd/N, which says nothing of it.
 * One that is in memory only (memfd_create) has a name, and is in no directory: /memfd:NAME, as
 * /proc/PID/exe shows it.
 */
static __always_inline void name_memfd(struct exec_event *e, u64 bprm)
{
	u64 dentry, name;
	int length;

	if (*(u64 *)e->path != DEV_FD)
		return;
	dentry = pt_read(pt_read(bprm + OFF_FILE) + OFF_DENTRY);
	name = pt_read(dentry + OFF_DENTRY_NAME + 8);
	if (pt_read(dentry + OFF_DENTRY_PARENT) != dentry || (pt_read(name) & ~0ULL >> 16) != MEMFD)
		return;
	length = bpf_probe_read_kernel_str(e->path + 1, PATH - 1, (void *)name);
	if (length == PATH - 1 && (u8)pt_read(name + PATH - 2))
		e->flags |= PATH_TRUNCATED;
}

int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u32 zero = 0;
	struct control *c = enabled();
	struct stats *s = my_stats();
	struct exec_event *e = scratch.lookup(&zero);
#if PT_ARGS
	u64 mm, start, length;
#endif
	u64 path;
#if !PT_REGS
	u32 old_tid = ctx->args[1];

	pending.delete(&old_tid);
#endif
	if (!c || !s || !e)
		return 0;
	describe(e, 0);
	if (c->filters && !related(c, e->pid, e->ppid, e->comm, e->parent))
		return 0;
	s->execs++;
	path = pt_read(ctx->args[2] + OFF_FILENAME);
	/* so many bytes, with the zero: the path fits exactly, or is cut */
	if (bpf_probe_read_kernel_str(e->path, PATH, (void *)path) == PATH &&
	    (u8)pt_read(path + PATH - 1))
		e->flags |= PATH_TRUNCATED;
	name_memfd(e, ctx->args[2]);
#if PT_ARGS
	mm = pt_read((u64)bpf_get_current_task() + OFF_MM);
	start = pt_read(mm + OFF_ARG_START);
	length = pt_read(mm + OFF_ARG_END) - start;
	if (length > ARGS) {
		length = ARGS;
		e->flags |= TRUNCATED;
	}
	if (bpf_probe_read_user(e->args, length, (void *)start)) {
		e->flags |= NO_ARGS;
		length = 0;
	}
	e->length = length;
#else
	e->flags |= NO_ARGS | HIDDEN;
#endif
	send(c, e, s);
	return 0;
}

struct enter_execve {
	u64 common;
	s32 nr;
	u32 pad;
	u64 args[5];
};

struct exit_syscall {
	u64 common;
	s32 nr;
	u32 pad;
	s64 ret;
};

#if !PT_REGS
static __always_inline int entered(u64 path, u64 argv)
{
	struct pending p = {.path = path, .argv = argv};
	u32 tid = bpf_get_current_pid_tgid();

	if (enabled())
		pending.update(&tid, &p);
	return 0;
}

int enter_execve(struct enter_execve *ctx)
{
	return entered(ctx->args[0], ctx->args[1]);
}

int enter_execveat(struct enter_execve *ctx)
{
	return entered(ctx->args[1], ctx->args[2]);
}
#endif

#if PT_ARGS
/* The caller's own pages: whatever of them is not in memory is left out and marked. */
static __always_inline void read_argv(struct exec_event *e, u64 argv)
{
	u32 length = 0, i;
	u64 address;
	long n;

	for (i = 0; i < FAILED_ARGS + 1; i++) {
		address = 0;
		if (bpf_probe_read_user(&address, sizeof(address), (void *)(argv + 8 * i))) {
			e->flags |= i ? TRUNCATED : NO_ARGS;
			break;
		}
		if (!address)
			break;
		if (i == FAILED_ARGS || length > ARGS - FAILED_ARG) {
			e->flags |= TRUNCATED;
			break;
		}
		n = bpf_probe_read_user_str(&e->args[length], FAILED_ARG, (void *)address);
		if (n < 0) {
			e->flags |= i ? TRUNCATED : NO_ARGS;
			break;
		}
		if (n == FAILED_ARG)
			e->flags |= TRUNCATED;
		length += n & (2 * FAILED_ARG - 1);
	}
	e->length = length;
}
#else
static __always_inline void read_argv(struct exec_event *e, u64 argv)
{
	e->flags |= NO_ARGS | HIDDEN;
}
#endif

static __always_inline int failed(struct exit_syscall *ctx, u64 path, u64 argv)
{
	u32 one = 1;
	struct exec_event *e = scratch.lookup(&one);
	struct control *c = enabled();
	struct stats *s = my_stats();
	u8 last = 0;

	if (!c || !s || !e)
		return 0;
	describe(e, ctx->ret);
	if (bpf_probe_read_user_str(e->path, PATH, (void *)path) == PATH &&
	    !bpf_probe_read_user(&last, 1, (void *)(path + PATH - 1)) && last)
		e->flags |= PATH_TRUNCATED;
	if (c->filters && !related(c, e->pid, e->ppid, e->comm, e->parent))
		return 0;
	s->failed++;
	read_argv(e, argv);
	send(c, e, s);
	return 0;
}

#if PT_REGS
/*
 * What failed has left its caller as it was: the arguments are still in the registers. So nothing
 * waits at the entry, which every system call would pay for.
 */
#define REG(name) (*(u64 *)(regs + offsetof(struct pt_regs, name)))
#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)
#define FIRST REG(orig_x0)
#define SECOND REG(regs[1])
#define THIRD REG(regs[2])
#else
#define FIRST REG(di)
#define SECOND REG(si)
#define THIRD REG(dx)
#endif

int exit_execve(struct exit_syscall *ctx)
{
	u64 regs;

	if (ctx->ret >= 0)
		return 0;
	regs = pt_task_pt_regs(pt_current_task_btf());
	return failed(ctx, FIRST, SECOND);
}

int exit_execveat(struct exit_syscall *ctx)
{
	u64 regs;

	if (ctx->ret >= 0)
		return 0;
	regs = pt_task_pt_regs(pt_current_task_btf());
	return failed(ctx, SECOND, THIRD);
}
#else
static __always_inline int failed_as_entered(struct exit_syscall *ctx)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct pending *p, was;

	if (ctx->ret >= 0)
		return 0;
	p = pending.lookup(&tid);
	if (!p)
		return 0;
	was = *p;
	pending.delete(&tid);
	return failed(ctx, was.path, was.argv);
}

int exit_execve(struct exit_syscall *ctx)
{
	return failed_as_entered(ctx);
}

int exit_execveat(struct exit_syscall *ctx)
{
	return failed_as_entered(ctx);
}
#endif

static __always_inline int exit_wanted(struct control *c, struct exit_event *e)
{
	char name[PT_COMM] __attribute__((aligned(8)));
	u64 parent = parent_of_current();

	read_comm(name, parent);
	return related(c, e->pid, pt_read(parent + OFF_TGID), e->comm, name);
}

/* Two threads that end at the same time may both find that none lives: one of them tells of it. */
static __always_inline int is_told(struct exit_event *e)
{
	struct process key = {.started = e->started, .pid = e->pid};
	u32 one = 1;

	return ended.insert(&key, &one) != 0;
}

/* As wait(2) tells it: what ended all threads, or with what the first one ended. */
static __always_inline u32 exit_code(u64 signals, u64 leader)
{
	if ((u32)pt_read(signals + OFF_SIGNAL_FLAGS) & SIGNAL_GROUP_EXIT)
		return pt_read(signals + OFF_GROUP_EXIT_CODE);
	return pt_read(leader + OFF_EXIT_CODE);
}

int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = (u64)bpf_get_current_task(), signals, leader;
	struct control *c = enabled();
	struct stats *s = my_stats();
	struct exit_event e = {};
#if !PT_REGS
	u32 tid = bpf_get_current_pid_tgid();

	pending.delete(&tid);
#endif
	if (!c || !s)
		return 0;
	/* the process ends with its last thread, whichever that is */
	signals = pt_read(task + OFF_SIGNAL);
	if ((u32)pt_read(signals + OFF_LIVE))
		return 0;
	/* the first thread is there until all the others have been reaped */
	leader = leader_of(task);
	e.pid = bpf_get_current_pid_tgid() >> 32;
	e.started = pt_read(leader + OFF_START_BOOTTIME);
	read_comm(e.comm, leader);
	if ((c->filters && !exit_wanted(c, &e)) || is_told(&e))
		return 0;
	s->exits++;
	e.code = exit_code(signals, leader);
	/* every thread begins with this flag: only the first one's says that nothing was executed */
	if (((u32)pt_read(leader + OFF_FLAGS) & PF_FORKNOEXEC) && !(e.code & 0x7f))
		return 0;
	e.type = TYPE_EXIT;
	e.time = bpf_ktime_get_ns();
	e.begun = pt_read(leader + OFF_START_TIME);
	if (events.ringbuf_output(&e, sizeof(e), wakeup(c, s, sizeof(e))))
		s->lost++;
	return 0;
}
