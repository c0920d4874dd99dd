/* SPDX-License-Identifier: Apache-2.0 */
/*
 * counted N [BURSTS]: N user-space instructions, in a loop of assembly that no compiler
 * changes, cut into BURSTS with a sleep between two of them. Says how many there were.
 *
 * What it does beside them is some thousand instructions, a few hundred a sleep.
 */
#include "work.h"

#define TURN 10		/* instructions of one turn of the loop */

static void spend(unsigned long turns)
{
#if defined(__x86_64__)
	asm volatile("1:	nop; nop; nop; nop; nop; nop; nop; nop\n"
		     "	dec %0\n"
		     "	jnz 1b\n"
		     : "+r"(turns) : : "cc");
#elif defined(__aarch64__)
	asm volatile("1:	nop; nop; nop; nop; nop; nop; nop; nop\n"
		     "	subs %0, %0, #1\n"
		     "	b.ne 1b\n"
		     : "+r"(turns) : : "cc");
#else
#error "which instructions does this machine have?"
#endif
}

int main(int argc, char **argv)
{
	long n = argc > 1 ? atol(argv[1]) : 0, bursts = argc > 2 ? atol(argv[2]) : 1;
	long turns = bursts > 0 ? n / bursts / TURN : 0;
	char text[40];

	must(turns > 0, "counted N [BURSTS]");
	ready();
	for (long i = 0; i < bursts; i++) {
		if (i)
			usleep(1000);
		spend(turns);
	}
	snprintf(text, sizeof(text), "%ld", turns * TURN * bursts);
	return done(text);
}
