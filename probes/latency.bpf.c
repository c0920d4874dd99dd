/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * How long does it take, from an entry to its return, or from one event to another?
 *
 * One source for every mechanism; each program is loaded once for each target, with the
 * constants below (PATCH_...) replaced in its instructions: nothing is compiled anew.
 *
 * User space maps, and reads without a system call:
 *   control  the control page: enabled, epoch, filters
 *   hists    per target the durations, what was missed and what found no space
 *   rows     per CPU, process and target: calls and nanoseconds
 *   touched  per CPU the rows that changed
 *
 * What a call costs beside the mechanism itself: two clock reads and two hash lookups.
 */
#include "rows.h"
#include "hist.h"

#define DEPTH 32		/* nested calls of one target by one thread */
#define THREAD_STACK_BITS 14	/* stacks of the kernel are aligned and at least so large */

/* Constants that the loader replaces; the numbers are those of probes/latency.py. */
#define PATCH(n)								\
	({									\
		u64 __v;							\
		asm volatile("%0 = 0x50544f50000000" #n " ll" : "=r"(__v));	\
		__v;								\
	})
#define PATCH_TARGET PATCH(01)
#define PATCH_FIELDS PATCH(02)	/* how many fields are the key; 0: the thread is */
#define PATCH_OFFSET_A PATCH(03)
#define PATCH_SIZE_A PATCH(04)
#define PATCH_OFFSET_B PATCH(05)
#define PATCH_SIZE_B PATCH(06)

/* Linux 5.14 renamed the field. */
#define OFF_STATE (OFF_STATE_NEW >= 0 ? OFF_STATE_NEW : OFF_STATE_OLD)

struct thread_key {
	u32 tid;
	u32 target;
};

struct frame {
	u64 time;
	u64 sp;		/* stack pointer at the entry; 0 if unknown */
};

struct stack {
	u32 depth;
	u32 pad;
	struct frame frames[DEPTH];
	u32 function[DEPTH];	/* the address of each one's entry, as far as it tells them apart */
};

struct pair_key {
	u64 a;
	u64 b;
	u32 target;
	u32 pad;
};

struct begun {
	u64 time;
	u32 tgid;
	u32 pad;
};

BPF_F_TABLE("array", u32, struct control, control, 1, PT_MMAPABLE);
BPF_TABLE("lru_hash", struct thread_key, struct stack, stacks, PT_THREADS);
BPF_TABLE("percpu_array", u32, struct stack, empty, 1);
BPF_TABLE("lru_hash", struct pair_key, struct begun, pairs, PT_PAIRS);

static __always_inline struct control *enabled(void)
{
	u32 zero = 0;
	struct control *c = control.lookup(&zero);

	return c && c->enabled ? c : NULL;
}

static __always_inline struct hist *hist_of(u32 target)
{
	return target < PT_HISTS ? pt_hist(bpf_get_smp_processor_id(), target) : NULL;
}

static __always_inline void record(struct control *c, struct hist *h, u32 target, u32 tgid,
				   u64 spent)
{
	struct row *row;

	pt_record(h, spent);
	row = pt_row((u64)tgid << 32 | (target + 1), bpf_get_smp_processor_id(), c->epoch);
	if (row) {
		row->count++;
		row->sum += spent;
	}
}

/* The idle threads of all CPUs share the number 0: there the CPU stands for the thread. */
static __always_inline u32 thread_id(void)
{
	u32 tid = bpf_get_current_pid_tgid();

	return tid ? tid : 1U << 31 | bpf_get_smp_processor_id();
}

#if defined(__aarch64__) || defined(__TARGET_ARCH_arm64)
#define IP(ctx) ((u32)(ctx)->pc)
#else
#define IP(ctx) ((u32)(ctx)->ip)
#endif

/*
 * Calls of one target nest like their stack frames. A frame below the new call's stack
 * pointer has been left without a return (a long jump, a return that was not delivered), and
 * so has one at it, unless another function began there: that has jumped to this one as its
 * last deed, and both will return. A thread has one stack in user space, as the kernel's own
 * return probes have it; in the kernel only frames of the same stack are compared, for an
 * interrupt has another one.
 */
static __always_inline void enter(u32 target, u64 sp, u32 ip)
{
	struct thread_key key = {.tid = thread_id(), .target = target};
	struct control *c = enabled();
	struct hist *h = hist_of(target);
	u64 same_stack = (u64)((s64)sp >> 63) << THREAD_STACK_BITS;
	struct stack *s;
	u32 zero = 0, depth, i;

	if (!c || !h)
		return;
	if (c->filters && !pt_wanted(c, bpf_get_current_pid_tgid() >> 32))
		return;
	s = stacks.lookup(&key);
	if (!s) {
		s = empty.lookup(&zero);
		if (!s)
			return;
		stacks.update(&key, s);
		s = stacks.lookup(&key);
		if (!s) {
			PT_ADD(h->overflow, 1);
			return;
		}
	}
	depth = s->depth;
	for (i = 0; i < DEPTH; i++) {
		u32 top = (depth - 1) & (DEPTH - 1);
		u64 above = s->frames[top].sp;

		if (!depth || depth > DEPTH || !sp || above > sp)
			break;
		if ((above ^ sp) & same_stack)
			break;
		if (above == sp && s->function[top] != ip)
			break;
		depth--;
		PT_ADD(h->missed, 1);
	}
	if (depth >= DEPTH) {
		PT_ADD(h->overflow, 1);
		s->depth = depth + 1;
		return;
	}
	s->depth = depth + 1;
	/* the compiler must leave the check to where the verifier sees it */
	asm volatile("" : "+r"(depth));
	depth &= DEPTH - 1;
	s->frames[depth].sp = sp;
	s->function[depth] = ip;
	/* the clock last, for what we do before it is not the function's time */
	s->frames[depth].time = bpf_ktime_get_ns();
}

/*
 * A return belongs to the innermost frame whose stack pointer fits: the return has popped
 * the return address, and a trampoline may have saved registers (up to 32 bytes away).
 */
static __always_inline void leave(u32 target, u64 sp)
{
	u64 now = bpf_ktime_get_ns();
	struct thread_key key = {.tid = thread_id(), .target = target};
	struct control *c = enabled();
	struct hist *h = hist_of(target);
	struct stack *s;
	struct frame *top;
	u32 depth, i;

	if (!c || !h)
		return;
	s = stacks.lookup(&key);
	if (!s || !s->depth) {
		/* a call that did not pass the filters, else one begun before us */
		if (!c->filters || pt_wanted(c, bpf_get_current_pid_tgid() >> 32))
			PT_ADD(h->missed, 1);
		return;
	}
	depth = s->depth;
	if (depth > DEPTH) {
		s->depth = depth - 1;
		return;
	}
	for (i = 0; i < DEPTH; i++) {
		top = &s->frames[(depth - 1) & (DEPTH - 1)];
		if (!sp || !top->sp || top->sp + 32 > sp || depth <= 1)
			break;
		depth--;
		PT_ADD(h->missed, 1);
	}
	s->depth = --depth;
	/* as above */
	asm volatile("" : "+r"(depth));
	top = &s->frames[depth & (DEPTH - 1)];
	record(c, h, target, bpf_get_current_pid_tgid() >> 32, now - top->time);
}

int function_enter(struct pt_regs *ctx)
{
	enter(PATCH_TARGET, ctx->sp, IP(ctx));
	return 0;
}

int function_leave(struct pt_regs *ctx)
{
	leave(PATCH_TARGET, ctx->sp);
	return 0;
}

/* A thread that ends inside of calls returns from none of them. */
int thread_end(void *ctx)
{
	u32 target = PATCH_TARGET;
	struct thread_key key = {.tid = thread_id(), .target = target};
	struct control *c = enabled();
	struct hist *h = hist_of(target);
	struct stack *s;

	if (!c || !h)
		return 0;
	s = stacks.lookup(&key);
	if (!s)
		return 0;
	/* what is deeper was counted when it began */
	PT_ADD(h->missed, s->depth < DEPTH ? s->depth : DEPTH);
	stacks.delete(&key);
	return 0;
}

/* fentry and fexit know no stack pointer; the kernel runs them in pairs. */
int trampoline_enter(void *ctx)
{
	enter(PATCH_TARGET, 0, 0);
	return 0;
}

int trampoline_leave(void *ctx)
{
	leave(PATCH_TARGET, 0);
	return 0;
}

/* An event without an end: counted, by process too. */
int event(void *ctx)
{
	u32 target = PATCH_TARGET, tgid = bpf_get_current_pid_tgid() >> 32;
	struct control *c = enabled();
	struct hist *h = hist_of(target);
	struct row *row;

	if (!c || !h || (c->filters && !pt_wanted(c, tgid)))
		return 0;
	PT_ADD(h->count, 1);
	row = pt_row((u64)tgid << 32 | (target + 1), bpf_get_smp_processor_id(), c->epoch);
	if (row)
		row->count++;
	return 0;
}

static __always_inline void pair_key_of(void *ctx, struct pair_key *key)
{
	u64 fields = PATCH_FIELDS;

	if (!fields) {
		key->a = thread_id();
		return;
	}
	bpf_probe_read_kernel(&key->a, PATCH_SIZE_A, ctx + PATCH_OFFSET_A);
	if (fields > 1)
		bpf_probe_read_kernel(&key->b, PATCH_SIZE_B, ctx + PATCH_OFFSET_B);
}

static __always_inline void begin(struct control *c, struct pair_key *key, u32 tgid)
{
	struct begun b = {.tgid = tgid};

	b.time = bpf_ktime_get_ns();
	pairs.update(key, &b);
}

/* Returns 0 if nobody saw the beginning. */
static __always_inline int end(struct control *c, struct pair_key *key, u32 tgid)
{
	u64 now = bpf_ktime_get_ns();
	struct hist *h = hist_of(key->target);
	struct begun *b = pairs.lookup(key);

	if (!h || !b)
		return 0;
	if (!tgid)
		tgid = b->tgid;
	/* what began before the filter was set may be somebody else's */
	if (!(c->filters & PT_FILTER_PID) || tgid == c->pid)
		record(c, h, key->target, tgid, now - b->time);
	pairs.delete(key);
	return 1;
}

int pair_begin(void *ctx)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct pair_key key = {.target = PATCH_TARGET};
	struct control *c = enabled();

	if (!c || (c->filters && !pt_wanted(c, tgid)))
		return 0;
	pair_key_of(ctx, &key);
	begin(c, &key, tgid);
	return 0;
}

