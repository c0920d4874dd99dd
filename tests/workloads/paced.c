/* SPDX-License-Identifier: Apache-2.0 */
/*
 * paced RATE BURST FILE: getppid at RATE a second (0: as fast as it goes) until told to end.
 *
 * With BURST 1 it works for a time between 0 and 400 ms, then rests as long as another one takes.
 * About each millisecond it notes in FILE, which others map, how many calls it has made and when:
 * first how many such notes there are, then pairs of monotonic ns and calls.
 */
#include "work.h"

#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#define NOTES (1 << 20)
#define STEP 1000000UL	/* ns */

static void rest(uint64_t ns)
{
	struct timespec t = {ns / 1000000000, ns % 1000000000};

	nanosleep(&t, NULL);
}

/* What is traced where functions are. */
__attribute__((noinline)) void paced_call(void)
{
	syscall(SYS_getppid);
}

static int told_to_end(void)
{
	struct pollfd in = {.fd = 0, .events = POLLIN};

	return poll(&in, 1, 0) != 0;
}

int main(int argc, char **argv)
{
	uint64_t *notes, calls = 0, begun, at, rate, turn = 0, looked = 0, batch;
	int fd, bursty;

	must(argc == 4, "paced RATE BURST FILE");
	rate = strtoull(argv[1], NULL, 10);
	bursty = atoi(argv[2]);
	fd = open(argv[3], O_RDWR | O_CREAT | O_TRUNC, 0600);
	must(fd >= 0 && !ftruncate(fd, (1 + 2 * NOTES) * 8), "file");
	notes = mmap(NULL, (1 + 2 * NOTES) * 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(notes != MAP_FAILED, "mmap");
	srand(getpid());
	ready();
	begun = now();
	batch = rate ? 1 + rate / 1000 : 256;
	for (at = begun; notes[0] < NOTES; at = now()) {
		if (bursty && at >= turn) {
			rest(rand() % 400 * 1000000ULL);
			turn = now() + rand() % 400 * 1000000ULL;
			continue;
		}
		if (at - looked >= STEP) {
			looked = at;
			notes[1 + 2 * notes[0]] = at;
			notes[2 + 2 * notes[0]] = calls;
			__atomic_store_n(&notes[0], notes[0] + 1, __ATOMIC_RELEASE);
			if (!(notes[0] & 63) && told_to_end())
				break;
		}
		if (rate && calls >= (at - begun) / 1000 * rate / 1000000) {
			rest(STEP / 2);
			continue;
		}
		for (uint64_t i = 0; i < batch; i++)
			paced_call();
		calls += batch;
	}
	await();
	return done("0");
}
