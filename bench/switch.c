/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What does one context switch take?   switch CPU RUNS TRIPS
 *
 * Two processes pinned to one CPU pass a byte back and forth through pipes, TRIPS times and
 * that RUNS times over: two switches a trip, and four system calls. Prints the nanoseconds a
 * switch, calls and all, of the fastest run; what is attached to switches makes it longer.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
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
	int there[2], back[2], runs;
	cpu_set_t cpus;
	char byte = 0;
	long trips;

	if (argc != 4)
		return 2;
	CPU_ZERO(&cpus);
	CPU_SET(atoi(argv[1]), &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus) || pipe(there) || pipe(back))
		return 1;
	if (!fork()) {
		close(there[1]);
		while (read(there[0], &byte, 1) == 1)
			if (write(back[1], &byte, 1) != 1)
				break;
		return 0;
	}
	trips = atol(argv[3]);
	for (runs = atoi(argv[2]); runs > 0; runs--) {
		begun = now();
		for (long i = 0; i < trips; i++)
			if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
				return 1;
		spent = (now() - begun) / (2 * trips);
		if (!best || spent < best)
			best = spent;
	}
	printf("%.2f\n", best);
	return 0;
}
