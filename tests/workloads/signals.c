/* SPDX-License-Identifier: Apache-2.0 */
/*
 * signals HOW CALL N: N calls that signals interrupt, and what became of them; see main.
 *
 * It says how many calls it made, how many of them failed with EINTR and how many with another
 * errno, and the nanoseconds from before to after the calls, summed up by its own clock.
 */
#include "work.h"

#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>

#define EVERY 2000		/* us between two signals */
#define UNTIL 3			/* signals that a call sees until it gets what it waits for */

static int pair[2], other[2], word;
static volatile int signals, nested, leave;
static volatile long made, interrupted, failed;
static volatile long long spent;
static sigjmp_buf place;
static timer_t timer;

static void count(long long start, long result)
{
	spent += now() - start;
	made++;
	if (result < 0 && errno == EINTR)
		interrupted++;
	else if (result < 0)
		failed++;
}

/* It makes the same call as the code that it interrupts, which returns at once here. */
static void receive_another(void)
{
	long long start;
	char c;

	must(send(other[1], "x", 1, 0) == 1, "send");
	start = now();
	count(start, syscall(SYS_recvfrom, other[0], &c, 1, 0, NULL, NULL));
}

/* The same, but it blocks until another signal's handler sends what it waits for. */
static void wait_for_another(void)
{
	struct itimerspec soon = {{0, 0}, {0, EVERY * 100}};	/* sooner than the next signal */
	long long start = now();
	char c;

	must(!timer_settime(timer, 0, &soon, NULL), "timer_settime");
	count(start, syscall(SYS_recvfrom, other[0], &c, 1, 0, NULL, NULL));
}

static void on_inner(int number)
{
	(void)number;
	must(send(other[1], "x", 1, 0) == 1, "send");
}

static void on_signal(int number)
{
	int error = errno;

	(void)number;
	if (nested == 1)
		receive_another();
	else if (nested == 2)
		wait_for_another();
	signals++;
	if (signals % UNTIL == 0) {
		must(send(pair[1], "x", 1, 0) == 1, "send");
		__atomic_add_fetch(&word, 1, __ATOMIC_SEQ_CST);
	}
	if (leave)
		siglongjmp(place, 1);
	errno = error;
}

static long receive(void)
{
	char c;

	return syscall(SYS_recvfrom, pair[0], &c, 1, 0, NULL, NULL);
}

static long wait_for(const char *call)
{
	struct timespec span = {0, 300000000};
	struct pollfd nothing = {other[0], POLLIN, 0};

	if (!strcmp(call, "recvfrom"))
		return receive();
	if (!strcmp(call, "clock_nanosleep"))
		return syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &span, NULL);
	if (!strcmp(call, "futex"))
		return syscall(SYS_futex, &word, FUTEX_WAIT, word, NULL, NULL, 0);
	if (!strcmp(call, "futex-timeout"))
		return syscall(SYS_futex, &word, FUTEX_WAIT, word, &span, NULL, 0);
#ifdef SYS_poll
	if (!strcmp(call, "poll"))
		return syscall(SYS_poll, &nothing, 1, 300);
#endif
	must(!strcmp(call, "ppoll"), "which call?");
	return syscall(SYS_ppoll, &nothing, 1, &span, NULL, 0);
}

static void handle(int flags)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = flags};

	must(!sigaction(SIGALRM, &action, NULL), "sigaction");
}

static void ring(long us)
{
	struct itimerval every = {{0, us}, {0, us}};

	must(!setitimer(ITIMER_REAL, &every, NULL), "setitimer");
}

static void calls(const char *call, long n)
{
	for (long i = 0; i < n; i++) {
		long long start = now();

		count(start, wait_for(call));
	}
}

/* Signals between instructions that leave in a register what looks like an errno. */
static void compute(long n)
{
	ring(EVERY);
	while (signals < n) {
#ifdef __x86_64__
		asm volatile("mov $-2, %%rax\n mov $200000, %%rcx\n1: dec %%rcx\n jnz 1b"
			     : : : "rax", "rcx");
#elif defined(__aarch64__)
		asm volatile("mov x0, #-2\n mov x1, #200000\n1: subs x1, x1, #1\n b.ne 1b"
			     : : : "x0", "x1", "cc");
#endif
	}
	ring(0);
}

