/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Is the CPU working or waiting, and for whom?
 *
 * At each switch of tasks, and on a timer for those that run on and on, what this CPU's
 * counters gained since the last time is charged to the process that had the CPU.
 *
 * User space maps, and reads without a system call:
 *   control  the control page: enabled, epoch, filters
 *   cpus     per CPU its times, and each counter as it was read last
 *   rows     a hash table per CPU of (process, what) -> switches, ns on the CPU, ns waited, and
 *            of each counter its gain and for how long it ran; what is 1: migrations
 *   touched  per CPU the rows that changed in this epoch and in the one before
 * and holds
 *   counters the perf events, PT_SLOTS for each of PT_CPUS, and those of the timers; they end
 *            when the descriptor that they were put in through is closed
 *   delays   threads by number -> what they had waited for CPUs when they last left one
 *
 * What a switch costs: a clock read, one for each counter, and some cache lines that no other
 * CPU writes: no hash map, no atomic, no lock.
 *
 * All three programs run with interrupts disabled (the scheduler holds a run queue's lock or a
 * task's, the timer is an interrupt), so that none runs within another on the same CPU.
 */
#define PT_WIDE (1 + 2 * PT_SLOTS)
#include "rows.h"

#define RAN 0			/* what a row is about: rows.h's "what" */
#define MIGRATED 1

#define DELAYS 32768
#define DELAY_BITS 42		/* the rest of 64 holds any thread's number */
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
	u64 unattributed;	/* switches of processes that found no row */
	u64 delay;		/* what the task that has the CPU now had waited before this time ... */
	u64 tid;		/* ... and its number */
	struct reading last[PT_SLOTS];
};

BPF_F_TABLE("array", u32, struct control, control, 1, PT_MMAPABLE);
BPF_F_TABLE("array", u32, struct cpu, cpus, PT_CPUS, PT_MMAPABLE);
BPF_F_TABLE("array", u32, u64, delays, DELAYS, 0);
BPF_PERF_ARRAY(counters, (PT_SLOTS + 1) * PT_CPUS);

#define LOAD(type, base, offset) (*(type *)((base) + (offset)))

/* Charge what this CPU did since the last time to the current process. */
static __always_inline void account(u32 tgid, u32 cpu, struct cpu *s, u32 switched, u64 waited)
{
	u64 now = bpf_ktime_get_ns(), ns = s->time ? now - s->time : 0;
	u64 value[PT_SLOTS], running[PT_SLOTS];
	u32 zero = 0, slot;
	struct control *c;
	struct row *row;

	s->time = now;
#pragma unroll
	for (slot = 0; slot < PT_SLOTS; slot++) {
		struct reading new, *last = &s->last[slot];
		u64 enabled;

		value[slot] = running[slot] = 0;
		if (counters.perf_counter_value(slot * PT_CPUS + cpu, &new, sizeof(new)))
			continue;
		value[slot] = new.value - last->value;
		running[slot] = new.running - last->running;
		enabled = new.enabled - last->enabled;
		*last = new;
		/* one that never had to give way ran exactly as long as the process did */
		if (running[slot] && running[slot] == enabled)
			running[slot] = ns;
	}
	c = control.lookup(&zero);
	if (!c || !c->enabled || !ns)
		return;
	if (tgid)
		s->busy += ns;
	else
		s->idle += ns;
	s->switches += switched;
	s->wait += waited;
	if (c->filters && !pt_wanted(c, tgid))
		return;
	row = pt_row((u64)tgid << 32 | (RAN + 1), cpu, c->epoch);
	if (!row) {
		s->unattributed += switched;
		return;
	}
	row->count += switched;
	row->sum += ns;
	row->wide[0] += waited;
#pragma unroll
	for (slot = 0; slot < PT_SLOTS; slot++) {
		row->wide[1 + 2 * slot] += value[slot];
		row->wide[2 + 2 * slot] += running[slot];
	}
}

/*
 * How long did a task wait for the CPU that it leaves now?
 *
 * The kernel adds up what a thread waited. What it added since the thread left a CPU for the
 * last time is the answer; where that is not known, what it added since the thread got this
 * one: that misses what it waited for another before it was moved.
 */
static __always_inline u64 waited(struct cpu *s, u64 prev)
{
#if OFF_RUN_DELAY >= 0
	u64 tid = LOAD(u32, prev, OFF_PID), delay = LOAD(u64, prev, OFF_RUN_DELAY), before, since;
	u32 index = tid & (DELAYS - 1);
	u64 *known;

	known = tid ? delays.lookup(&index) : NULL;
	if (!known)
		return 0;
	before = *known;
	*known = tid << DELAY_BITS | (delay & DELAY_MASK);
	since = (delay - before) & DELAY_MASK;
	/* a new thread with the number of an old one begins at 0 */
	if (before >> DELAY_BITS == tid && since >> (DELAY_BITS - 1) == 0)
		return since;
	if (s->tid == tid && delay >= s->delay)
		return delay - s->delay;
#endif
	return 0;
}

/* sched_switch(preempt, prev, next, ...), before it is done: prev is the current task. */
int on_switch(struct bpf_raw_tracepoint_args *ctx)
{
	u64 prev = ctx->args[1], next = ctx->args[2];
	u32 cpu = bpf_get_smp_processor_id();
	struct cpu *s = cpus.lookup(&cpu);

	if (!s)
		return 0;
	account(LOAD(u32, prev, OFF_TGID), cpu, s, 1, waited(s, prev));
#if OFF_RUN_DELAY >= 0
	s->delay = LOAD(u64, next, OFF_RUN_DELAY);
	s->tid = LOAD(u32, next, OFF_PID);
#endif
	return 0;
}

/* A timer of this CPU: who never leaves it gets its share now. */
int on_tick(struct bpf_perf_event_data *ctx)
{
	u32 cpu = bpf_get_smp_processor_id();
	struct cpu *s = cpus.lookup(&cpu);

	if (s)
		account(bpf_get_current_pid_tgid() >> 32, cpu, s, 0, 0);
	return 0;
}

/* sched_migrate_task(task, cpu): also when it is there already. */
int on_migrate(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = ctx->args[0];
	u32 zero = 0, to = ctx->args[1], from;
	struct control *c = control.lookup(&zero);
	struct row *row;

	if (!c || !c->enabled)
		return 0;
#if OFF_CPU_OLD >= 0
	from = LOAD(u32, task, OFF_CPU_OLD);
#else
	from = LOAD(u32, task, OFF_CPU_NEW);
#endif
	if (from == to || (c->filters && !pt_task_wanted(c, task)))
		return 0;
	row = pt_row((u64)LOAD(u32, task, OFF_TGID) << 32 | (MIGRATED + 1),
		     bpf_get_smp_processor_id(), c->epoch);
	if (row)
		row->count++;
	return 0;
}
