# SPDX-License-Identifier: Apache-2.0
"""Reading the histograms of include/hist.h: only what counted something since the last time."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import compress
from operator import ne

from probes.bpf.control_page import Control
from probes.bpf.layouts import HISTOGRAM
from probes.bpf.maps import MappedArray
from probes.bpf.peaks import Peaks
from probes.core import histogram
from probes.core.peak_values import with_peak
from probes.core.sample import Histogram

_HIST_SIZE, _BUCKETS_AT = HISTOGRAM.size, HISTOGRAM.at("buckets")
_STRETCH = 32
# All buckets of a histogram are one number, of 32 bits for each: to subtract and to add up those
# of all CPUs takes one step. A bucket that may have gone round, or one that grew by so much that
# the sum of them might need another bit, is told by these bits, and its histogram taken apart.
_LANES = sum(1 << 32 * bucket for bucket in range(histogram.BUCKETS))
_ROUND, _LARGE = _LANES << 31, _LANES * 0xF0000000
_SMALL = 1 << 30
"""As long as all parts have counted less in all, no bucket of their sum needs another bit."""
_BUCKETS = struct.Struct(f"={_STRETCH}I")
_NONE = (0,) * _STRETCH
MASK = 0xFFFFFFFF


def slices_for(cpus: int) -> int:
    """In how many parts histograms are kept: one for each CPU up to 16, a power of two."""
    return min(16, 1 << (cpus - 1).bit_length())


class _Known:
    """The last reading of a slot's histogram, part by part.

    Only buckets from `low` on to before `high` have ever counted anything, and `numbers` are of
    these, one for each part: those of `head` and `tail`, before and behind them, are empty.
    `counts` are how many durations there were. `unsettled` are the parts that changed when they
    were read last.
    """

    __slots__ = ("counts", "head", "high", "low", "numbers", "tail", "unsettled")

    def __init__(self, parts: int) -> None:
        self.low = self.high = 0
        self.head, self.tail = b"", bytes(4 * histogram.BUCKETS)
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
        self.head, self.tail = bytes(4 * self.low), bytes(4 * (histogram.BUCKETS - self.high))
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
            buckets = memory[at + _BUCKETS_AT : at + _HIST_SIZE]
            if not (buckets.startswith(known.head) and buckets.endswith(known.tail)):
                known.widen(buckets)
        return (known.low, known.high) != (low, high)

    def _add_grown(self, slot: int, known: _Known, parts: list[int], counts: dict[int, int]) -> int:
        """Add what these parts counted since they were read; the highest bucket that grew, or -1.

        Only buckets in which something was counted before are looked at.
        """
        low, high, memory, stride = known.low, known.high, self.array.memory, self.array.stride
        first, size = slot * stride + _BUCKETS_AT + 4 * low, 4 * (high - low)
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
