/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Is the CPU working or waiting, and for whom?
 *
 * At each switch of tasks, and on a timer for those that run on and on, what this CPU's
 * counters gained since the last time is charged to the process that had the CPU.
 *
 * User space maps, and reads without a system call:
 *   control  the control page: enabled, epoch, filters
 *   handover (written by user space) per CPU where the programs that ran before had come to
 *   cpus     per CPU its times, and each counter as it was read last
 *   rows     a hash table per CPU of (process, what) -> switches, ns on the CPU, ns waited, page
 *            faults, and of each counter its gain and for how long it ran; what is 1: migrations
 *   touched, lists   per CPU the rows that changed in this epoch and in the one before
 * and holds
 *   counters the perf events, PT_SLOTS for each of PT_CPUS, and those of the timers; they end
 *            when the descriptor that they were put in through is closed
 *   delays   threads by number -> what they had waited for CPUs when they last left one, and in
 *            which burst that was
 *
 * What a switch costs: a clock read, a helper's call for each counter, and some cache lines that
 * no other CPU writes: no hash map, no atomic, no lock. For how long a counter ran is asked at a
 * switch only while counters are shared, for that reads the clock once more for each. The timer
 * always asks: what is shared from now on is marked after one tick, and stays so for a second.
 *
 * In a storm of switches the program on switches is attached in bursts. Each CPU's part of one
 * begins and ends where on_edge runs on it: who has the CPU then is charged from there on, or
 * until there, so that no piece of time is missing or counted from before. Between bursts
 * the timer goes on reading counters, and charges nobody.
 *
 * All programs run with interrupts disabled (the scheduler holds a run queue's lock or a task's,
 * the timer and on_edge are in interrupts), so that none runs within another on the same CPU. Only
 * on the CPU of who starts it on_edge is in no interrupt: the timer leaves out its tick then.
 */
#define KEPT 3			/* words of rows before those of the counters */
#define PT_WIDE (KEPT + 2 * PT_SLOTS)
#include "rows.h"

#define RAN 0			/* what a row is about: rows.h's "what" */
#define MIGRATED 1

#define SHARED_TICKS 20
#define DELAYS 32768
#define DELAY_BITS 42		/* the rest of 64: the thread's number above its index, the burst */
#define BURST_BITS 15
#define BURSTS ((1 << BURST_BITS) - 2)
#define DELAY_MASK ((1ULL << DELAY_BITS) - 1)

/* What the kernel gives for an event. */
struct reading {
	u64 value;
	u64 enabled;	/* ns */
	u64 running;	/* ns of these that a counter was there for it */
};

struct cpu {
	u64 time;		/* of the last accounting; 0: none so far */
	u64 busy;		/* ns */
	u64 idle;
	u64 switches;
	u64 wait;		/* ns that those who got this CPU had waited */
	u64 faults;		/* page faults, and those of them that had to wait for a disk */
	u64 major;
	u64 unattributed;	/* switches of processes that found no row */
	u64 shared;		/* ticks for which counters still are taken for shared */
	u64 begun;		/* has anything been charged here? */
	/* of the task that has this CPU: what it had before this time */
	u64 tid;
	u64 delay;
	u64 had_faults;
	u64 had_major;
	u64 closed;		/* nobody is charged: between bursts */
	u64 burst;		/* in which burst this is, 0: in none */
	u64 edge;		/* on_edge is at work */
	struct reading last[PT_SLOTS];
};

/* What to charge from, unless this CPU has switched tasks since user space looked at it. */
struct handover {
	u64 time;		/* 0: from nothing */
	u64 seen;		/* cpu.time when user space looked */
	u64 tid;		/* of the task that has this CPU: as in cpu */
	u64 delay;
	u64 had_faults;
	u64 had_major;
};

BPF_F_TABLE("array", u32, struct control, control, 1, PT_MMAPABLE);
BPF_F_TABLE("array", u32, struct handover, handover, PT_CPUS, PT_MMAPABLE);
BPF_F_TABLE("array", u32, struct cpu, cpus, PT_CPUS, PT_MMAPABLE);
BPF_F_TABLE("array", u32, u64, delays, DELAYS, 0);
BPF_PERF_ARRAY(counters, (PT_SLOTS + 1) * PT_CPUS);

#define LOAD(type, base, offset) (*(type *)((base) + (offset)))

/* What the current process gained since the last accounting. */
struct gain {
	struct pt_process process;
	u64 switches;
	u64 ns;
	u64 wait;
	u64 faults;
	u64 major;
	u64 value[PT_SLOTS];
	u64 running[PT_SLOTS];
};

/*
 * Read all counters, and for how long they ran; one that never gave way ran all the time. What
 * ran less since it was asked last, which was not at the last switch, is marked from now on.
 */
