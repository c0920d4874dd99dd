/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rates KIND RATE FILE: getppid at RATE a second (0: as fast as it goes) until told to end.
 *
 * KIND is "steady", "random" (it works for up to 400 ms, then rests for up to as long) or "second"
 * (it works for 100 ms of each second of the clock, always at the same place in it).
 *
 * FILE, which others map, begins with two 64-bit words: how many notes there are, and 1 (written
 * by whoever measures) to end. Notes follow, about one a millisecond: monotonic ns, and how many
 * calls were made until then.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NOTES (1 << 20)
#define STEP 1000000UL		/* ns between two notes */
#define SECOND 1000000000UL
#define LONGEST 400		/* ms of work, and of rest */
#define WORKS (SECOND / 10)

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * SECOND + t.tv_nsec;
}

static void rest(uint64_t ns)
{
	struct timespec t = { ns / SECOND, ns % SECOND };

	nanosleep(&t, NULL);
}

/* When the work that begins now ends; where there is none now, it rests before. */
static uint64_t work_until(char kind)
{
	uint64_t at;

	if (kind == 'r') {
		rest(rand() % LONGEST * STEP);
		return now() + (1 + rand() % LONGEST) * STEP;
	}
	if (kind == 's')
		return UINT64_MAX;
	at = now() % SECOND;
	if (at >= WORKS)
		rest(SECOND - at);
	return (now() / SECOND) * SECOND + WORKS;
}

int main(int argc, char **argv)
{
	uint64_t *words, calls = 0, made = 0, begun = 0, end = 0, looked = 0, at, rate, batch;
	size_t size = 8 * (2 + 2 * NOTES);
	char kind;
	int file;

	if (argc != 4)
		return 2;
	kind = strcmp(argv[1], "second") ? argv[1][0] : 'e';
	rate = strtoull(argv[2], NULL, 10);
	file = open(argv[3], O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (file < 0 || ftruncate(file, size))
		return 1;
	words = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (words == MAP_FAILED)
		return 1;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	srand(getpid());
	batch = rate ? 1 + rate / 10000 : 256;
	while (words[0] < NOTES && !((volatile uint64_t *)words)[1]) {
		at = now();
		if (at - looked >= STEP || at >= end) {
			looked = at;
			words[2 + 2 * words[0]] = at;
			words[3 + 2 * words[0]] = calls;
			__atomic_store_n(&words[0], words[0] + 1, __ATOMIC_RELEASE);
		}
		if (at >= end) {
			end = work_until(kind);
			begun = now();
			made = 0;
			continue;
		}
		if (rate && made >= (at - begun) / 1000 * rate / 1000000) {
			rest(STEP / 10);
			continue;
		}
		for (uint64_t i = 0; i < batch; i++)
			syscall(SYS_getppid);
		calls += batch;
		made += batch;
	}
	return 0;
}
