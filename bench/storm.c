/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many system calls can a machine make in a while?   storm SECONDS
 *
 * A thread pinned to each CPU makes getppid calls for so long, and the program prints the calls
 * of all of them per second: what is attached, and whoever else wants the CPUs, makes them fewer.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static double seconds, begun;
static long long calls;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void *run(void *number)
{
	long long mine = 0;
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET((long)number, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	while (now() - begun < seconds) {
		for (int i = 0; i < 1000; i++)
			syscall(SYS_getppid);
		mine += 1000;
	}
	__atomic_add_fetch(&calls, mine, __ATOMIC_SEQ_CST);
	return NULL;
}

int main(int argc, char **argv)
{
	long many = sysconf(_SC_NPROCESSORS_ONLN);
	pthread_t *ids = calloc(many, sizeof(*ids));

	if (argc != 2 || !ids)
		return 2;
	seconds = atof(argv[1]);
	begun = now();
	for (long i = 0; i < many; i++)
		if (pthread_create(&ids[i], NULL, run, (void *)i))
			return 1;
	for (long i = 0; i < many; i++)
		pthread_join(ids[i], NULL);
	printf("%.0f\n", calls / (now() - begun));
	return 0;
}
