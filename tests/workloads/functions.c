/* SPDX-License-Identifier: Apache-2.0 */
/*
 * functions WHAT N [FILE]: calls of functions that probes are attached to; see main.
 *
 * FILE gets a line per timed call, in order of their ends: nanoseconds from the first to
 * the last thing that the call did, how deep it was nested (0: outermost), and nanoseconds from
 * before to after it. What a probe measures is between the first and the last of these.
 */
#include "work.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#define TRACED __attribute__((noinline, noclone))
#define BIG (24 << 10)

struct span {
	long long ns;
	long depth;
	long long around;
};

/* A call that is recorded, and the time from before to after it. */
#define TIMED(call) do { \
	long long before = now(); \
	call; \
	spans[recorded - 1].around = now() - before; \
} while (0)

static long count, threads_inside;
static struct span *spans;
static volatile long recorded;
static jmp_buf place;
static pthread_barrier_t all_inside;

static void spin(long long ns)
{
	long long end = now() + ns;

	while (now() < end)
		;
}

static void record(long long ns, long depth)
{
	spans[recorded++] = (struct span){ns, depth, 0};
}

/* 20 to 320 us, every power of two as often, the same in every run. */
static long long duration(void)
{
	static unsigned long long state = 7;

	state = state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (20000LL << (state >> 62)) * (1024 + (long long)(state >> 41 & 1023)) / 1024;
}

TRACED void empty(void)
{
	asm volatile("" ::: "memory");
}

/* Two targets, one within the other. */
TRACED void inner(long long ns)
{
	long long start = now();

	spin(ns);
	record(now() - start, 1);
}

TRACED void outer(long long ns)
{
	long long start = now();

	TIMED(inner(ns));
	spin(ns / 2);
	TIMED(inner(2 * ns));
	record(now() - start, 0);
}

TRACED void recursion(long depth, long levels)
{
	long long start = now();

	spin(depth % 7 * 10000);
	if (depth + 1 < levels)
		TIMED(recursion(depth + 1, levels));
	spin(60000);
	record(now() - start, depth);
}

/* The outermost call is where the jump lands: it returns, the four within do not. */
TRACED void landing(long depth)
{
	long long start = now();

	if (depth) {
		if (depth == 4)
			longjmp(place, 1);
		landing(depth + 1);
	} else {
		if (!setjmp(place))
			landing(1);
		spin(200000);
		record(now() - start, 0);
	}
	asm volatile("" ::: "memory");
}

/* Calls that return, and one that jumps out of four frames between each two of them. */
TRACED void jumps(long depth, size_t size, long long ns)
{
	long long start = now();

	if (depth < 0) {
		spin(ns);
		record(now() - start, 0);
		return;
	}
	volatile char space[size];

	space[0] = space[size - 1] = 1;
	if (!depth)
		longjmp(place, 1);
	jumps(depth - 1, size, ns);
	asm volatile("" ::"r"(space[0]) : "memory");
}

static void jump(size_t size)
{
	undisturbed();
	for (volatile long i = 0; i < count; i++) {
		if (!setjmp(place))
			jumps(3, size, 0);
		TIMED(jumps(-1, 0, duration()));
	}
}

TRACED void dies_inside(long die)
{
	if (die)
		pthread_exit(NULL);
	spin(30000);
	asm volatile("" ::: "memory");
}

static void *on_dying_thread(void *unused)
{
	dies_inside(0);
	dies_inside(1);
	return unused;
}

static void dying(void)
{
	for (long i = 0; i < count; i++) {
		pthread_t id;

		must(!pthread_create(&id, NULL, on_dying_thread, NULL), "thread");
		pthread_join(id, NULL);
	}
}

TRACED void shared(void)
{
	asm volatile("" ::: "memory");
}

/* Returns what an errno looks like. */
TRACED long minus_one(void)
{
	asm volatile("" ::: "memory");
	return -1;
}

static void *on_thread(void *index)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((long)index % sysconf(_SC_NPROCESSORS_ONLN), &set);
	sched_setaffinity(0, sizeof(set), &set);
	for (long i = 0; i < count; i++)
		shared();
	return NULL;
}

static void threads(void)
{
	pthread_t ids[8];

	for (long i = 0; i < 8; i++)
		must(!pthread_create(&ids[i], NULL, on_thread, (void *)i), "thread");
	for (long i = 0; i < 8; i++)
		pthread_join(ids[i], NULL);
}

/* All `count` threads are inside at the same time, then all return. */
TRACED void crowd_call(void)
{
	pthread_barrier_wait(&all_inside);
	asm volatile("" ::: "memory");
}

static void *in_crowd(void *unused)
{
	crowd_call();
	return unused;
}

static long long crowd(void)
{
	pthread_t *ids = calloc(count, sizeof(*ids));
	pthread_attr_t attr;
	long long start = now();

	must(!pthread_attr_init(&attr) && !pthread_attr_setstacksize(&attr, 32 << 10), "attr");
	must(!pthread_barrier_init(&all_inside, NULL, count), "barrier");
	for (long i = 0; i < count; i++)
		must(!pthread_create(&ids[i], &attr, in_crowd, NULL), "thread");
	for (long i = 0; i < count; i++)
		pthread_join(ids[i], NULL);
	free(ids);
	return now() - start;
}

