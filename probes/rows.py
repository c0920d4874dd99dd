# SPDX-License-Identifier: Apache-2.0
"""Reading the row tables of include/rows.h and the histograms of include/hist.h.

A poll costs about a microsecond for each row that changed, and nothing for the others.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from probes import hdr
from probes.control import Control
from probes.maps import MappedArray, RingBuffer
from probes.peak_values import with_peak
from probes.peaks import Peaks
from probes.processes import EXECUTIONS, INDEX_BITS, Processes
from probes.samples import Histogram
from probes.text import readable

_ROW = struct.Struct("=QQQ4xI16sIIII")
_NOTHING = (0, 0, 0, 0, 0, 0)
"""What a row had before it was ever read: count, sum, key, start, counts of extras."""
ROW_SIZE = 64
_NAME_AT = 32
ROW_MAPS = ("rows", "touched", "lists", "crowded")
"""The maps behind a table of rows."""
_TOUCHED = struct.Struct("=IIIIQ40x")
_HIST = struct.Struct("=QQQQ")
_SUMS = 16
"""Bytes of a histogram that change with every duration: their sum and their number."""
_HIST_SIZE = _HIST.size + 4 * hdr.BUCKETS
_TOTAL = struct.Struct("=QQ")
_STRETCH = 32
# All buckets of a histogram are one number, of 32 bits for each: to subtract and to add up those
# of all CPUs takes one step. A bucket that may have gone round, or one that grew by so much that
# the sum of them might need another bit, is told by these bits, and its histogram taken apart.
_LANES = sum(1 << 32 * bucket for bucket in range(hdr.BUCKETS))
_ROUND, _LARGE = _LANES << 31, _LANES * 0xF0000000
_BUCKETS = struct.Struct(f"={_STRETCH}I")
MASK = 0xFFFFFFFF
INDEX = (1 << INDEX_BITS) - 1
"""The bits of a list's entry that are a row's index; above them is the time."""
UNSETTLED = 4
"""Entries at a list's end that may not be written yet: as many programs run within each other.

There are four contexts: a task's, a soft and a hard interrupt's, and that of the NMI."""

Extra = tuple[int, int]
Change = tuple[int, int, int, int, bytes, tuple[Extra, ...], int]
"""Number of a process, what, count and sum added, name, (id, count added) of extras, and when the
name was noted.

What is behind the name's zero is none of it. Rows that are not of a process have a hash and a
text instead of its number and its name.
"""


NOT_IN_MEMORY = b"\0\xff"
"""How a text that could not be read begins."""


@lru_cache(8192)
def name_of_comm(raw: bytes) -> str:
    """A process's name as the kernel keeps it."""
    return readable(raw.partition(b"\0")[0])


