/* SPDX-License-Identifier: Apache-2.0 */
/*
 * failing RATE FILE: RATE times a second (0: as fast as it goes) executes a program that is not
 * there, until told to end. It notes in FILE how often it has failed so far.
 */
#include "notes.h"

#include <stdlib.h>

int main(int argc, char **argv)
{
	uint64_t failed = 0, begun, at, rate;
	struct timespec half = {0, STEP / 2};
	char *nothing[] = {"nothing", NULL};

	must(argc == 3, "failing RATE FILE");
	rate = strtoull(argv[1], NULL, 10);
	open_notes(argv[2]);
	ready();
	begun = now();
	for (at = begun;; at = now()) {
		if (is_due(at) && note(at, failed))
			break;
		if (rate && failed >= (at - begun) / 1000 * rate / 1000000) {
			nanosleep(&half, NULL);
			continue;
		}
		execve("/no/such/program", nothing, nothing);
		failed++;
	}
	await();
	return done("0");
}
