/* SPDX-License-Identifier: Apache-2.0 */
/*
 * thread_names [CALLS]: a process that calls itself "main-name", and two threads with names of
 * their own. Each of the three makes CALLS calls of getppid, in turns with naps. Then it is told to
 * be called "new-name", and they work once more when told to. It says "done" after each step.
 */
#include "work.h"

#include <pthread.h>
#include <sys/prctl.h>

static pthread_barrier_t begin, end;
static int calls = 1000;

static void work(void)
{
	struct timespec nap = {.tv_nsec = 100000};
	int i;

	pthread_barrier_wait(&begin);
	for (i = 0; i < calls; i++) {
		syscall(SYS_getppid);
		if (i % 50 == 0)
			clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
	}
	pthread_barrier_wait(&end);
}

static void *thread(void *name)
{
	prctl(PR_SET_NAME, name);
	for (;;)
		work();
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t id;

	if (argc > 1)
		calls = atoi(argv[1]);
	prctl(PR_SET_NAME, "main-name");
	must(!pthread_barrier_init(&begin, NULL, 3), "pthread_barrier_init");
	must(!pthread_barrier_init(&end, NULL, 3), "pthread_barrier_init");
	must(!pthread_create(&id, NULL, thread, "worker-one"), "pthread_create");
	must(!pthread_create(&id, NULL, thread, "worker-two"), "pthread_create");
	ready();
	work();
	printf("done\n");
	await();
	prctl(PR_SET_NAME, "new-name");
	printf("done\n");
	await();
	work();
	return done("");
}
