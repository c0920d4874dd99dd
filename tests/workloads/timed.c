/* SPDX-License-Identifier: Apache-2.0 */
/*
 * timed WHAT N FILE: N calls of 20 us to 2 ms that this program times itself; see main.
 *
 * FILE gets a line per call, in order of their ends: nanoseconds from the first to the last
 * thing that the call did, and from before to after it. What a probe measures is between.
 */
#include "work.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#if __has_include(<sys/sdt.h>)
#include <sys/sdt.h>
#else
#define DTRACE_PROBE1(provider, name, argument)
#endif

#define SHORTEST 20000LL
#define LONGEST 2000000LL
#define DEPTH 5

struct span {
	long long inside, around;
};

static struct span *spans;
static long recorded;

static void begin(void)
{
	ready();
	undisturbed();
}

static void wait_until(long long end)
{
	while (now() < end)
		;
}

/* Every power of two has as many; the same numbers in every run. */
static long long duration(void)
{
	static unsigned long long state = 1;
	long long ns;

	do {
		state = state * 6364136223846793005ULL + 1442695040888963407ULL;
		ns = SHORTEST << (state >> 61);
		ns += ns * (long long)(state >> 41 & 1023) / 1024;
	} while (ns > LONGEST);
	return ns;
}

/* What the probes are attached to, so not inlined; the USDT probes are just around its own clock. */
__attribute__((noinline)) long long timed_call(long long ns)
{
	long long start, end;

	DTRACE_PROBE1(timed, start, ns);
	start = now();
	wait_until(start + ns);
	end = now();
	DTRACE_PROBE1(timed, end, ns);
	return end - start;
}

static void calls(long n)
{
	for (long i = 0; i < n; i++) {
		long long ns = duration(), start = now();
		long long inside = timed_call(ns);

		spans[recorded++] = (struct span){inside, now() - start};
	}
}

/* Calls itself; each level's time holds that of the deeper ones, to 10 ms at the top. */
__attribute__((noinline)) long long nested_call(int depth, long long ns)
{
	long long start = now();

	wait_until(start + ns);
	if (depth > 1) {
		long long begin = now(), inside = nested_call(depth - 1, ns);

		spans[recorded++] = (struct span){inside, now() - begin};
	}
	wait_until(now() + ns);
	return now() - start;
}

static void nested(long n)
{
	for (long i = 0; i < n; i += DEPTH) {
		long long ns = duration() / 2, start = now();
		long long inside = nested_call(DEPTH, ns);

		spans[recorded++] = (struct span){inside, now() - start};
	}
}

/*
 * The kernel works as long as the length says. One call in 20 reads a single byte: what the
 * shortest of these took is what is around every read, and the rest of it is the inside.
 */
static void reads(long n)
{
	const size_t most = 64 << 20, trial = 4 << 20;
	char *buffer = malloc(most);
	int fd = open("/dev/zero", O_RDONLY);
	long long start, speed = 0, took, empty = LONGEST;

	must(buffer && fd >= 0, "/dev/zero");
	memset(buffer, 1, most);
	for (int i = 0; i < 2; i++) {	/* the first is slow in an emulated machine */
		start = now();
		must(pread(fd, buffer, trial, 0) == (ssize_t)trial, "read");
		speed = (long long)trial * 1024 / (now() - start);
	}
	begin();
	/* The waiting for input above is a read as well, so a process that only does these. */
	if (fork()) {
		wait(NULL);
		exit(done(""));
	}
	prctl(PR_SET_NAME, "reader");
	for (long i = 0; i < n; i++) {
		size_t size = duration() * speed / 1024;

		size = i % 20 == 0 ? 1 : size < most ? size : most;
		start = now();
		must(pread(fd, buffer, size, 0) == (ssize_t)size, "read");
		took = now() - start;
		spans[recorded++] = (struct span){took, took};
		if (size == 1 && took < empty)
			empty = took;
	}
	for (long i = 0; i < n; i++)
		spans[i].inside -= empty;
}

static void save(const char *path)
{
	FILE *file = fopen(path, "w");

	must(file != NULL, path);
	for (long i = 0; i < recorded; i++)
		fprintf(file, "%lld %lld\n", spans[i].inside, spans[i].around);
	must(!fclose(file), path);
}

int main(int argc, char **argv)
{
	const char *what = argc > 3 ? argv[1] : "";
	long n = argc > 3 ? atol(argv[2]) : 0;

	must(n > 0 && n % DEPTH == 0, "timed WHAT N FILE");
	spans = calloc(n, sizeof(*spans));
	if (!strcmp(what, "reads")) {	/* vfs_read, by a child with the name "reader" */
		reads(n);
		save(argv[3]);
		return 0;
	}
	begin();
	if (!strcmp(what, "calls"))	/* timed_call */
		calls(n);
	else if (!strcmp(what, "nested"))	/* nested_call, N / 5 times 5 levels deep */
		nested(n);
	else
		must(0, "what?");
	save(argv[3]);
	return done("");
}
