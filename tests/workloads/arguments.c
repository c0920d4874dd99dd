/* SPDX-License-Identifier: Apache-2.0 */
/*
 * arguments WHAT N [FILE]: static probes whose arguments, nesting and durations are known.
 *
 * values: N times the probe `values`, with arguments that count from 0 to N - 1 in every
 *   kind of place (see value()).
 * texts: N times `texts`, with the text "name-K" for K = the number modulo 7, one that is
 *   longer than what is kept, and one that is empty.
 * nested: N calls of 5 levels, 200 us and the deeper ones each, that time themselves, `nest_begin` and `nest_end` with the
 *   level's name.
 * joined: N pairs of `join_begin` and `join_end`, two at a time: the second of each two ends
 *   first, and only the id tells them apart.
 * deep: N recursions of 40 levels.
 * unended: N times `nest_begin` twice and `nest_end` once.
 * FILE gets a line per duration: nanoseconds, and the level or id.
 */
#include "work.h"

#include <sys/sdt.h>
#include <time.h>

static FILE *record;
static volatile int global;

static void spin(long long ns)
{
	long long end = now() + ns;

	while (now() < end)
		;
}

/*
 * Not inlined, so that each has its place: registers of every size, the stack, memory behind
 * a pointer, an element of an array, a variable of the file, a constant, a negative number.
 */
__attribute__((noinline)) static void value(long i, const int *array)
{
	volatile long on_stack = 1000 + i;
	unsigned char byte = i;
	unsigned short word = i;
	int negative = -(int)i - 1;

	global = i + 5;
	STAP_PROBE10(arguments, values, i, on_stack, byte, word, negative, array[i], global, 42,
		     (unsigned int)i + 4000000000u, &array[i]);
}

static void values(long n)
{
	int *array = calloc(n, sizeof(*array));

	must(array != NULL, "calloc");
	for (long i = 0; i < n; i++)
		array[i] = 7 * i;
	for (long i = 0; i < n; i++)
		value(i, array);
}

static void texts(long n)
{
	char text[32];

	for (long i = 0; i < n; i++) {
		snprintf(text, sizeof(text), "name-%ld", i % 7);
		STAP_PROBE2(arguments, texts, i, text);
	}
	STAP_PROBE2(arguments, texts, 0, "a text that is longer than what the "
		    "kernel side of it keeps, which is a name's and an extra's bytes and those of some words");
	STAP_PROBE2(arguments, texts, 0, "");
	STAP_PROBE2(arguments, texts, 0, (char *)8);
}

static void nested(int level)
{
	char name[24];
	long long start, end;

	snprintf(name, sizeof(name), "level-%d", level);
	STAP_PROBE2(arguments, nest_begin, level, name);
	start = now();
	spin(200000);
	if (level > 1)
		nested(level - 1);
	end = now();
	STAP_PROBE2(arguments, nest_end, level, name);
	fprintf(record, "%lld %d\n", end - start, level);
}

static void joined(long n)
{
	for (long i = 0; i < n; i += 2) {
		long long starts[2], ends[2];

		STAP_PROBE2(arguments, join_begin, i, "even");
		starts[0] = now();
		spin(200000);
		STAP_PROBE2(arguments, join_begin, i + 1, "odd");
		starts[1] = now();
		spin(300000);
		ends[1] = now();
		STAP_PROBE2(arguments, join_end, i + 1, "odd");
		spin(600000);
		ends[0] = now();
		STAP_PROBE2(arguments, join_end, i, "even");
		for (int at = 0; at < 2; at++)
			fprintf(record, "%lld %d\n", ends[at] - starts[at], at);
	}
}

static void unended(long n)
{
	for (long i = 0; i < n; i++) {
		long long start;

		STAP_PROBE2(arguments, nest_begin, 1, "never");
		STAP_PROBE2(arguments, nest_begin, 2, "once");
		start = now();
		spin(200000);
		fprintf(record, "%lld 0\n", now() - start);
		STAP_PROBE2(arguments, nest_end, 2, "once");
	}
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";
	long n = argc > 2 ? atol(argv[2]) : 0;

	must(n > 0, "arguments WHAT N [FILE]");
	record = fopen(argc > 3 ? argv[3] : "/dev/null", "w");
	must(record != NULL, "FILE");
	ready();
	undisturbed();
	if (!strcmp(what, "values"))
		values(n);
	else if (!strcmp(what, "texts"))
		texts(n);
	else if (!strcmp(what, "nested"))
		for (long i = 0; i < n; i++)
			nested(5);
	else if (!strcmp(what, "deep"))
		for (long i = 0; i < n; i++)
			nested(40);
	else if (!strcmp(what, "joined"))
		joined(n);
	else if (!strcmp(what, "unended"))
		unended(n);
	else
		must(0, "what?");
	must(!fclose(record), "FILE");
	return done("");
}
