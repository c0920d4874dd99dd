/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What does one system call take?   spin CPU RUNS CALLS
 *
 * Pinned to a CPU, it makes CALLS getppid calls RUNS times over and prints the nanoseconds a
 * call of the fastest run: what disturbs a run makes it longer, never shorter. A run should
 * be shorter than the time slice that the scheduler gives to others meanwhile.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
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
			syscall(SYS_getppid);
		spent = (now() - begun) / calls;
		if (!best || spent < best)
			best = spent;
	}
	printf("%.2f\n", best);
	return 0;
}