static __always_inline void read_fully(struct gain *g, u32 cpu, struct cpu *s, u32 tick)
{
	u32 slot, asked = s->shared != 0, shared = 0;

#pragma unroll
	for (slot = 0; slot < PT_SLOTS; slot++) {
		struct reading new, *last = &s->last[slot];
		u64 enabled, running;

		if (counters.perf_counter_value(slot * PT_CPUS + cpu, &new, sizeof(new)))
			continue;
		g->value[slot] = new.value - last->value;
		enabled = new.enabled - last->enabled;
		running = new.running - last->running;
		*last = new;
		shared |= !running || running != enabled;
		g->running[slot] = asked && (!running || running != enabled) ? running : g->ns;
	}
	if (shared)
		s->shared = SHARED_TICKS;
	else if (tick && asked)
		s->shared--;
}

/* Read all counters, each of which had all the time that there was. */
static __always_inline void read_values(struct gain *g, u32 cpu, struct cpu *s)
{
	u32 slot;

#pragma unroll
	for (slot = 0; slot < PT_SLOTS; slot++) {
		u64 value = counters.perf_read(slot * PT_CPUS + cpu);

		/* an errno: this CPU has it not */
		if ((s64)value < 0)
			continue;
		g->value[slot] = value - s->last[slot].value;
		g->running[slot] = g->ns;
		s->last[slot].value = value;
	}
}

/*
 * The first time that something may be charged here: take over from programs that ran before, so
 * that a task which keeps its CPU neither loses nor gets twice what lies between the two.
 */
static __always_inline void take_over(struct cpu *s, u32 cpu)
{
	u32 zero = 0;
	struct control *c = control.lookup(&zero);
	struct handover *h;

	if (s->begun || !c || !c->enabled)
		return;
	s->begun = 1;
	h = handover.lookup(&cpu);
	if (!h || !h->time || h->seen != s->time)
		return;
	s->time = h->time;
	s->tid = h->tid;
	s->delay = h->delay;
	s->had_faults = h->had_faults;
	s->had_major = h->had_major;
}

/* Charge what this CPU did since the last time to the current process. */
static __always_inline void account(struct gain *g, u32 cpu, struct cpu *s, u32 tick)
{
	u32 zero = 0, slot;
	struct control *c;
	struct row *row;
	u64 now;

	now = bpf_ktime_get_ns();
	if (s->time)
		g->ns = now - s->time;
	else
		s->shared = SHARED_TICKS;
	s->time = now;
	if (tick || s->shared)
		read_fully(g, cpu, s, tick);
	else
		read_values(g, cpu, s);
	c = control.lookup(&zero);
	if (!c || !c->enabled || !g->ns || s->closed)
		return;
	if (g->process.tgid)
		s->busy += g->ns;
	else
		s->idle += g->ns;
	s->switches += g->switches;
	s->wait += g->wait;
	s->faults += g->faults;
	s->major += g->major;
	if (c->filters && !pt_wanted(c, g->process.tgid))
		return;
	row = pt_row(g->process, RAN, cpu, c->epoch);
	if (!row) {
		s->unattributed += g->switches;
		return;
	}
	row->count += g->switches;
	row->sum += g->ns;
	row->wide[0] += g->wait;
	row->wide[1] += g->faults;
	row->wide[2] += g->major;
#pragma unroll
	for (slot = 0; slot < PT_SLOTS; slot++) {
		row->wide[KEPT + 2 * slot] += g->value[slot];
		row->wide[KEPT + 1 + 2 * slot] += g->running[slot];
	}
}

/*
 * How long did a task wait for the CPU that it leaves now?
 *
 * The kernel adds up what a thread waited. What it added since the thread left a CPU for the
 * last time is the answer; where that is not known, what it added since the thread got this
 * one: that misses what it waited for another before it was moved. So it is in a burst, which
 * knows nothing of who left a CPU before it.
 */
static __always_inline u64 waited(struct cpu *s, u64 prev, u64 tid)
{
#if OFF_RUN_DELAY >= 0
	u64 delay = LOAD(u64, prev, OFF_RUN_DELAY), before, since;
	/* 0 is what was never written */
	u64 mark = (tid / DELAYS) << BURST_BITS | (s->burst + 1);
	u32 index = tid & (DELAYS - 1);
	u64 *known;

	known = tid ? delays.lookup(&index) : NULL;
	if (!known)
		return 0;
	before = *known;
	*known = mark << DELAY_BITS | (delay & DELAY_MASK);
	since = (delay - before) & DELAY_MASK;
	/* a new thread with the number of an old one begins at 0 */
	if (before >> DELAY_BITS == mark && since >> (DELAY_BITS - 1) == 0)
		return since;
	if (s->tid == tid && delay >= s->delay)
		return delay - s->delay;
#endif
	return 0;
}

