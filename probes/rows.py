# SPDX-License-Identifier: Apache-2.0
"""Reading the row tables of include/rows.h and the histograms of include/hist.h.

A poll costs about a microsecond for each row that changed, and nothing for the others.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator

from probes import hdr
from probes.control import Control
from probes.maps import MappedArray, RingBuffer
from probes.samples import Histogram

# The name and the extras behind it, which a text may stand in place of.
_ROW = struct.Struct("=QQQII32s")
_EXTRAS = struct.Struct("=IIII")
ROW_SIZE = 64
_NAME_AT = 32
ROW_MAPS = ("rows", "touched", "lists", "crowded")
"""The maps behind a table of rows."""
_TOUCHED = struct.Struct("=IIIIQ40x")
_HIST = struct.Struct("=QQQQ")
_HIST_SIZE = _HIST.size + 4 * hdr.BUCKETS
_STRETCH = 32
MASK = 0xFFFFFFFF
UNSETTLED = 4
"""Entries at a list's end that may not be written yet: as many programs run within each other.

There are four contexts: a task's, a soft and a hard interrupt's, and that of the NMI."""

Extra = tuple[int, int]
Change = tuple[int, int, int, int, bytes, tuple[Extra, ...]]
"""Process id, what, count and sum added, name, (id, count added) of extras.

What is behind the name's zero is none of it. Rows that are not of a process have a hash and a
text instead of its id and its name.
"""


def name_of_comm(raw: bytes) -> str:
    """A process's name as the kernel keeps it; bytes that are no UTF-8 stay (surrogates)."""
    return raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def slices_for(cpus: int) -> int:
    """In how many parts histograms are kept: one for each CPU up to 16, a power of two."""
    return min(16, 1 << (cpus - 1).bit_length())


class RowTable:
    """The rows of all CPUs, `per_cpu` each, `wide` more words in each.

    Takes the descriptors of ROW_MAPS out of `maps`. With `texts` the name of a row may go on to
    the row's end. After `changes`, `others` names the CPUs on which events found no row since
    then. `wait_fd` becomes readable when so many rows have changed that they should be read
    now, lest the table runs full.
    """

    def __init__(
        self,
        maps: dict[str, int],
        cpus: int,
        per_cpu: int,
        wide: int = 0,
        *,
        texts: bool = False,
    ) -> None:
        self._name_end = ROW_SIZE + 8 * wide if texts else ROW_SIZE
        self.cpus, self.per_cpu = cpus, per_cpu
        rows, touched, lists, crowded = (maps.pop(name) for name in ROW_MAPS)
        self.rows = MappedArray(rows, ROW_SIZE + 8 * wide, cpus * per_cpu)
        self.touched = MappedArray(touched, _TOUCHED.size, cpus)
        self.indexes = MappedArray(lists, 8, 2 * cpus * per_cpu)
        self._crowded = RingBuffer(crowded, mmap.PAGESIZE)
        self.wait_fd = self._crowded.fd
        self.arrays = (self.rows, self.touched, self.indexes)
        self.others: set[int] = set()
        self._settling: set[int] = set()
        self._last: dict[int, tuple[int, int, int, int, int]] = {}
        self._others_seen = [0] * cpus
        self._read_of_epoch = [0] * cpus

    def changes(self, control: Control) -> Iterator[Change]:
        """What was added since the last time, row by row; begins a new epoch."""
        for indexes in self.lists(control):
            yield from self._rows(indexes)

    def lists(self, control: Control) -> Iterator[tuple[int, ...]]:
        """The indexes of the rows that changed, list by list; begins a new epoch."""
        # What found no row is looked at once more: the counter of that rises first.
        settling, self.others = self._settling, set()
        for _ in self._crowded.drain():
            pass
        # First what entered the last epoch's list after it was read; then the list is reused.
        for cpu in range(self.cpus):
            start = self._read_of_epoch[cpu]
            yield self._list(cpu, control.epoch - 1, start)
        ended = control.next_epoch()
        for cpu in range(self.cpus):
            indexes = self._list(cpu, ended, 0)
            self._read_of_epoch[cpu] = max(0, len(indexes) - UNSETTLED)
            yield indexes
        self._settling, self.others = self.others, self.others | settling

    def close(self) -> None:
        """Unmap."""
        for array in self.arrays:
            array.close()
        self._crowded.close()

    def _list(self, cpu: int, epoch: int, start: int) -> tuple[int, ...]:
        """The rows in one CPU's list of an epoch, from entry `start` on."""
        header = _TOUCHED.unpack_from(self.touched.memory, cpu * self.touched.stride)
        if header[4] != self._others_seen[cpu]:
            self._others_seen[cpu] = header[4]
            self.others.add(cpu)
        side = epoch & 1
        count = header[2 + side]
        if header[side] != epoch & MASK or count <= start:
            return ()
        at = 8 * ((2 * cpu + side) * self.per_cpu + start)
        return struct.unpack_from(f"={count - start}Q", self.indexes.memory, at)

    def _rows(self, indexes: tuple[int, ...]) -> Iterator[Change]:
        memory, stride, last = self.rows.memory, self.rows.stride, self._last
        for index in indexes:
            count, total, key, _, _, comm = _ROW.unpack_from(memory, index * stride)
            id0, n0, id1, n1 = _EXTRAS.unpack_from(comm, 16)
            old = last.get(index, (0, 0, 0, 0, 0))
            last[index] = (count, total, key, n0, n1)
            if count == old[0] or not key:
                continue
            extras: tuple[Extra, ...] = ()
            if id0:
                # With another key the extras began anew, the counters did not.
                a, b = (old[3], old[4]) if old[2] == key else (0, 0)
                extras = ((id0, (n0 - a) & MASK), (id1, (n1 - b) & MASK))
            if self._name_end > ROW_SIZE:
                at = index * stride
                comm = memory[at + _NAME_AT : at + self._name_end]
            yield key >> 32, (key & MASK) - 1, count - old[0], total - old[1], comm, extras


