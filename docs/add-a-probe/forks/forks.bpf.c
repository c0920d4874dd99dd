/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * How many threads and processes are created, and on which CPUs?
 *
 * User space maps, and reads without a system call:
 *   control  the control page: enabled, filters
 *   created  per CPU: threads that were created there
 *
 * What it costs: a creation one lookup and one store; nothing is done at any other event.
 */
#include "probetop.h"

struct created {
	u64 threads;
	u64 pad[7];	/* no other CPU writes this cache line */
};

BPF_F_TABLE("array", u32, struct control, control, 1, PT_MMAPABLE);
BPF_F_TABLE("array", u32, struct created, created, PT_CPUS, PT_MMAPABLE);

/* The scheduler's event has the parent, which is the current task, and the child. */
int on_fork(void *ctx)
{
	u32 zero = 0, cpu = bpf_get_smp_processor_id();
	struct control *c = control.lookup(&zero);
	struct created *mine = created.lookup(&cpu);

	if (!c || !c->enabled || !mine)
		return 0;
	if (c->filters && !pt_wanted(c, bpf_get_current_pid_tgid() >> 32))
		return 0;
	mine->threads++;
	return 0;
}
