# SPDX-License-Identifier: Apache-2.0
"""BPF maps as memory: mapped arrays, and ring buffers read without a system call.

A descriptor suffices: no privilege, no bpf(2). Those that the broker gives only read, but for
control pages, and for the page of a ring buffer that says how far it was read. The layout of a
ring buffer's pages is that of the kernel's kernel/bpf/ringbuf.c (user ABI, as libbpf reads it).
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from collections.abc import Iterator

PAGE = mmap.PAGESIZE
_BUSY = 1 << 31
_DISCARD = 1 << 30
_HEADER = struct.Struct("=II")


def put_word(memory: mmap.mmap, offset: int, value: int) -> None:
    """Write 64 bits that the kernel reads meanwhile, in one store.

    struct.pack_into would fill them with zeros first, and programs act on that zero.
    """
    memory[offset : offset + 8] = value.to_bytes(8, sys.byteorder)


def _rounded(size: int) -> int:
    return -(-size // PAGE) * PAGE


class MappedArray:
    """The values of an array map made with BPF_F_MMAPABLE, side by side, as memory.

    `memory` is an mmap of whole pages; values are `stride` bytes apart. Takes the descriptor.
    """

    def __init__(self, fd: int, value_size: int, entries: int, writable: bool = False) -> None:
        # The kernel rounds a value's size up to eight bytes.
        self.stride = -(-value_size // 8) * 8
        self.entries = entries
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        try:
            self.memory = mmap.mmap(
                fd, _rounded(self.stride * entries), mmap.MAP_SHARED, protection
            )
        finally:
            # The mapping alone keeps the map alive.
            os.close(fd)

    def close(self) -> None:
        """Unmap; the map ends with its last program and mapping."""
        self.memory.close()


class RingBuffer:
    """A BPF ring buffer: `drain` yields what was written since, `fd` wakes epoll.

    `entries` is the size in bytes, a power of two. Takes the descriptor.
    """

    def __init__(self, fd: int, entries: int) -> None:
        self.fd = fd
        self._mask = entries - 1
        self._consumer = mmap.mmap(fd, PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        # The producer's page, then the data twice, so that no record is ever split.
        self._rest = mmap.mmap(fd, PAGE + 2 * entries, mmap.MAP_SHARED, mmap.PROT_READ, offset=PAGE)

    def drain(self) -> Iterator[memoryview]:
        """Records in their order, valid until the next one is asked for."""
        view = memoryview(self._rest)
        try:
            position = struct.unpack_from("=Q", self._consumer)[0]
            while position < struct.unpack_from("=Q", self._rest)[0]:
                at = PAGE + (position & self._mask)
                size, _ = _HEADER.unpack_from(self._rest, at)
                if size & _BUSY:
                    return
                length = size & ~_DISCARD
                if not size & _DISCARD:
                    yield view[at + 8 : at + 8 + length]
                position += 8 + -(-length // 8) * 8
                put_word(self._consumer, 0, position)
        finally:
            view.release()

    def close(self) -> None:
        """Unmap and close."""
        self._consumer.close()
        self._rest.close()
        os.close(self.fd)
