/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reuse: two processes with one pid, one after the other. "alpha" makes 1000 calls of getppid,
 * "beta" 500; they are done in less than a second. Says the pid that they had.
 */
#include "work.h"

#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static int child(pid_t pid, const char *name, int calls)
{
	struct clone_args args = {
		.exit_signal = SIGCHLD,
		.set_tid = (uintptr_t)&pid,
		.set_tid_size = 1,
	};
	long made = syscall(SYS_clone3, &args, sizeof(args));
	int status;

	if (made < 0)
		return 0;
	if (!made) {
		prctl(PR_SET_NAME, name);
		while (calls--)
			syscall(SYS_getppid);
		syscall(SYS_exit_group, 0);
	}
	must(waitpid(made, &status, 0) == made && !status, "waitpid");
	return 1;
}

int main(void)
{
	char text[32];
	pid_t pid;

	ready();
	for (pid = getpid() + 50; !child(pid, "alpha", 1000); pid++)
		must(errno == EEXIST, "clone3");
	must(child(pid, "beta", 500), "clone3");
	snprintf(text, sizeof(text), "%d", pid);
	return done(text);
}