/* `count` threads are inside before anybody looks; after the line they return. */
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

TRACED void waits_inside(int wait)
{
	if (wait) {
		__atomic_add_fetch(&threads_inside, 1, __ATOMIC_SEQ_CST);
		pthread_mutex_lock(&gate);
		pthread_mutex_unlock(&gate);
	}
	asm volatile("" ::: "memory");
}

static void *is_inside(void *unused)
{
	waits_inside(1);
	waits_inside(0);
	return unused;
}

static void under_way(void)
{
	pthread_t ids[64];

	must(count <= 64, "threads");
	pthread_mutex_lock(&gate);
	for (long i = 0; i < count; i++)
		must(!pthread_create(&ids[i], NULL, is_inside, NULL), "thread");
	while (__atomic_load_n(&threads_inside, __ATOMIC_SEQ_CST) < count)
		usleep(1000);
	ready();
	pthread_mutex_unlock(&gate);
	for (long i = 0; i < count; i++)
		pthread_join(ids[i], NULL);
}

/* A child is born inside, and returns as well as its parent. */
TRACED pid_t forks_inside(void)
{
	pid_t pid = fork();

	asm volatile("" ::: "memory");
	return pid;
}

static void forking(void)
{
	for (long i = 0; i < count; i++) {
		pid_t pid = forks_inside();

		must(pid >= 0, "fork");
		if (!pid)
			_exit(0);
		must(waitpid(pid, NULL, 0) == pid, "waitpid");
	}
}

TRACED void work_one(void) { asm volatile("" ::: "memory"); }
TRACED void work_two(void) { asm volatile("nop" ::: "memory"); }
TRACED void work_three(void) { asm volatile("nop; nop" ::: "memory"); }
TRACED void work_four(void) { asm volatile("nop; nop; nop" ::: "memory"); }
TRACED void work_five(void) { asm volatile("nop; nop; nop; nop" ::: "memory"); }

static void works(void)
{
	void (*const all[])(void) = {work_one, work_two, work_three, work_four, work_five};

	for (long i = 0; i < count; i++)
		for (int which = 0; which < 5; which++)
			for (int k = 0; k <= which; k++)
				all[which]();
}

/* The second is entered by a jump, so that both have one return address. */
TRACED void tail_second(void)
{
	spin(20000);
	asm volatile("" ::: "memory");
}

TRACED void tail_first(void)
{
	spin(20000);
	tail_second();
}

/* `count` calls a round until a line comes; says how many there were in all. */
static volatile int stop;

TRACED void steady(void)
{
	asm volatile("" ::: "memory");
}

static void *wait_for_line(void *unused)
{
	await();
	stop = 1;
	return unused;
}

static int until_told(void)
{
	long long calls = 0;
	char text[40];
	pthread_t id;

	must(!pthread_create(&id, NULL, wait_for_line, NULL), "thread");
	while (!stop) {
		for (long i = 0; i < count; i++)
			steady();
		calls += count;
		usleep(1000);
	}
	pthread_join(id, NULL);
	snprintf(text, sizeof(text), "%lld", calls);
	return done(text);
}

static void save(const char *path)
{
	FILE *file = fopen(path, "w");

	must(file != NULL, path);
	for (long i = 0; i < recorded; i++)
		fprintf(file, "%lld %ld %lld\n", spans[i].ns, spans[i].depth,
			spans[i].around);
	must(!fclose(file), path);
}

static int is(const char *what, const char *name)
{
	return !strcmp(what, name);
}

static void calls(const char *what)
{
	undisturbed();
	for (long i = 0; i < count; i++)
		if (is(what, "empty"))
			empty();
		else if (is(what, "shared"))
			shared();
		else if (is(what, "minus_one"))
			minus_one();
		else if (is(what, "nested"))	/* outer, and inner twice */
			TIMED(outer(duration()));
		else if (is(what, "landing"))	/* landing returns once and is left four times */
			TIMED(landing(0));
		else if (is(what, "tail"))
			tail_first();
		else	/* recursionD: D deep */
			TIMED(recursion(0, atol(what + strlen("recursion"))));
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";
	char text[40] = "";

	must(argc > 2, "functions WHAT N [FILE]");
	count = atol(argv[2]);
	spans = calloc(100 * count + 100, sizeof(*spans));
	if (argc > 4)
		prctl(PR_SET_NAME, argv[4]);
	if (!is(what, "under_way"))
		ready();
	if (is(what, "until"))
		return until_told();
	if (is(what, "under_way"))	/* waits_inside */
		under_way();
	else if (is(what, "jumps"))	/* jumps: returns once, is left four times */
		jump(16);
	else if (is(what, "big_jumps"))	/* the same with frames that are large */
		jump(BIG);
	else if (is(what, "dying"))	/* dies_inside: returns once, is left once */
		dying();
	else if (is(what, "threads"))	/* shared, 8 N times */
		threads();
	else if (is(what, "crowd"))	/* crowd_call; says how long it took in all */
		snprintf(text, sizeof(text), "%lld", crowd());
	else if (is(what, "forking"))	/* forks_inside: returns once here and once in a child */
		forking();
	else if (is(what, "works"))	/* work_*, 15 N times */
		works();
	else
		calls(what);
	if (argc > 3 && argv[3][0])
		save(argv[3]);
	return done(text);
}