def text_of(raw: bytes) -> str:
    """A text that tells calls apart, as a program read it from a process."""
    return "(not in memory)" if raw.startswith(NOT_IN_MEMORY) else name_of_comm(raw)


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
        self._last: dict[int, tuple[int, int, int, int, int, int]] = {}
        self._others_seen = [0] * cpus
        self._read_of_epoch = [0] * cpus

    def changes(self, control: Control, processes: Processes) -> Iterator[Change]:
        """What was added since the last time, row by row; begins a new epoch."""
        for noted in self.lists(control):
            yield from self._rows(noted, processes)

    def lists(self, control: Control) -> Iterator[list[int]]:
        """What is noted of the rows that changed, in two lists; begins a new epoch.

        Each is in the order in which they were noted, and says when above INDEX, their index.
        """
        # What found no row is looked at once more: the counter of that rises first.
        settling, self.others = self._settling, set()
        for _ in self._crowded.drain():
            pass
        # First what entered the last epoch's list after it was read; then the list is reused.
        late = self._lists(control.epoch - 1, self._read_of_epoch)
        yield sorted([entry for entries in late for entry in entries])
        lists = self._lists(control.next_epoch(), [0] * self.cpus)
        self._read_of_epoch = [max(0, len(entries) - UNSETTLED) for entries in lists]
        yield sorted([entry for entries in lists for entry in entries])
        self._settling, self.others = self.others, self.others | settling

    def close(self) -> None:
        """Unmap."""
        for array in self.arrays:
            array.close()
        self._crowded.close()

    def _lists(self, epoch: int, starts: list[int]) -> list[tuple[int, ...]]:
        """What is noted in each CPU's list of an epoch, from its entry of `starts` on."""
        side = epoch & 1
        found: list[tuple[int, ...]] = []
        memory, others, per_cpu = self.indexes.memory, self._others_seen, self.per_cpu
        headers = self.touched.memory[: self.cpus * self.touched.stride]
        for cpu, header in enumerate(_TOUCHED.iter_unpack(headers)):
            if header[4] != others[cpu]:
                others[cpu] = header[4]
                self.others.add(cpu)
            start = starts[cpu]
            count = header[2 + side] - start
            if header[side] != epoch & MASK or count <= 0:
                found.append(())
                continue
            at = 8 * ((2 * cpu + side) * per_cpu + start)
            found.append(struct.unpack_from(f"={count}Q", memory, at))
        return found

    def _rows(self, noted: list[int], processes: Processes) -> Iterator[Change]:
        memory, stride, last = self.rows.memory, self.rows.stride, self._last
        known, number = processes.numbers.get, processes.number
        unpack, seen, texts = _ROW.unpack_from, last.get, self._name_end > ROW_SIZE
        for entry in noted:
            index = entry & INDEX
            at = index * stride
            count, total, key, start, comm, id0, n0, id1, n1 = unpack(memory, at)
            old = seen(index, _NOTHING)
            last[index] = (count, total, key, start, n0, n1)
            if count == old[0] or not key:
                continue
            extras: tuple[Extra, ...] = ()
            if texts:
                comm = memory[at + _NAME_AT : at + self._name_end]
            elif id0:
                # With another owner the extras began anew, the counters did not.
                a, b = (old[4], old[5]) if old[2] == key and old[3] == start else (0, 0)
                extras = ((id0, (n0 - a) & MASK), (id1, (n1 - b) & MASK))
            pid = key >> 32
            process = known(pid << 32 | start & ~EXECUTIONS) or number(pid, start)
            yield process, (key & MASK) - 1, count - old[0], total - old[1], comm, extras, entry


