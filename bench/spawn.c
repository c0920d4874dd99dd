/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What does it take to run a program?   spawn CPU RUNS COUNT PROGRAM
 *
 * Pinned to a CPU, it forks, executes PROGRAM and waits for its end, COUNT times in each of
 * RUNS runs, and prints the nanoseconds a program of the fastest run.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static int run(char *program)
{
	char *argv[] = { program, "an", "argument", NULL };
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		execv(program, argv);
		_exit(127);
	}
	return pid < 0 || waitpid(pid, &status, 0) != pid || status;
}

int main(int argc, char **argv)
{
	double best = 0, begun, spent;
	cpu_set_t cpus;
	int runs, count;

	if (argc != 5)
		return 2;
	CPU_ZERO(&cpus);
	CPU_SET(atoi(argv[1]), &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		return 1;
	count = atoi(argv[3]);
	for (runs = atoi(argv[2]); runs > 0; runs--) {
		begun = now();
		for (int i = 0; i < count; i++)
			if (run(argv[4]))
				return 1;
		spent = (now() - begun) / count;
		if (!best || spent < best)
			best = spent;
	}
	printf("%.0f\n", best);
	return 0;
}
