/* SPDX-License-Identifier: Apache-2.0 */
/*
 * left WHAT N [FILE]: calls of functions that are left by exceptions, long jumps and switches of
 * stacks; see main. Says "done" with how many calls returned and how many did not.
 *
 * FILE gets a line per call that returned: nanoseconds from the first to the last thing that the
 * call did, and from before to after it.
 */
#include "work.h"

#include <csetjmp>
#include <coroutine>
#include <stdexcept>
#include <thread>
#include <ucontext.h>
#include <vector>

#define TRACED extern "C" __attribute__((noinline, noclone))

struct span {
	long long inside, around;
};

static std::vector<span> spans;
static std::jmp_buf place;
static long returned, left;

static void spin(long long ns)
{
	long long end = now() + ns;

	while (now() < end)
		;
}

struct cleaned {
	long *count;
	~cleaned() { ++*count; }
};

/* One call in four is left by an exception. */
TRACED long long throws(long i)
{
	long long start = now();

	spin(5000);
	if (i % 4 == 0)
		throw std::runtime_error("left");
	return now() - start;
}

/* Has nothing to tidy up, so no handler: the exception passes. */
TRACED long long passes(long i)
{
	return throws(i) + 1;
}

/* Has something to tidy up, but does not catch. */
TRACED long long tidies(long i, long *count)
{
	cleaned here{count};

	return passes(i) + 1;
}

/* Catches: always returns. */
TRACED long catches(long i)
{
	try {
		return passes(i) > 0;
	} catch (const std::exception &) {
		return 0;
	}
}

/* An exception at the bottom of one call in four passes all levels. */
TRACED long long deep(long i, long levels)
{
	if (levels == 1)
		return throws(i) + 1;
	long long below = deep(i, levels - 1);

	asm volatile("" : "+r"(below));	/* else it becomes a loop */
	return below + 1;
}

TRACED void jumps(long i)
{
	spin(5000);
	if (i % 4 == 0)
		std::longjmp(place, 1);
	asm volatile("" ::: "memory");
}

/* setjmp returns twice, and the function that called it once. */
TRACED long lands(long i)
{
	if (setjmp(place))
		return 1;
	jumps(i);
	return 0;
}

/* A table of jumps, and a return in each case. */
TRACED long chooses(long i, long x)
{
	switch (i) {
	case 0: return x * 3;
	case 1: return x ^ 5;
	case 2: return x + 77;
	case 3: return x / 9;
	case 4: return x - 123;
	case 5: return x % 11;
	case 6: return ~x;
	case 7: return x << 2;
	case 8: return x >> 1 & 3;
	default: return x * x;
	}
}

/* Ends in a jump to another function, at least where the compiler optimizes. */
TRACED long forwards(long i)
{
	asm volatile("" ::: "memory");
	return chooses(i % 12, i);
}

struct generator {
	struct promise_type {
		long value = 0;
		generator get_return_object()
		{
			return {std::coroutine_handle<promise_type>::from_promise(*this)};
		}
		std::suspend_always initial_suspend() noexcept { return {}; }
		std::suspend_always final_suspend() noexcept { return {}; }
		std::suspend_always yield_value(long v) { value = v; return {}; }
		void return_void() {}
		void unhandled_exception() { throw; }
	};
	std::coroutine_handle<promise_type> handle;
};

/* Resumed once a value, and one time more to end; one in four throws out of the resumption. */
static generator counts(long n)
{
	for (long i = 0; i < n; i++) {
		spin(1000);
		co_yield i;
	}
	throw std::runtime_error("left");
}

TRACED long resumes(generator &one)
{
	one.handle.resume();
	return one.handle.promise().value;
}

static ucontext_t outside, contexts[2];
static bool finished[2];

/* Leaves its stack in the middle of each call, and goes on later. */
TRACED void switches(long which)
{
	swapcontext(&contexts[which], &outside);
	spin(1000);
}

static void context(int which, int n)
{
	for (int i = 0; i < n; i++)
		switches(which);
	finished[which] = true;
}

static void take_turns(long n)
{
	for (int which = 0; which < 2; which++) {
		getcontext(&contexts[which]);
		contexts[which].uc_stack.ss_sp = malloc(1 << 18);
		contexts[which].uc_stack.ss_size = 1 << 18;
		contexts[which].uc_link = &outside;
		makecontext(&contexts[which], (void (*)())context, 2, which, (int)n);
	}
	while (!finished[0] || !finished[1])
		for (int which = 0; which < 2; which++)
			if (!finished[which])
				swapcontext(&outside, &contexts[which]);
	returned = 2 * n;
}

template <class F> static void guarded(long n, F call)
{
	for (long i = 0; i < n; i++) {
		long long start = now(), inside;

		try {
			inside = call(i);
			spans.push_back({inside, now() - start});
			returned++;
		} catch (const std::exception &) {
			left++;
		}
	}
}

static void crowd(long n)
{
	std::vector<std::thread> threads;

	for (int t = 0; t < 8; t++)
		threads.emplace_back([n] {
			long ok = 0, bad = 0, count = 0;

			for (long i = 0; i < n; i++) {
				try {
					tidies(i, &count);
					ok++;
				} catch (const std::exception &) {
					bad++;
				}
			}
			must(count == n, "destructors");
			__sync_fetch_and_add(&returned, ok);
			__sync_fetch_and_add(&left, bad);
		});
	for (std::thread &thread : threads)
		thread.join();
}

static void long_jumps(long n)
{
	for (long i = 0; i < n; i++) {
		if (lands(i))
			left++;
		else
			returned++;
	}
}

static void coroutines(long n)
{
	generator one = counts(n);

	for (long i = 0; i < n; i++)
		returned += resumes(one) == i;
	try {
		resumes(one);
	} catch (const std::exception &) {
		left++;
	}
	one.handle.destroy();
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";
	long n = argc > 2 ? atol(argv[2]) : 0, count = 0;
	char said[64];

	must(n > 0, "left WHAT N [FILE]");
	spans.reserve(n);
	ready();
	if (!strcmp(what, "throws"))	/* throws, passes, tidies: N, of which a quarter is left */
		guarded(n, [&](long i) { return tidies(i, &count); });
	else if (!strcmp(what, "catches"))	/* catches: N */
		guarded(n, [](long i) { return (long long)catches(i); });
	else if (!strcmp(what, "deep"))	/* deep: 10 N */
		guarded(n, [](long i) { return deep(i, 10); });
	else if (!strcmp(what, "deeper"))	/* deep: 40 N */
		guarded(n, [](long i) { return deep(i, 40); });
	else if (!strcmp(what, "crowd"))	/* throws, passes, tidies: 8 N, in as many threads */
		crowd(n);
	else if (!strcmp(what, "jumps"))	/* lands: N; jumps: N, of which a quarter is left */
		long_jumps(n);
	else if (!strcmp(what, "forwards"))	/* forwards, chooses: N */
		guarded(n, [](long i) { return (long long)(forwards(i) & 0); });
	else if (!strcmp(what, "coroutines"))	/* resumes: N + 1; its coroutine: N + 2 */
		coroutines(n);
	else if (!strcmp(what, "contexts"))	/* switches: 2 N, on two stacks in turn */
		take_turns(n);
	else
		must(0, "what?");
	if (argc > 3) {
		FILE *file = fopen(argv[3], "w");

		must(file != nullptr, argv[3]);
		for (const span &one : spans)
			fprintf(file, "%lld %lld\n", one.inside, one.around);
		must(!fclose(file), argv[3]);
	}
	snprintf(said, sizeof(said), "%ld %ld", returned, left);
	return done(said);
}
