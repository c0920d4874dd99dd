/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ends HOW [N]: a process of several threads, and how it ends.
 *
 * return  the first thread returns 7 from main while N threads sleep
 * thread  a thread ends the process with 5 while N sleep
 * last    the first thread ends, then the last one ends the process with 5
 * leader  the first thread ends with 3, the last one ends by itself with 9
 * exec    a thread executes /proc/self/exe with "return", while N sleep
 * wait    N threads are begun, all sleep until a signal comes
 *
 * Threads are called "a-thread"; what begins late begins after the line that the test sends.
 */
#include "work.h"

#include <pthread.h>
#include <sys/prctl.h>

static const char *how;

static void *asleep(void *unused)
{
	prctl(PR_SET_NAME, "a-thread");
	for (;;)
		pause();
	return unused;
}

static void *ender(void *unused)
{
	prctl(PR_SET_NAME, "a-thread");
	usleep(20000);
	if (!strcmp(how, "exec"))
		execl("/proc/self/exe", "again", "return", "2", (char *)0);
	if (!strcmp(how, "leader"))
		syscall(SYS_exit, 9);
	exit(5);
	return unused;
}

int main(int argc, char **argv)
{
	int n = argc > 2 ? atoi(argv[2]) : 0;
	pthread_t id;

	how = argc > 1 ? argv[1] : "return";
	if (strcmp(argv[0], "again"))
		ready();
	while (n--)
		must(!pthread_create(&id, NULL, asleep, NULL), "pthread_create");
	if (!strcmp(how, "return"))
		return 7;
	if (strcmp(how, "wait"))
		must(!pthread_create(&id, NULL, ender, NULL), "pthread_create");
	if (!strcmp(how, "last") || !strcmp(how, "leader"))
		syscall(SYS_exit, 3);
	printf("begun\n");
	for (;;)
		pause();
}
