/* SPDX-License-Identifier: Apache-2.0 */
/*
 * storm N WORKERS PROGRAM: N executions of PROGRAM as fast as vfork allows, spread over
 * WORKERS processes; the second argument is a number from 0 to N - 1, each once.
 */
#include "work.h"

#include <sched.h>
#include <sys/wait.h>

/* In a function of its own, for nothing that changes may be live across vfork. */
static __attribute__((noinline)) pid_t start(char *program, char *number)
{
	char *args[] = {"storm", number, NULL}, *none[] = {NULL};
	pid_t pid = vfork();

	if (!pid) {
		execve(program, args, none);
		_exit(127);
	}
	return pid;
}

static void work(char *program, int from, int to)
{
	char number[16];

	for (int i = from; i < to; i++) {
		int status;

		snprintf(number, sizeof(number), "%d", i);
		pid_t pid = start(program, number);

		must(pid > 0 && waitpid(pid, &status, 0) == pid && !status, "child");
	}
}

int main(int argc, char **argv)
{
	must(argc == 4, "usage");
	int n = atoi(argv[1]), workers = atoi(argv[2]), failed = 0, status;

	ready();
	for (int w = 0; w < workers; w++)
		if (!fork()) {
			work(argv[3], (long)n * w / workers, (long)n * (w + 1) / workers);
			_exit(0);
		}
	for (int w = 0; w < workers; w++)
		failed |= wait(&status) < 0 || status;
	must(!failed, "workers");
	return done("");
}
