/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the workloads share: each says "ready PID", waits for a line, works, says "done"
 * with its own numbers behind, and waits for the end of its input before it exits. What a
 * test counts thus happens between two moments that the test knows.
 */
#pragma once

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static inline void await(void)
{
	int c;

	do
		c = getchar();
	while (c != '\n' && c != EOF);
}

static inline void ready(void)
{
	/* Whoever tests may be killed, and must not leave a load behind. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setvbuf(stdout, NULL, _IOLBF, 1 << 16);
	printf("ready %d\n", getpid());
	await();
}

static inline int done(const char *what)
{
	printf("done %s\n", what);
	await();
	return 0;
}

static inline void must(int ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	exit(1);
}

/* Nanoseconds on the clock that BPF programs read. */
static inline long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/*
 * As root, before all others: whoever takes the CPU between a probe's clock and ours would
 * be in only one of them.
 */
static inline void undisturbed(void)
{
	struct sched_param param = {.sched_priority = 1};

	sched_setscheduler(0, SCHED_FIFO, &param);
}