/* Handlers that never return to the calls that they interrupted, each followed by a short one. */
static void jump(long n)
{
	leave = 1;
	for (volatile long i = 0; i < n; i++) {
		long long start;

		if (!sigsetjmp(place, 1)) {
			ring(EVERY);
			wait_for("ppoll");
			must(0, "it was not interrupted");
		}
		ring(0);
		while (recv(pair[0], (char[1]){0}, 1, MSG_DONTWAIT) == 1)
			;
		usleep(20000);
		start = now();
		must(syscall(SYS_recvfrom, (send(pair[1], "x", 1, 0), pair[0]), (char[1]){0}, 1, 0,
			     NULL, NULL) == 1, "recvfrom");
		count(start, 0);
	}
}

/* From now on seccomp answers getpgid by `action`. */
static void refuse_getpgid(unsigned int action)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpgid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(filter) / sizeof(*filter), filter};

	must(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
	must(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), "seccomp");
}

static void on_trap(int number)
{
	(void)number;
	signals++;
}

static void trapped(long n)
{
	signal(SIGSYS, on_trap);
	refuse_getpgid(SECCOMP_RET_TRAP);
	for (long i = 0; i < n; i++) {
		syscall(SYS_getpgid, 0);
		made++;
	}
	must(signals == n, "as many signals as calls");
	failed = n;
}

static void killed(long n)
{
	for (long i = 0; i < n; i++) {
		int status;
		pid_t pid = fork();

		must(pid >= 0, "fork");
		if (!pid) {
			refuse_getpgid(SECCOMP_RET_KILL_PROCESS);
			syscall(SYS_getpgid, 0);
			_exit(0);
		}
		must(waitpid(pid, &status, 0) == pid, "waitpid");
		must(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "killed by SIGSYS");
		made++;
		failed++;
	}
}

int main(int argc, char **argv)
{
	const char *how = argc > 3 ? argv[1] : "", *call = argc > 3 ? argv[2] : "";
	long n = argc > 3 ? atol(argv[3]) : 0;
	char text[100];

	must(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
	must(!socketpair(AF_UNIX, SOCK_STREAM, 0, other), "socketpair");
	ready();
	undisturbed();
	if (!strcmp(how, "compute")) {		/* no call is interrupted */
		handle(SA_RESTART);
		compute(n);
	} else if (!strcmp(how, "interrupt")) {	/* handlers without SA_RESTART */
		handle(0);
		ring(EVERY);
		calls(call, n);
		ring(0);
	} else if (!strcmp(how, "restart")) {	/* handlers with SA_RESTART */
		handle(SA_RESTART);
		ring(EVERY);
		calls(call, n);
		ring(0);
	} else if (!strcmp(how, "nested")) {	/* as restart, and the handler makes calls too */
		nested = 1;
		handle(SA_RESTART);
		ring(EVERY);
		calls(call, n);
		ring(0);
	} else if (!strcmp(how, "deeper")) {	/* as nested, and those calls are interrupted too */
		struct sigaction inner = {.sa_handler = on_inner, .sa_flags = SA_RESTART};
		struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};

		must(!sigaction(SIGUSR1, &inner, NULL), "sigaction");
		must(!timer_create(CLOCK_MONOTONIC, &event, &timer), "timer_create");
		nested = 2;
		handle(SA_RESTART);
		ring(EVERY);
		calls(call, n);
		ring(0);
	} else if (!strcmp(how, "stop")) {	/* somebody else stops and continues it meanwhile */
		calls(call, n);
	} else if (!strcmp(how, "jump")) {	/* handlers that jump out of the call */
		handle(SA_RESTART);
		jump(n);
	} else if (!strcmp(how, "trap")) {
		trapped(n);
	} else if (!strcmp(how, "kill")) {
		killed(n);
	} else {
		must(0, "how?");
	}
	snprintf(text, sizeof(text), "%ld %ld %ld %lld", made, interrupted, failed, spent);
	return done(text);
}
