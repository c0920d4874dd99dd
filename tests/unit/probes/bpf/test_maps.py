# SPDX-License-Identifier: Apache-2.0
"""Arrays and ring buffers as memory, with a kernel played by the test."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest

from probes.bpf.maps import PAGE, MappedArray, RingBuffer, put_word

SIZE = 4096
BUSY, DISCARD = 1 << 31, 1 << 30


class Producer:
    """Writes records as kernel/bpf/ringbuf.c does: a header, the data, both rounded to 8."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * PAGE + 2 * SIZE)
        self.position = 0

    def put(self, data: bytes, flags: int = 0) -> int:
        """Append a record; where its header lies."""
        at = self.position
        record = struct.pack("=II", len(data) | flags, 0) + data
        for offset, byte in enumerate(record):
            for copy in ((at + offset) % SIZE, (at + offset) % SIZE + SIZE):
                os.pwrite(self.fd, bytes([byte]), 2 * PAGE + copy)
        self.position += 8 + -(-len(data) // 8) * 8
        os.pwrite(self.fd, struct.pack("=Q", self.position), PAGE)
        return at

    def consumed(self) -> int:
        """How far the reader says that it is."""
        return int(struct.unpack("=Q", os.pread(self.fd, 8, 0))[0])

    def commit(self, at: int, length: int) -> None:
        """End a busy record."""
        for copy in (at % SIZE, at % SIZE + SIZE):
            os.pwrite(self.fd, struct.pack("=I", length), 2 * PAGE + copy)


@pytest.fixture
def ring() -> Iterator[tuple[Producer, RingBuffer]]:
    producer = Producer()
    reader = RingBuffer(os.dup(producer.fd), SIZE)
    yield producer, reader
    reader.close()
    os.close(producer.fd)


def drained(reader: RingBuffer) -> list[bytes]:
    return [bytes(record) for record in reader.drain()]


def test_records_come_once_and_in_order(ring: tuple[Producer, RingBuffer]) -> None:
    producer, reader = ring
    assert drained(reader) == []
    wanted = [b"one", b"", b"12345678", b"x" * 100]
    for record in wanted:
        producer.put(record)
    assert drained(reader) == wanted
    assert producer.consumed() == producer.position
    assert drained(reader) == []


def test_records_wrap_around_the_end(ring: tuple[Producer, RingBuffer]) -> None:
    producer, reader = ring
    for number in range(300):
        record = bytes([number % 256]) * (number % 97)
        producer.put(record)
        assert drained(reader) == [record]
    assert producer.position > 3 * SIZE


def test_discarded_records_are_skipped(ring: tuple[Producer, RingBuffer]) -> None:
    producer, reader = ring
    producer.put(b"gone", DISCARD)
    producer.put(b"kept")
    assert drained(reader) == [b"kept"]
    assert producer.consumed() == producer.position


def test_reader_waits_at_a_record_that_is_being_written(
    ring: tuple[Producer, RingBuffer],
) -> None:
    producer, reader = ring
    producer.put(b"first")
    at = producer.put(b"second", BUSY)
    producer.put(b"third")
    assert drained(reader) == [b"first"]
    assert producer.consumed() == at
    producer.commit(at, 6)
    assert drained(reader) == [b"second", b"third"]


def test_space_is_given_back_record_by_record(ring: tuple[Producer, RingBuffer]) -> None:
    producer, reader = ring
    producer.put(b"a" * 8)
    producer.put(b"b" * 8)
    records = reader.drain()
    assert bytes(next(records)) == b"a" * 8
    assert producer.consumed() == 0
    assert bytes(next(records)) == b"b" * 8
    # The first one may be overwritten only once nobody holds it any more.
    assert producer.consumed() == 16
    assert list(records) == []
    assert producer.consumed() == 32


def test_array_values_are_eight_bytes_aligned() -> None:
    fd = os.memfd_create("array")
    os.ftruncate(fd, PAGE)
    os.pwrite(fd, b"first" + bytes(3) + b"secnd", 0)
    array = MappedArray(fd, 5, 2)
    assert array.stride == 8
    assert bytes(array.memory[8:13]) == b"secnd"
    with pytest.raises(TypeError):
        array.memory[0:1] = b"x"
    array.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_writable_array_is_shared() -> None:
    fd = os.memfd_create("array")
    os.ftruncate(fd, PAGE)
    array = MappedArray(os.dup(fd), 8, 4, writable=True)
    put_word(array.memory, 16, 2**63 + 5)
    assert struct.unpack("=4Q", os.pread(fd, 32, 0)) == (0, 0, 2**63 + 5, 0)
    array.close()
    os.close(fd)


def test_descriptor_is_closed_when_mapping_fails() -> None:
    read, write = os.pipe()
    with pytest.raises(OSError, match=r"\[Errno"):
        MappedArray(read, 8, 1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(read)
    os.close(write)
