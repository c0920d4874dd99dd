/* SPDX-License-Identifier: Apache-2.0 */
/* calls WHAT N: N system calls of one kind; see main for the kinds. */
#include "work.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

static long count;

/* From now on getpgid(E) fails with errno E, as seccomp says; the call is never entered. */
static void refuse_getpgid(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpgid, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
		BPF_STMT(BPF_ALU | BPF_OR | BPF_K, SECCOMP_RET_ERRNO),
		BPF_STMT(BPF_RET | BPF_A, 0),
	};
	struct sock_fprog program = {sizeof(filter) / sizeof(*filter), filter};

	must(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
	must(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), "seccomp");
}

/* Each errno E in 1..150 and 500..600 comes E times. */
static void errnos(void)
{
	for (int e = 1; e <= 600; e = e == 150 ? 500 : e + 1)
		for (int i = 0; i < e; i++)
			syscall(SYS_getpgid, e);
}

static void *on_thread(void *index)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((long)index % sysconf(_SC_NPROCESSORS_ONLN), &set);
	sched_setaffinity(0, sizeof(set), &set);
	for (long i = 0; i < count; i++)
		syscall(SYS_getppid);
	return NULL;
}

static void threads(void)
{
	pthread_t ids[4];

	for (long i = 0; i < 4; i++)
		must(!pthread_create(&ids[i], NULL, on_thread, (void *)i), "thread");
	for (int i = 0; i < 4; i++)
		pthread_join(ids[i], NULL);
}

/* `count` processes one after the other, each with calls first..last of number, n times. */
static void forks(int first, int last, int n)
{
	for (long i = 0; i < count; i++) {
		pid_t pid = fork();

		must(pid >= 0, "fork");
		if (!pid) {
			for (int nr = first; nr <= last; nr++)
				for (int k = 0; k < n; k++)
					syscall(nr);
			syscall(SYS_exit_group, 0);
		}
		must(waitpid(pid, NULL, 0) == pid, "waitpid");
	}
}

static int ascending(const void *a, const void *b)
{
	long long x = *(const long long *)a, y = *(const long long *)b;

	return (x > y) - (x < y);
}

/* Sleeps of 1 to 5 ms; says its own percentiles, the longest, and the sum, in ns. */
static int sleeps(void)
{
	long long *took = calloc(count, sizeof(*took)), total = 0;
	char text[100];

	for (long i = 0; i < count; i++) {
		struct timespec span = {0, 1000000 + i * 7919 % 5 * 1000000};
		long long start = now();

		syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &span, NULL);
		took[i] = now() - start;
		total += took[i];
	}
	qsort(took, count, sizeof(*took), ascending);
	snprintf(text, sizeof(text), "%lld %lld %lld %lld", took[(count + 1) / 2 - 1],
		 took[(count * 99 + 99) / 100 - 1], took[count - 1], total);
	return done(text);
}

/*
 * Sleeps of 50 us by a child that does nothing else; says its number, how long all of them took,
 * and what the kernel takes for its CPU time, in ns.
 */
static int naps(void)
{
	struct timespec span = {0, 50000}, spent[2];
	long long start = 0, times[2];
	int ends[2];
	char text[80];
	pid_t pid;

	must(!pipe(ends), "pipe");
	pid = fork();
	must(pid >= 0, "fork");
	if (!pid) {
		start = now();
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent[0]);
		for (long i = 0; i < count; i++)
			syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &span, NULL);
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent[1]);
		times[0] = now() - start;
		times[1] = (spent[1].tv_sec - spent[0].tv_sec) * 1000000000LL +
			   spent[1].tv_nsec - spent[0].tv_nsec;
		must(write(ends[1], times, sizeof(times)) == sizeof(times), "write");
		_exit(0);
	}
	must(read(ends[0], times, sizeof(times)) == sizeof(times), "read");
	must(waitpid(pid, NULL, 0) == pid, "waitpid");
	snprintf(text, sizeof(text), "%d %lld %lld", pid, times[0], times[1]);
	return done(text);
}

static void compat(void)
{
#ifdef __x86_64__
	long ret = 0;

	for (long i = 0; i < count; i++) {
		/* 64 is getppid of a 32-bit program */
		asm volatile("int $0x80" : "=a"(ret) : "a"(64L) : "memory", "r8", "r9", "r10", "r11");
	}
	must(ret == getppid(), "32-bit calls");
#endif
}

/* `count` calls a round until a line comes; says how many there were in all. */
static volatile int stop;

static void *wait_for_line(void *unused)
{
	await();
	stop = 1;
	return unused;
}

static int until_told(void)
{
	pthread_t id;
	long long calls = 0;
	char text[40];

	must(!pthread_create(&id, NULL, wait_for_line, NULL), "thread");
	while (!stop) {
		for (long i = 0; i < count; i++)
			syscall(SYS_getppid);
		calls += count;
	}
	pthread_join(id, NULL);
	snprintf(text, sizeof(text), "%lld", calls);
	return done(text);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	count = argc > 2 ? atol(argv[2]) : 1;
	if (argc > 3)
		prctl(PR_SET_NAME, argv[3]);
	if (!strcmp(what, "errnos") || !strcmp(what, "refused"))
		refuse_getpgid();
	ready();
	if (!strcmp(what, "getppid"))
		for (long i = 0; i < count; i++)
			syscall(SYS_getppid);
	else if (!strcmp(what, "number"))	/* a call that nobody else makes */
		for (long i = 0; i < count; i++)
			syscall(500);
	else if (!strcmp(what, "turns"))	/* two calls that take turns */
		for (long i = 0; i < count; i++) {
			syscall(500);
			syscall(501);
		}
	else if (!strcmp(what, "close"))
		for (long i = 0; i < count; i++)
			close(-1);
	else if (!strcmp(what, "openat"))
		for (long i = 0; i < count; i++)
			open("/nonexistent/file", O_RDONLY);
	else if (!strcmp(what, "refused"))
		for (long i = 0; i < count; i++)
			syscall(SYS_getpgid, ENOENT);
	else if (!strcmp(what, "errnos"))
		errnos();
	else if (!strcmp(what, "threads"))
		threads();
	else if (!strcmp(what, "forks"))
		forks(501, 501, 10);
	else if (!strcmp(what, "crowd"))	/* 30 different calls, three times each */
		forks(480, 509, 3);
	else if (!strcmp(what, "compat"))
		compat();
	else if (!strcmp(what, "sleeps"))
		return sleeps();
	else if (!strcmp(what, "naps"))
		return naps();
	else if (!strcmp(what, "until"))
		return until_told();
	else
		must(0, "what?");
	return done("");
}
