/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usdt N: at each line, N times a static probe that is off until somebody listens. Says how
 * often it was on. As a library it has `fire`, which does the same.
 */
#define _SDT_HAS_SEMAPHORES 1
#include "work.h"

#include <sys/sdt.h>

unsigned short usdt_guarded_semaphore __attribute__((section(".probes"), used));

/* How often of `n` times it was on. */
long fire(long n)
{
	volatile unsigned short *on = &usdt_guarded_semaphore;
	long times = 0;

	for (long i = 0; i < n; i++)
		if (*on) {
			DTRACE_PROBE1(usdt, guarded, i);
			times++;
		}
	return times;
}

int main(int argc, char **argv)
{
	long n = argc > 1 ? atol(argv[1]) : 0;
	char text[40];

	must(n > 0, "usdt N");
	ready();
	while (!feof(stdin)) {
		snprintf(text, sizeof(text), "%ld", fire(n));
		done(text);
	}
	return 0;
}
