/* SPDX-License-Identifier: Apache-2.0 */
/* chain: executes itself ten times, in turns by execveat and by execve, then makes a getppid. */
#include "work.h"

#include <fcntl.h>

extern char **environ;

int main(int argc, char **argv)
{
	char left[16], *args[] = {"chain", left, NULL};
	int n = argc > 1 ? atoi(argv[1]) : 10;

	if (argc < 2)
		ready();
	if (n <= 0) {
		setvbuf(stdout, NULL, _IOLBF, 1 << 16);
		syscall(SYS_getppid);
		return done("");
	}
	snprintf(left, sizeof(left), "%d", n - 1);
	if (n % 2)
		syscall(SYS_execve, "/proc/self/exe", args, environ);
	else
		syscall(SYS_execveat, AT_FDCWD, "/proc/self/exe", args, environ, 0);
	return 1;
}
