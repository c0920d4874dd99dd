/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pingpong CPU RATE FILE: two processes on one CPU pass a byte back and forth, RATE round trips a
 * second (0: as fast as it goes), until told to end.
 *
 * The first one notes in FILE how often it has been switched away from so far, as the kernel
 * tells it.
 */
#include "notes.h"

#include <sched.h>
#include <stdlib.h>
#include <sys/resource.h>

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
	uint64_t trips = 0, begun, at, rate;
	struct timespec half = {0, STEP / 2};
	int there[2], back[2];
	cpu_set_t cpus;
	char byte = 0;

	must(argc == 4, "pingpong CPU RATE FILE");
	CPU_ZERO(&cpus);
	CPU_SET(atoi(argv[1]), &cpus);
	must(!sched_setaffinity(0, sizeof(cpus), &cpus), "affinity");
	rate = strtoull(argv[2], NULL, 10);
	open_notes(argv[3]);
	must(!pipe(there) && !pipe(back), "pipes");
	if (!fork()) {
		close(there[1]);
		answer(there[0], back[1]);
	}
	ready();
	begun = now();
	for (at = begun;; at = now()) {
		if (is_due(at) && note(at, switches()))
			break;
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
