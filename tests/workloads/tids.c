/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tids FIRST STEP N: N processes wait at the same time, whose numbers are FIRST, FIRST + STEP and
 * so on; then one more, with the next number, makes 1000 getppid calls and leaves its CPU once;
 * then the others go on.
 *
 * Each of the N makes one call, recvfrom. It says the nanoseconds of all of them by their clocks.
 */
#include "work.h"

#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

static pid_t fork_as(pid_t number)
{
	struct clone_args args = {
		.exit_signal = SIGCHLD,
		.set_tid = (uintptr_t)&number,
		.set_tid_size = 1,
	};
	pid_t pid = syscall(SYS_clone3, &args, sizeof(args));

	must(pid >= 0, "clone3 with a number of our choice");
	return pid;
}

int main(int argc, char **argv)
{
	long first = argc > 3 ? atol(argv[1]) : 0, step = argc > 3 ? atol(argv[2]) : 0;
	long n = argc > 3 ? atol(argv[3]) : 0, total = 0;
	int (*pairs)[2] = calloc(n + 1, sizeof(*pairs));
	volatile long *spent = mmap(NULL, (n + 1) * sizeof(*spent), PROT_READ | PROT_WRITE,
				    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char text[60], path[60], state, c;

	must(pairs && spent != MAP_FAILED, "memory");
	ready();
	undisturbed();
	for (long i = 0; i < n; i++) {
		pid_t pid;

		must(!socketpair(AF_UNIX, SOCK_STREAM, 0, pairs[i]), "socketpair");
		pid = fork_as(first + i * step);
		if (!pid) {
			long long start = now();

			must(syscall(SYS_recvfrom, pairs[i][0], &c, 1, 0, NULL, NULL) == 1, "recv");
			spent[i] = now() - start;
			syscall(SYS_exit_group, 0);
		}
		snprintf(path, sizeof(path), "/proc/%d/stat", pid);
		do {
			FILE *file = fopen(path, "r");

			must(file && fscanf(file, "%*d %*s %c", &state) == 1, path);
			fclose(file);
			sched_yield();	/* it may want this very CPU */
		} while (state != 'S');
	}
	if (!fork_as(first + n * step)) {
		for (int i = 0; i < 1000; i++)
			syscall(SYS_getppid);
		syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &(struct timespec){0, 1000000}, NULL);
		syscall(SYS_exit_group, 0);
	}
	must(wait(NULL) == first + n * step, "the one that does not wait ends first");
	for (long i = 0; i < n; i++)
		must(write(pairs[i][1], "x", 1) == 1, "write");
	for (long i = 0; i < n; i++)
		must(wait(NULL) > 0, "wait");
	for (long i = 0; i < n; i++)
		total += spent[i];
	snprintf(text, sizeof(text), "%ld", total);
	return done(text);
}
