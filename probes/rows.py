# SPDX-License-Identifier: Apache-2.0
"""Reading the row tables of include/rows.h and the histograms of include/hist.h.

A poll costs about a microsecond for each row that changed, and nothing for the others.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain, compress, repeat, zip_longest
from operator import eq, ne
from typing import Any

from probes import hdr
from probes.control import Control
from probes.maps import MappedArray, RingBuffer
from probes.peaks import Peaks, with_peak
from probes.processes import EXECUTIONS, INDEX_BITS, Processes
from probes.samples import Histogram
from probes.text import readable

_ROW = struct.Struct("=QQ4x28s16s")
"""Count and sum of a row, whose it is, and its extras."""
_OWNER = struct.Struct("=IQ")
"""Start and key, in front of the name."""
_EXTRAS = struct.Struct("=IIII")
_NO_EXTRAS = bytes(_EXTRAS.size)
ROW_SIZE = 64
ROW_MAPS = ("rows", "touched", "lists", "crowded")
"""The maps behind a table of rows."""
_TOUCHED = 16
"""Words of 32 bits of a CPU: its lists' epochs and lengths, and the events without a row."""
_HIST = struct.Struct("=QQQQ")
_HIST_SIZE = _HIST.size + 4 * hdr.BUCKETS
_STRETCH = 32
# All buckets of a histogram are one number, of 32 bits for each: to subtract and to add up those
# of all CPUs takes one step. A bucket that may have gone round, or one that grew by so much that
# the sum of them might need another bit, is told by these bits, and its histogram taken apart.
_LANES = sum(1 << 32 * bucket for bucket in range(hdr.BUCKETS))
_ROUND, _LARGE = _LANES << 31, _LANES * 0xF0000000
_SMALL = 1 << 30
"""As long as all parts have counted less in all, no bucket of their sum needs another bit."""
_BUCKETS = struct.Struct(f"={_STRETCH}I")
_NONE = (0,) * _STRETCH
MASK = 0xFFFFFFFF
INDEX = (1 << INDEX_BITS) - 1
"""The bits of a list's entry that are a row's index; above them is the time."""
UNSETTLED = 4
"""Entries at a list's end that may not be written yet: as many programs run within each other.

There are four contexts: a task's, a soft and a hard interrupt's, and that of the NMI."""

Extra = tuple[int, int]
"""The id of an extra, and by how much its count grew."""


class SeenRow:
    """A row as it was read last.

    `owner` are the bytes that tell whose it is, `process` is the number of its process, and `what`
    it does. `key` and `comm` are for whoever reads rows: key is None whenever the row has another
    owner or another name than before.
    """

    __slots__ = ("comm", "count", "extras", "key", "owner", "process", "total", "what")

    def __init__(self) -> None:
        self.count = self.total = self.process = self.what = 0
        self.owner, self.extras = b"", _NO_EXTRAS
        self.key: Any = None
        self.comm: Any = None

    @property
    def name(self) -> bytes:
        """What the kernel calls its process; what is behind the first zero is none of it.

        Rows that are not of a process have a text instead.
        """
        return self.owner[_OWNER.size :]

    def new_extras(self, extras: bytes) -> tuple[Extra, ...]:
        """By how much the extras of the same owner grew."""
        old, self.extras = self.extras, extras
        if not extras:
            return ()
        id0, n0, id1, n1 = _EXTRAS.unpack(extras)
        _, old0, _, old1 = _EXTRAS.unpack(old)
        return ((id0, (n0 - old0) & MASK), (id1, (n1 - old1) & MASK))


