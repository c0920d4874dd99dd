/* SPDX-License-Identifier: Apache-2.0 */
/* rings N: N times a missing file is opened by an io_uring, and the program reads why it failed. */
#include "work.h"

#include <fcntl.h>
#include <linux/io_uring.h>
#include <sys/mman.h>

#define IN(ring, offset) ((unsigned *)((char *)(ring) + (offset)))

int main(int argc, char **argv)
{
	struct io_uring_params p = {0};
	long n = argc > 1 ? atol(argv[1]) : 0, failed = 0;
	int fd = syscall(SYS_io_uring_setup, 1, &p);
	struct io_uring_sqe *work;
	struct io_uring_cqe *done_ones;
	char *sent, *got, said[32];

	must(n > 0, "rings N");
	must(fd >= 0, "io_uring_setup");
	sent = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING);
	got = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_CQ_RING);
	work = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQES);
	must(sent != MAP_FAILED && got != MAP_FAILED && work != MAP_FAILED, "mmap");
	done_ones = (struct io_uring_cqe *)(got + p.cq_off.cqes);
	ready();
	for (long i = 0; i < n; i++) {
		unsigned tail = *IN(sent, p.sq_off.tail), head = *IN(got, p.cq_off.head);

		memset(work, 0, sizeof(*work));
		work->opcode = IORING_OP_OPENAT;
		work->fd = AT_FDCWD;
		work->addr = (unsigned long)"/no/such/file";
		*IN(sent, p.sq_off.array) = 0;
		__atomic_store_n(IN(sent, p.sq_off.tail), tail + 1, __ATOMIC_RELEASE);
		must(syscall(SYS_io_uring_enter, fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) == 1,
		     "io_uring_enter");
		failed += done_ones[head & *IN(got, p.cq_off.ring_mask)].res == -ENOENT;
		__atomic_store_n(IN(got, p.cq_off.head), head + 1, __ATOMIC_RELEASE);
	}
	snprintf(said, sizeof(said), "%ld", failed);
	return done(said);
}