/* The page faults of the current task since the last accounting; it has had so many. */
static __always_inline void fault(struct gain *g, struct cpu *s, u64 tid, u64 minor, u64 major)
{
	if (s->tid == tid) {
		g->faults = minor + major - s->had_faults;
		g->major = major - s->had_major;
	}
	s->tid = tid;
	s->had_faults = minor + major;
	s->had_major = major;
}

/*
 * A thread that has been reaped leaves its CPU for the last time when its leader may be gone, and
 * that one's memory another task's: then nobody knows the start any more.
 */
static __always_inline struct pt_process switched(u64 task)
{
	u32 tgid = LOAD(u32, task, OFF_TGID);
	struct pt_process p = pt_process_of(task, tgid);

	if (LOAD(u32, p.leader, OFF_TGID) != tgid)
		p.start = 0;
	return p;
}

/* sched_switch(preempt, prev, next, ...), before it is done: prev is the current task. */
int on_switch(struct bpf_raw_tracepoint_args *ctx)
{
	u64 prev = ctx->args[1], next = ctx->args[2], tid;
	u32 cpu = bpf_get_smp_processor_id();
	struct cpu *s = cpus.lookup(&cpu);
	struct gain g = {};

	/* between bursts the timer alone reads counters */
	if (!s || s->closed)
		return 0;
	take_over(s, cpu);
	tid = LOAD(u32, prev, OFF_PID);
	g.process = switched(prev);
	g.switches = 1;
	g.wait = waited(s, prev, tid);
	fault(&g, s, tid, LOAD(u64, prev, OFF_MIN_FLT), LOAD(u64, prev, OFF_MAJ_FLT));
	account(&g, cpu, s, 0);
	s->tid = LOAD(u32, next, OFF_PID);
	s->had_major = LOAD(u64, next, OFF_MAJ_FLT);
	s->had_faults = LOAD(u64, next, OFF_MIN_FLT) + s->had_major;
#if OFF_RUN_DELAY >= 0
	s->delay = LOAD(u64, next, OFF_RUN_DELAY);
#endif
	return 0;
}

/*
 * Charge the task that has this CPU and keeps it. What it waited for the CPU is charged when it
 * leaves it, or at an `edge`, after which nobody sees it leave.
 */
static __always_inline void account_current(struct cpu *s, u32 cpu, u32 edge)
{
	u64 both = bpf_get_current_pid_tgid(), task = bpf_get_current_task();
	struct gain g = {};

	take_over(s, cpu);
	g.process = pt_current_process(both >> 32);
#if OFF_RUN_DELAY >= 0
	if (edge || s->tid != (u32)both) {
		u64 delay = pt_read(task + OFF_RUN_DELAY);

		if (s->tid == (u32)both && (u32)both && delay >= s->delay)
			g.wait = delay - s->delay;
		s->delay = delay;
	}
#endif
	fault(&g, s, (u32)both, pt_read(task + OFF_MIN_FLT), pt_read(task + OFF_MAJ_FLT));
	account(&g, cpu, s, 1);
}

/* A timer of this CPU: who never leaves it gets its share now. */
int on_tick(struct bpf_perf_event_data *ctx)
{
	u32 cpu = bpf_get_smp_processor_id();
	struct cpu *s = cpus.lookup(&cpu);

	if (s && !s->edge)
		account_current(s, cpu, 0);
	return 0;
}

/* A burst of this number begins on this CPU, or ends (0); never attached, see probes/broker/units.py. */
int on_edge(struct bpf_raw_tracepoint_args *ctx)
{
	u32 cpu = bpf_get_smp_processor_id();
	struct cpu *s = cpus.lookup(&cpu);
	u64 burst = ctx->args[0];

	if (!s)
		return 0;
	*(volatile u64 *)&s->edge = 1;
	account_current(s, cpu, 1);
	s->closed = !burst;
	if (burst)
		s->burst = burst % BURSTS + 1;
	*(volatile u64 *)&s->edge = 0;
	return 0;
}

/* sched_migrate_task(task, cpu): also when it is there already. */
int on_migrate(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = ctx->args[0];
	u32 zero = 0, to = ctx->args[1], from, cpu = bpf_get_smp_processor_id();
	struct control *c = control.lookup(&zero);
	struct cpu *s = cpus.lookup(&cpu);
	struct row *row;

	if (!c || !c->enabled || !s || s->closed)
		return 0;
#if OFF_CPU_OLD >= 0
	from = LOAD(u32, task, OFF_CPU_OLD);
#else
	from = LOAD(u32, task, OFF_CPU_NEW);
#endif
	if (from == to || (c->filters && !pt_task_wanted(c, task)))
		return 0;
	row = pt_row(pt_process_of(task, LOAD(u32, task, OFF_TGID)), MIGRATED, cpu, c->epoch);
	if (row)
		row->count++;
	return 0;
}