Values = tuple[int, int, bytes, bytes]
"""What a row holds: count, sum, the bytes that tell its owner, those of its extras."""


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
    the row's end. After `lists`, `others` names the CPUs on which events found no row since
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
        # A text goes on where other rows have their extras.
        text = struct.Struct(f"=QQ4x{ROW_SIZE - 20 + 8 * wide}s0s")
        self._row = text if texts and wide else _ROW
        self.cpus, self.per_cpu = cpus, per_cpu
        rows, touched, lists, crowded = (maps.pop(name) for name in ROW_MAPS)
        self.rows = MappedArray(rows, ROW_SIZE + 8 * wide, cpus * per_cpu)
        self.touched = MappedArray(touched, 4 * _TOUCHED, cpus)
        self.indexes = MappedArray(lists, 8, 2 * cpus * per_cpu)
        self._crowded = RingBuffer(crowded, mmap.PAGESIZE)
        self.wait_fd = self._crowded.fd
        self.arrays = (self.rows, self.touched, self.indexes)
        self.others: set[int] = set()
        self._settling: set[int] = set()
        self._seen: dict[int, SeenRow] = {}
        self._unsure: list[SeenRow] = []
        self._numbered_by: tuple[Processes, int] | None = None
        self._others_seen = [0] * cpus
        self._starts: dict[int, int] = {}
        self._ends: dict[int, list[int]] = {}
        self._again: list[int] = []

    def read(self, noted: list[int]) -> Iterator[tuple[int, SeenRow | None, Values]]:
        """What is noted, each with the row as it was seen last and what it holds now.

        Rows of other owners go to `meet` first, those that have not changed to `look_again`.
        """
        stride, memory = self.rows.stride, repeat(self.rows.memory)
        places = [(entry & INDEX) * stride for entry in noted]
        values = map(self._row.unpack_from, memory, places)
        return zip(noted, map(self._seen.get, places), values, strict=True)

    def meet(self, noted: list[int], processes: Processes) -> list[int]:
        """Learn whose rows are that have another owner or name than before.

        Returns them in the order in which they were noted: that is how processes are numbered.
        """
        noted = sorted(noted)
        for entry in noted:
            place = (entry & INDEX) * self.rows.stride
            _, _, owner, _ = self._row.unpack_from(self.rows.memory, place)
            start, key = _OWNER.unpack_from(owner)
            row = self._seen.get(place)
            if not key or (row is not None and row.owner == owner):
                continue
            if row is None:
                row = self._seen[place] = SeenRow()
            if not row.owner.startswith(owner[: _OWNER.size]):
                # With another owner the extras began anew, the counters did not.
                row.extras = _NO_EXTRAS
            row.owner, row.key = owner, None
            row.process, row.what = processes.number(key >> 32, start), (key & MASK) - 1
            if start <= EXECUTIONS:
                # It may be of any process that has this pid then.
                self._unsure.append(row)
        return noted

    def look_again(self, noted: list[int]) -> None:
        """Have the next poll look at these rows, which were noted before they were counted."""
        self._again = noted

    def forget_keys(self) -> None:
        """Have whoever reads rows give all of them their keys anew."""
        for row in self._seen.values():
            row.key = None

    def renumber(self, processes: Processes) -> None:
        """Have rows look for the numbers of their processes, where these may be others now."""
        numbered_by = (processes, processes.forgotten)
        unsure: Iterable[SeenRow] = self._unsure
        if self._numbered_by != numbered_by:
            self._numbered_by, unsure = numbered_by, self._seen.values()
        for row in unsure:
            row.owner = row.owner[: _OWNER.size]
        self._unsure = []

    def lists(self, control: Control) -> Iterator[list[int]]:
        """What is noted of the rows that changed, in two lists; begins a new epoch.

        Each says when it was noted above INDEX, the row's index.
        """
        # What found no row is looked at once more: the counter of that rises first.
        settling, self.others = self._settling, set()
        for _ in self._crowded.drain():
            pass
        # First what entered the last epoch's list after it was read; then the list is reused.
        late = self._noted(control.epoch - 1, self._starts)
        yield [*self._again, *self._written_since(late)]
        noted = self._noted(control.next_epoch(), {})
        self._starts = {cpu: max(0, len(found) - UNSETTLED) for cpu, found in noted.items()}
        self._ends = {cpu: found[-UNSETTLED:] for cpu, found in noted.items()}
        yield list(chain.from_iterable(noted.values()))
        self._settling, self.others = self.others, self.others | settling

    def close(self) -> None:
        """Unmap."""
        for array in self.arrays:
            array.close()
        self._crowded.close()

    def _written_since(self, late: Mapping[int, list[int]]) -> Iterator[int]:
        """What is noted at the ends of lists, but was not when these were read."""
        for cpu, found in late.items():
            end = self._ends.get(cpu, [])
            if found != end:
                pairs = zip_longest(found, end)
                yield from [entry for entry, was in pairs if entry is not None and entry != was]

    def _noted(self, epoch: int, starts: Mapping[int, int]) -> dict[int, list[int]]:
        """What is noted in the lists of an epoch by CPU, from its entry of `starts` on."""
        side, per_cpu = epoch & 1, self.per_cpu
        # Memory that somebody holds a view of cannot be unmapped.
        with memoryview(self.touched.memory) as memory, memory.cast("I") as words:
            end = _TOUCHED * self.cpus
            epochs, lengths = [words[at:end:_TOUCHED].tolist() for at in (side, side + 2)]
        with memoryview(self.touched.memory) as memory, memory.cast("Q") as words:
            others = words[2 : end // 2 : _TOUCHED // 2].tolist()
        if others != self._others_seen:
            self.others.update(compress(range(self.cpus), map(ne, others, self._others_seen)))
            self._others_seen = others
        found: dict[int, list[int]] = {}
        with memoryview(self.indexes.memory) as memory, memory.cast("Q") as words:
            for cpu in compress(range(self.cpus), map(eq, epochs, repeat(epoch & MASK))):
                first = (2 * cpu + side) * per_cpu
                found[cpu] = words[first + starts.get(cpu, 0) : first + lengths[cpu]].tolist()
        return found


class _Known:
    """What was read of a slot's histogram, part by part.

    Only buckets from `low` on to before `high` have ever counted anything, and `numbers` are of
    these, one for each part: those of `head` and `tail`, before and behind them, are empty.
    `counts` are how many durations there were. `unsettled` are the parts that changed when they
    were read last.
    """

    __slots__ = ("counts", "head", "high", "low", "numbers", "tail", "unsettled")

    def __init__(self, parts: int) -> None:
        self.low = self.high = 0
        self.head, self.tail = b"", bytes(4 * hdr.BUCKETS)
        self.counts = [0] * parts
        self.numbers = [0] * parts
        self.unsettled: list[int] = []

    def changed(self, counts: list[int]) -> list[int]:
        """The parts that are to be read, by how many durations there are now."""
        found = list(compress(range(len(counts)), map(ne, counts, self.counts)))
        # A CPU may show its stores in another order: what changed is read once more.
        again, self.unsettled, self.counts = self.unsettled, found, counts
        return found if again == found or not again else sorted({*found, *again})

    def widen(self, buckets: bytes) -> None:
        """Take in what these buckets have counted."""
        whole = int.from_bytes(buckets, "little")
        first, last = ((n.bit_length() - 1) // 32 for n in (whole & -whole, whole))
        old = self.low if self.high else first
        self.low = min(old, first) // _STRETCH * _STRETCH
        self.high = max(self.high, (last // _STRETCH + 1) * _STRETCH)
        self.head, self.tail = bytes(4 * self.low), bytes(4 * (hdr.BUCKETS - self.high))
        self.numbers = [number << 32 * (old - self.low) for number in self.numbers]

    def replace(self, parts: list[int], numbers: list[int]) -> list[int]:
        """Keep the numbers of these parts; returns those that were there before."""
        if len(parts) == len(self.numbers):
            before, self.numbers = self.numbers, numbers
            return before
        before = [self.numbers[part] for part in parts]
        for part, number in zip(parts, numbers, strict=True):
            self.numbers[part] = number
        return before


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
        known = self._known.get(slot)
        if known is None:
            known = self._known[slot] = _Known(self.slices)
        totals, counts = self._words(slot, 0, 1)
        parts = known.changed(counts)
        if not parts:
            return old
        buckets = dict(old.buckets)
        top = self._add_grown(slot, known, parts, buckets)
        n = sum(buckets.values())
        if n != sum(*self._words(slot, 1)) and self._widen(slot, known, parts):
            top = max(top, self._add_grown(slot, known, parts, buckets))
            n = sum(buckets.values())
        if top < 0:
            return old
        if self.peaks is None:
            return Histogram(buckets, n, sum(totals))
        peaks = with_peak(old.peaks, n, self.peaks.longest(slot, top))
        return Histogram(buckets, n, sum(totals), peaks)

    def _words(self, slot: int, *numbers: int) -> list[list[int]]:
        """Words of these numbers, each of all parts."""
        first, step = slot * self.array.stride // 8, self.per_slice * self.array.stride // 8
        last = first + (self.slices - 1) * step + 1
        # Memory that somebody holds a view of cannot be unmapped.
        with memoryview(self.array.memory) as memory, memory.cast("Q") as words:
            return [words[first + n : last + n : step].tolist() for n in numbers]

    def _widen(self, slot: int, known: _Known, parts: list[int]) -> bool:
        """Look for durations beyond all earlier ones; True if there are any."""
        stride, memory = self.array.stride, self.array.memory
        low, high = known.low, known.high
        for part in parts:
            at = (part * self.per_slice + slot) * stride
            buckets = memory[at + _HIST.size : at + _HIST_SIZE]
            if not (buckets.startswith(known.head) and buckets.endswith(known.tail)):
                known.widen(buckets)
        return (known.low, known.high) != (low, high)

    def _add_grown(self, slot: int, known: _Known, parts: list[int], counts: dict[int, int]) -> int:
        """Add what these parts counted since they were read; the highest bucket that grew, or -1.

        Only buckets in which something was counted before are looked at.
        """
        low, high, memory, stride = known.low, known.high, self.array.memory, self.array.stride
        first, size = slot * stride + _HIST.size + 4 * low, 4 * (high - low)
        places = [first + part * self.per_slice * stride for part in parts]
        pieces, from_bytes = [memory[at : at + size] for at in places], int.from_bytes
        now = [from_bytes(piece, "little") for piece in pieces]
        before = known.replace(parts, now)
        small = sum(known.counts) < _SMALL
        grown = [(0, sum(now) - sum(before))] if small else _apart(before, now)
        return max([_add_buckets(counts, *pair, low, high) for pair in grown], default=-1)

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


def _apart(before: list[int], now: list[int]) -> list[tuple[int, int]]:
    """Old and new buckets, added up over all parts that can be: no bucket spills over."""
    added, apart = 0, []
    for old, new in zip(before, now, strict=True):
        if old & _ROUND or (new - old) & _LARGE:
            apart.append((old, new))
        else:
            added += new - old
    return [(0, added), *apart]


def _add_buckets(counts: dict[int, int], before: int, now: int, low: int, high: int) -> int:
    """Add what grew between two readings; the highest bucket that did, or -1.

    Looks only into the stretches that differ.
    """
    old, new = [value.to_bytes(4 * (high - low), "little") for value in (before, now)]
    top = -1
    for at in range(0, len(new), 4 * _STRETCH):
        if old[at : at + 4 * _STRETCH] == new[at : at + 4 * _STRETCH]:
            continue
        was = _BUCKETS.unpack_from(old, at) if before else _NONE
        count = _BUCKETS.unpack_from(new, at)
        differ = list(compress(range(_STRETCH), map(ne, was, count)))
        first = low + at // 4
        for place in differ:
            bucket = first + place
            counts[bucket] = counts.get(bucket, 0) + ((count[place] - was[place]) & MASK)
        top = first + differ[-1]
    return top