class _Known:
    """What was read of a slot's histogram, part by part.

    Only buckets from `low` on to before `high` have ever counted anything, and `numbers` are of
    these: those of `head` and `tail`, before and behind them, are empty. `unsettled` are the parts
    that changed when they were read last.
    """

    __slots__ = ("head", "high", "low", "numbers", "sums", "tail", "unsettled")

    def __init__(self, parts: int) -> None:
        self.low = self.high = 0
        self.head, self.tail = b"", bytes(4 * hdr.BUCKETS)
        self.sums = [b""] * parts
        self.numbers = [0] * parts
        self.unsettled: set[int] = set()

    def widen(self, buckets: bytes) -> int:
        """Take in what these buckets have counted; returns by how many bits numbers rise."""
        whole = int.from_bytes(buckets, "little")
        first, last = ((n.bit_length() - 1) // 32 for n in (whole & -whole, whole))
        old = self.low if self.high else first
        self.low = min(old, first) // _STRETCH * _STRETCH
        self.high = max(self.high, (last // _STRETCH + 1) * _STRETCH)
        self.head, self.tail = bytes(4 * self.low), bytes(4 * (hdr.BUCKETS - self.high))
        rise = 32 * (old - self.low)
        self.numbers = [number << rise for number in self.numbers]
        return rise


class Histograms:
    """Histograms by slot, each in `slices` parts. Takes the map's descriptor.

    With `peaks` it knows the longest duration of what was read between their begin and end.
    """

    def __init__(self, fd: int, slices: int, per_slice: int, peaks: Peaks | None = None) -> None:
        self.slices, self.per_slice = slices, per_slice
        self.peaks = peaks
        self.array = MappedArray(fd, _HIST_SIZE, slices * per_slice)
        self._known: dict[int, _Known] = {}

    def read(self, slot: int, old: Histogram) -> Histogram:
        """The histogram of a slot now; the very same object if nothing was added to `old`."""
        added = total = 0
        apart: list[tuple[int, int]] = []
        memory, known = self.array.memory, self._known.get(slot)
        if known is None:
            known = self._known[slot] = _Known(self.slices)
        step, unsettled = self.per_slice * self.array.stride, known.unsettled
        first = slot * self.array.stride
        for part, at in enumerate(range(first, first + self.slices * step, step)):
            sums = memory[at : at + _SUMS]
            total += _TOTAL.unpack(sums)[0]
            settled = known.sums[part] == sums
            if settled and part not in unsettled:
                continue
            # A CPU may show its stores in another order: what changed is read once more.
            (unsettled.discard if settled else unsettled.add)(part)
            known.sums[part] = sums
            buckets = memory[at + _HIST.size : at + _HIST_SIZE]
            if not (buckets.startswith(known.head) and buckets.endswith(known.tail)):
                rise = known.widen(buckets)
                added, apart = added << rise, [(a << rise, b << rise) for a, b in apart]
            now = int.from_bytes(buckets[4 * known.low : 4 * known.high], "little")
            before, known.numbers[part] = known.numbers[part], now
            if before & _ROUND or (now - before) & _LARGE:
                apart.append((before, now))
            else:
                added += now - before
        if not added and not apart:
            return old
        counts = dict(old.buckets)
        for before, now in ((0, added), *apart):
            _add_buckets(counts, before, now, known.low, known.high)
        n = sum(counts.values())
        if self.peaks is None:
            return Histogram(counts, n, total)
        top = known.low + (added.bit_length() - 1) // 32
        if apart:
            top = max([bucket for bucket, n in counts.items() if n != old.buckets.get(bucket)])
        return Histogram(counts, n, total, with_peak(old.peaks, n, self.peaks.longest(slot, top)))

    @contextmanager
    def reading(self, control: Control) -> Iterator[None]:
        """For as long as histograms are read."""
        if self.peaks is None:
            yield
            return
        self.peaks.begin(control)
        yield
        self.peaks.end(control)

    def counters(self) -> list[tuple[int, int, int]]:
        """Events counted, missed and overflown, of each slot."""
        step = self.array.stride // 8
        size = self.per_slice * step
        columns = []
        # Memory that somebody holds a view of cannot be unmapped.
        with memoryview(self.array.memory) as memory, memory.cast("Q") as words:
            for word in (1, 2, 3):
                every = range(word, self.slices * size, size)
                parts = [words[at : at - word + size : step].tolist() for at in every]
                columns.append([sum(values) for values in zip(*parts, strict=True)])
        return list(zip(*columns, strict=True))

    def close(self) -> None:
        """Unmap."""
        self.array.close()
        if self.peaks is not None:
            self.peaks.close()


def _add_buckets(counts: dict[int, int], before: int, now: int, low: int, high: int) -> None:
    """Add what grew between two readings, looking only into the stretches that differ."""
    old, new = [value.to_bytes(4 * (high - low), "little") for value in (before, now)]
    for at in range(0, len(new), 4 * _STRETCH):
        if old[at : at + 4 * _STRETCH] == new[at : at + 4 * _STRETCH]:
            continue
        pairs = zip(_BUCKETS.unpack_from(old, at), _BUCKETS.unpack_from(new, at), strict=True)
        for bucket, (was, count) in enumerate(pairs, low + at // 4):
            if was != count:
                counts[bucket] = counts.get(bucket, 0) + ((count - was) & MASK)