/* The time belongs to the process that began: who is interrupted by the end is anybody. */
int pair_end(void *ctx)
{
	struct pair_key key = {.target = PATCH_TARGET};
	struct control *c = enabled();
	u64 fields = PATCH_FIELDS;
	struct hist *h;

	if (!c)
		return 0;
	pair_key_of(ctx, &key);
	if (end(c, &key, 0))
		return 0;
	/* what did not pass the filters is not missed; joined by fields, it was anybody's */
	if (c->filters && (fields || !pt_wanted(c, bpf_get_current_pid_tgid() >> 32)))
		return 0;
	h = hist_of(key.target);
	if (h)
		PT_ADD(h->missed, 1);
	return 0;
}

/* A thread is runnable from its wakeup, or from being preempted, until it gets a CPU. */
int runq_wakeup(struct bpf_raw_tracepoint_args *ctx)
{
	struct pair_key key = {.target = PATCH_TARGET};
	struct control *c = enabled();

	if (!c)
		return 0;
	key.a = (u32)pt_read(ctx->args[0] + OFF_PID);
	begin(c, &key, 0);
	return 0;
}

int runq_switch(struct bpf_raw_tracepoint_args *ctx)
{
	struct pair_key key = {.target = PATCH_TARGET};
	u64 prev = ctx->args[1], next = ctx->args[2];
	struct control *c = enabled();
	u32 tgid;

	if (!c)
		return 0;
	key.a = (u32)pt_read(prev + OFF_PID);
	if (key.a && !(u32)pt_read(prev + OFF_STATE))
		begin(c, &key, 0);
	key.a = (u32)pt_read(next + OFF_PID);
	tgid = pt_read(next + OFF_TGID);
	if (key.a && (!c->filters || pt_task_wanted(c, next)))
		end(c, &key, tgid);
	return 0;
}

/* A thread is off the CPU from the switch away from it until the switch back. */
int offcpu_switch(struct bpf_raw_tracepoint_args *ctx)
{
	struct pair_key key = {.target = PATCH_TARGET};
	u64 prev = ctx->args[1], next = ctx->args[2];
	struct control *c = enabled();

	if (!c)
		return 0;
	key.a = (u32)pt_read(prev + OFF_PID);
	if (key.a)
		begin(c, &key, 0);
	key.a = (u32)pt_read(next + OFF_PID);
	if (key.a && (!c->filters || pt_task_wanted(c, next)))
		end(c, &key, pt_read(next + OFF_TGID));
	return 0;
}
