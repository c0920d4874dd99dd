/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a workload has done so far, and when, in a file that others map: first how many notes there
 * are, then pairs of monotonic ns and a number. It is made about each millisecond.
 */
#pragma once

#include "work.h"

#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <sys/mman.h>

#define NOTES (1 << 20)
#define STEP 1000000UL	/* ns */

static uint64_t *notes, noted;

static inline void open_notes(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	must(fd >= 0 && !ftruncate(fd, (1 + 2 * NOTES) * 8), "file");
	notes = mmap(NULL, (1 + 2 * NOTES) * 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(notes != MAP_FAILED, "mmap");
}

static inline int told_to_end(void)
{
	struct pollfd in = {.fd = 0, .events = POLLIN};

	return poll(&in, 1, 0) != 0;
}

/* Is it time for a note? */
static inline int is_due(uint64_t at)
{
	return at - noted >= STEP;
}

/* Make a note; returns whether to end. */
static inline int note(uint64_t at, uint64_t number)
{
	noted = at;
	notes[1 + 2 * notes[0]] = at;
	notes[2 + 2 * notes[0]] = number;
	__atomic_store_n(&notes[0], notes[0] + 1, __ATOMIC_RELEASE);
	return notes[0] >= NOTES || (!(notes[0] & 63) && told_to_end());
}
