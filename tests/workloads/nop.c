/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nop N: N calls of five(), which begins with a nop of five bytes, as compilers leave it for
 * tracers, and is entered with -2 in the register that calls return their results in.
 */
#include "work.h"

#ifdef __x86_64__
__asm__(".globl five\n.type five, @function\n"
	"five: .byte 0x0f, 0x1f, 0x44, 0x00, 0x00\n ret\n.size five, . - five\n");
#endif

int main(int argc, char **argv)
{
	long n = argc > 1 ? atol(argv[1]) : 0;

	ready();
#ifdef __x86_64__
	for (long i = 0; i < n; i++)
		__asm__ volatile("mov $-2, %%rax\n call five"
				 : : : "rax", "rcx", "r11", "memory");
#endif
	return done("");
}
