/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What does one call of a traced function take?   function CPU RUNS CALLS
 *
 * Pinned to a CPU, it calls work() CALLS times and that RUNS times over, and prints the
 * nanoseconds a call of the fastest run. work() begins as most functions do, by saving a
 * register, which the kernel emulates when a uprobe has replaced it; so it does the instruction
 * behind, a nop, for what counts an instruction and does not time a call.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#ifdef __x86_64__
#define SAVED "rbx"
#else
#define SAVED "x19"
#endif

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

__attribute__((noinline, noclone)) void work(void)
{
	__asm__ volatile("nop" ::: SAVED, "memory");
}

int main(int argc, char **argv)
{
	double best = 0, begun, spent;
	cpu_set_t cpus;
	long calls;
	int runs;

	if (argc != 4)
		return 2;
	CPU_ZERO(&cpus);
	CPU_SET(atoi(argv[1]), &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		return 1;
	calls = atol(argv[3]);
	for (runs = atoi(argv[2]); runs > 0; runs--) {
		begun = now();
		for (long i = 0; i < calls; i++)
			work();
		spent = (now() - begun) / calls;
		if (!best || spent < best)
			best = spent;
	}
	printf("%.2f\n", best);
	return 0;
}
