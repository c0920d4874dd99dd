/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A load on every CPU that counts what it gets done.   load KIND FILE [PROGRAM]
 *
 * KIND is "calls" (getppid in a loop), "switches" (two processes pass a byte through pipes),
 * "programs" (PROGRAM is started and waited for) or "function" (work() is called, 5 million times
 * a second on all CPUs together while nothing is attached to it).
 *
 * FILE has lines of 64 bytes, each with one 64-bit word in front: the first is written by whoever
 * measures (0: wait, 1: work, 2: end), the others are what each CPU has done. The first word of
 * the second half of the first line is set to 1 once all processes are ready.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WAIT, WORK, END };
#define LINE 8			/* words */
#define CALLS_A_SECOND 5e6	/* of work(), by all CPUs */
#define PAUSE_US 2000

static volatile unsigned long *words;
static char *program;
static long cpus, spins;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

#ifdef __x86_64__
#define SAVED "rbx"
#else
#define SAVED "x19"
#endif

/* Begins by saving a register, as most functions do, which the kernel emulates under a uprobe. */
__attribute__((noinline, noclone)) void work(void)
{
	__asm__ volatile("nop" ::: SAVED, "memory");
}

static void spin(long count)
{
	for (long i = 0; i < count; i++)
		__asm__ volatile("" ::: "memory");
}

/* How often to spin between two calls of work(), by the fastest of some tries. */
static void calibrate(void)
{
	const long tries = 20, count = 1000000;
	double best = 1, begun, spent;

	for (long i = 0; i < tries; i++) {
		begun = now();
		spin(count);
		spent = now() - begun;
		best = spent < best ? spent : best;
	}
	spins = cpus / CALLS_A_SECOND / (best / count);
}

static unsigned long calls(void)
{
	for (int i = 0; i < 1000; i++)
		syscall(SYS_getppid);
	return 1000;
}

static unsigned long function(void)
{
	for (int i = 0; i < 100; i++) {
		work();
		spin(spins);
	}
	return 100;
}

static unsigned long programs(void)
{
	char *argv[] = { program, "an", "argument", NULL };
	pid_t pid = vfork();
	int status;

	if (pid == 0) {
		execv(program, argv);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		_exit(1);
	return 1;
}

static int to_peer, from_peer;

/* A process that sends back what it gets, on the same CPU. */
static void open_peer(void)
{
	int there[2], back[2];
	char byte;

	if (pipe(there) || pipe(back))
		_exit(1);
	if (!fork()) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(there[1]);
		while (read(there[0], &byte, 1) == 1)
			if (write(back[1], &byte, 1) != 1)
				break;
		_exit(0);
	}
	to_peer = there[1];
	from_peer = back[0];
}

static unsigned long switches(void)
{
	char byte = 0;

	for (int i = 0; i < 10; i++)
		if (write(to_peer, &byte, 1) != 1 || read(from_peer, &byte, 1) != 1)
			_exit(1);
	return 20;
}

static void run(long cpu, unsigned long (*batch)(void))
{
	volatile unsigned long *done = words + LINE * (1 + cpu);
	unsigned long many = 0;

	while (*words != END) {
		if (*words == WAIT) {
			usleep(PAUSE_US);
			continue;
		}
		many += batch();
		*done = many;
	}
	if (batch == switches) {
		close(to_peer);
		wait(NULL);
	}
	_exit(0);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		unsigned long (*batch)(void);
	} kinds[] = {
		{ "calls", calls }, { "switches", switches },
		{ "programs", programs }, { "function", function },
	};
	unsigned long (*batch)(void) = NULL;
	int file, failed = 0, status;
	cpu_set_t set;

	for (int i = 0; i < 4; i++)
		if (argc >= 3 && !strcmp(argv[1], kinds[i].name))
			batch = kinds[i].batch;
	cpus = sysconf(_SC_NPROCESSORS_ONLN);
	file = argc >= 3 ? open(argv[2], O_RDWR) : -1;
	if (!batch || file < 0 || (batch == programs && argc != 4))
		return 2;
	program = argv[3];
	words = mmap(NULL, 8 * LINE * (1 + cpus), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (words == MAP_FAILED)
		return 1;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	calibrate();
	for (long cpu = 0; cpu < cpus; cpu++) {
		if (fork())
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
		if (sched_setaffinity(0, sizeof(set), &set))
			_exit(1);
		if (batch == switches)
			open_peer();
		run(cpu, batch);
	}
	words[LINE / 2] = 1;
	while (wait(&status) > 0)
		failed |= status;
	return failed ? 1 : 0;
}
