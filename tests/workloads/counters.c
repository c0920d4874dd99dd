/* SPDX-License-Identifier: Apache-2.0 */
/*
 * counters WHAT: a known number of what the kernel counts, again and again; see main.
 *
 * Each line of input has a number N; the answer, when that is done, is "done".
 */
#include "work.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

static long cpus[2];	/* the first and the last that we may run on */
static int there[2], back[2];

static void move_to(long cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	must(!sched_setaffinity(0, sizeof(set), &set), "sched_setaffinity");
}

static void find_cpus(void)
{
	cpu_set_t set;

	must(!sched_getaffinity(0, sizeof(set), &set), "sched_getaffinity");
	cpus[0] = -1;
	for (long cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &set))
			continue;
		cpus[1] = cpu;
		if (cpus[0] < 0)
			cpus[0] = cpu;
	}
}

/* One page after the other, each for the first time. */
static void faults(long n)
{
	long size = sysconf(_SC_PAGESIZE);
	char *place = mmap(NULL, n * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(place != MAP_FAILED, "mmap");
	madvise(place, n * size, MADV_NOHUGEPAGE);
	for (long i = 0; i < n; i++)
		((volatile char *)place)[i * size] = 1;
	munmap(place, n * size);
}

static void *partner(void *none)
{
	char byte;

	move_to(cpus[1]);
	while (read(there[0], &byte, 1) == 1)
		must(write(back[1], &byte, 1) == 1, "write");
	return none;
}

/* N times to another thread on the same CPU and back: each waits N times. */
static void switches(long n)
{
	char byte = 0;

	for (long i = 0; i < n; i++) {
		must(write(there[1], &byte, 1) == 1, "write");
		must(read(back[0], &byte, 1) == 1, "read");
	}
}

/* To the other CPU, N times; an even N ends where it began. */
static void moves(long n)
{
	for (long i = 0; i < n; i++)
		move_to(cpus[(i + 1) & 1]);
}

/* N milliseconds of nothing. */
static void spin(long n)
{
	long long end = now() + n * 1000000;

	while (now() < end)
		;
}

/* The same before all others, who have to wait. */
static void hog(long n)
{
	struct sched_param rt = {.sched_priority = 1}, other = {};

	must(!sched_setscheduler(0, SCHED_FIFO, &rt), "sched_setscheduler");
	spin(n);
	sched_setscheduler(0, SCHED_OTHER, &other);
}

/* N processes, one after the other, that do nothing. */
static void children(long n)
{
	for (long i = 0; i < n; i++) {
		pid_t pid = fork();

		must(pid >= 0, "fork");
		if (!pid)
			_exit(0);
		waitpid(pid, NULL, 0);
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*work)(long);
	} kinds[] = {
		{"faults", faults},	/* N page faults */
		{"switches", switches},	/* 2 N switches, N of each of two threads */
		{"moves", moves},	/* N migrations, for an even N */
		{"spin", spin},		/* N ms of CPU */
		{"hog", hog},		/* N ms of CPU and no switch (as root) */
		{"children", children},	/* N processes */
	};
	void (*work)(long) = NULL;
	pthread_t thread;
	long n;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (argc == 2 && !strcmp(argv[1], kinds[i].name))
			work = kinds[i].work;
	must(work != NULL, "counters WHAT");
	find_cpus();
	if (work == switches) {
		must(!pipe(there) && !pipe(back), "pipe");
		must(!pthread_create(&thread, NULL, partner, NULL), "pthread_create");
	}
	if (work != spin && work != children)
		move_to(cpus[work == moves ? 0 : 1]);
	setvbuf(stdout, NULL, _IOLBF, 1 << 16);
	/* What is done for the first time has faults of its own. */
	work(2);
	printf("ready %d\n", getpid());
	while (scanf("%ld", &n) == 1) {
		work(n);
		printf("done\n");
	}
	return 0;
}