class Histograms:
    """Histograms by slot, each in `slices` parts. Takes the map's descriptor."""

    def __init__(self, fd: int, slices: int, per_slice: int) -> None:
        self.slices, self.per_slice = slices, per_slice
        self.array = MappedArray(fd, _HIST_SIZE, slices * per_slice)
        self._seen: dict[tuple[int, int], bytes] = {}

    def read(self, slot: int, old: Histogram) -> Histogram:
        """The histogram of a slot now; the very same object if nothing was added to `old`."""
        buckets: dict[int, int] | None = None
        total = 0
        for piece in range(self.slices):
            data = self._data(slot, piece)
            total += _HIST.unpack_from(data)[0]
            before = self._seen.get((slot, piece))
            if before == data:
                continue
            self._seen[slot, piece] = data
            buckets = dict(old.buckets) if buckets is None else buckets
            _add_buckets(buckets, before or bytes(_HIST_SIZE), data)
        if buckets is None:
            return old
        return Histogram(buckets, sum(buckets.values()), total)

    def counters(self, slot: int) -> tuple[int, int, int]:
        """Events counted, missed and overflown of a slot."""
        sums = [0, 0, 0]
        for piece in range(self.slices):
            at = (piece * self.per_slice + slot) * self.array.stride
            values = _HIST.unpack_from(self.array.memory, at)[1:]
            sums = [a + b for a, b in zip(sums, values, strict=True)]
        return sums[0], sums[1], sums[2]

    def close(self) -> None:
        """Unmap."""
        self.array.close()

    def _data(self, slot: int, piece: int) -> bytes:
        at = (piece * self.per_slice + slot) * self.array.stride
        return self.array.memory[at : at + _HIST_SIZE]


def _add_buckets(buckets: dict[int, int], before: bytes, data: bytes) -> None:
    """Add what grew between two readings, looking only into the stretches that differ."""
    for first in range(0, hdr.BUCKETS, _STRETCH):
        at = _HIST.size + 4 * first
        if before[at : at + 4 * _STRETCH] == data[at : at + 4 * _STRETCH]:
            continue
        old, new = (struct.unpack_from(f"={_STRETCH}I", raw, at) for raw in (before, data))
        for offset in range(_STRETCH):
            grown = (new[offset] - old[offset]) & MASK
            if grown:
                buckets[first + offset] = buckets.get(first + offset, 0) + grown
