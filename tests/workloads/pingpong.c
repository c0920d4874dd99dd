/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pingpong CPU RATE FILE: two processes on one CPU pass a byte back and forth, RATE round trips a
 * second (0: as fast as it goes), until told to end.
 *
 * About each millisecond the first one notes in FILE, which others map, how often it has been
 * switched away from so far, as the kernel tells it, and when: first how many such notes there
 * are, then pairs of monotonic ns and switches.
 */
#include "work.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>

#define NOTES (1 << 20)
#define STEP 1000000UL	/* ns */

static int told_to_end(void)
{
	struct pollfd in = {.fd = 0, .events = POLLIN};

	return poll(&in, 1, 0) != 0;
}

static void answer(int there, int back)
{
	char byte;

	while (read(there, &byte, 1) == 1)
		if (write(back, &byte, 1) != 1)
			break;
	_exit(0);
}

static uint64_t switches(void)
{
	struct rusage used;

	must(!getrusage(RUSAGE_SELF, &used), "getrusage");
	return used.ru_nvcsw + used.ru_nivcsw;
}

int main(int argc, char **argv)
{
	uint64_t *notes, trips = 0, begun, at, rate, looked = 0;
	struct timespec half = {0, STEP / 2};
	int fd, there[2], back[2];
	cpu_set_t cpus;
	char byte = 0;

	must(argc == 4, "pingpong CPU RATE FILE");
	CPU_ZERO(&cpus);
	CPU_SET(atoi(argv[1]), &cpus);
	must(!sched_setaffinity(0, sizeof(cpus), &cpus), "affinity");
	rate = strtoull(argv[2], NULL, 10);
	fd = open(argv[3], O_RDWR | O_CREAT | O_TRUNC, 0600);
	must(fd >= 0 && !ftruncate(fd, (1 + 2 * NOTES) * 8), "file");
	notes = mmap(NULL, (1 + 2 * NOTES) * 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(notes != MAP_FAILED && !pipe(there) && !pipe(back), "memory and pipes");
	if (!fork()) {
		close(there[1]);
		answer(there[0], back[1]);
	}
	ready();
	begun = now();
	for (at = begun; notes[0] < NOTES; at = now()) {
		if (at - looked >= STEP) {
			looked = at;
			notes[1 + 2 * notes[0]] = at;
			notes[2 + 2 * notes[0]] = switches();
			__atomic_store_n(&notes[0], notes[0] + 1, __ATOMIC_RELEASE);
			if (!(notes[0] & 63) && told_to_end())
				break;
		}
		if (rate && trips >= (at - begun) / 1000 * rate / 1000000) {
			nanosleep(&half, NULL);
			continue;
		}
		for (int i = 0; i < 8; i++, trips++)
			must(write(there[1], &byte, 1) == 1 && read(back[0], &byte, 1) == 1, "trip");
	}
	await();
	return done("0");
}
