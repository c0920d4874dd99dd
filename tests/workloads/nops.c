/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nops N: functions with 5-byte nops, in which some kernels make a call of a probe. N calls of
 * `begins` by this process and N by its child; N of `keeps`, which keeps a number below the stack
 * pointer meanwhile. Says what the child ended with, and how often the number was another one.
 */
#include "work.h"

#include <sys/wait.h>

#ifdef __x86_64__
__asm__(".globl begins\n.type begins,@function\n"
	"begins: .byte 0x0f,0x1f,0x44,0x00,0x00\n push %rbx\n pop %rbx\n ret\n.size begins, .-begins\n"
	".globl keeps\n.type keeps,@function\n"
	"keeps: movq $42, -8(%rsp)\n .byte 0x0f,0x1f,0x44,0x00,0x00\n movq -8(%rsp), %rax\n ret\n"
	".size keeps, .-keeps\n");
#else
__asm__(".globl begins\n.type begins,%function\nbegins: nop\n ret\n.size begins, .-begins\n"
	".globl keeps\n.type keeps,%function\nkeeps: mov x0, 42\n nop\n ret\n.size keeps, .-keeps\n");
#endif
void begins(void);
long keeps(void);

int main(int argc, char **argv)
{
	long n = argc > 1 ? atol(argv[1]) : 0, wrong = 0;
	char said[64];
	int status;
	pid_t child;

	must(n > 0, "nops N");
	ready();
	for (long i = 0; i < n; i++) {
		begins();
		wrong += keeps() != 42;
	}
	child = fork();
	if (!child) {
		for (long i = 0; i < n; i++)
			begins();
		_exit(0);
	}
	waitpid(child, &status, 0);
	snprintf(said, sizeof(said), "%d %ld", status, wrong);
	return done(said);
}
