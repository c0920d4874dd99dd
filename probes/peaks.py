# SPDX-License-Identifier: Apache-2.0
"""The longest durations, exactly: reading the peaks of include/hist.h, and what Samples keep.

A Histogram's peaks tell of each of its readings the longest duration, under the number of
durations there were then, as far as no later one is longer: the first that is behind a number
is the longest of all since. So two Samples give the maximum of the time between them, however
many were read meanwhile.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import pairwise

from probes import hdr
from probes.control import Control
from probes.maps import MappedArray
from probes.samples import Histogram

ROUNDS = 4
SIZE = 16 * ROUNDS
"""Bytes of `struct peaks`, the last rounds of one CPU."""
LOWEST = 0 if sys.byteorder == "little" else 7
"""Where a word has its lowest byte."""
MOST = 40
"""Peaks of a histogram at most; a day of readings has about twelve, unless durations fall."""


class Peaks:
    """The map of peaks, with those of all CPUs for each slot. Takes the map's descriptor.

    Histograms are read between `begin` and `end`: what is recorded meanwhile has a round of its
    own, in which it hides nothing that comes later.
    """

    def __init__(self, fd: int, cpus: int, slots: int) -> None:
        self.array = MappedArray(fd, SIZE, cpus * slots)
        self._size = SIZE * cpus
        self._round = 0
        self._seen: dict[int, tuple[int, dict[int, int]]] = {}
        self._beyond: dict[int, list[int]] = {}

    def begin(self, control: Control) -> None:
        """Histograms are read from now on."""
        self._round = control.next_round()

    def end(self, control: Control) -> None:
        """They have been read."""
        control.next_round()

    def longest(self, slot: int, top: int) -> int:
        """The longest that was recorded since the slot was read last, if it is in bucket `top`.

        That is the highest bucket that has grown. 0 if the longest is not known.
        """
        low, high = hdr.bounds(top)
        recorded = self._recorded(slot)
        found = recorded + self._beyond.pop(slot, [])
        # What is longer has not come into its bucket yet.
        beyond = [value for value in recorded if value >= high and top != hdr.LAST]
        if beyond:
            self._beyond[slot] = beyond
        return max([v for v in found if low <= v and (v < high or top == hdr.LAST)], default=0)

    def close(self) -> None:
        """Unmap."""
        self.array.close()

    def _recorded(self, slot: int) -> list[int]:
        """The peaks of all CPUs since the last reading; those that it has seen are none."""
        now = self._round
        found: list[int] = []
        meanwhile: dict[int, int] = {}
        first = slot * self._size
        data = self.array.memory[first : first + self._size]
        words = memoryview(data).cast("Q")
        last, seen = self._seen.get(slot, (0, {}))
        # Rounds of long ago are not looked at: there are peaks of each CPU.
        for number in (now - 2, now - 1, now):
            at = 2 * (number % ROUNDS)
            # One byte of each rules most rounds out.
            if number & 0xFF not in data[8 * at + LOWEST :: SIZE]:
                continue
            rounds = words[at :: 2 * ROUNDS].tolist()
            if number not in rounds:
                continue
            values = words[at + 1 :: 2 * ROUNDS].tolist()
            there = {cpu: v for cpu, v in enumerate(values) if v and rounds[cpu] == number}
            if number == now:
                meanwhile = there
            elif number == now - 2 == last:
                there = {cpu: v for cpu, v in there.items() if v > seen.get(cpu, 0)}
            found += there.values()
        self._seen[slot] = (now, meanwhile)
        return found


def with_peak(peaks: Mapping[int, int], n: int, value: int) -> Mapping[int, int]:
    """The peaks after one more reading, with `n` durations in all; 0 where its own is not known."""
    if not value:
        return peaks
    kept = {at: peak for at, peak in peaks.items() if peak > value}
    kept[n] = value
    if len(kept) > MOST:
        # Where the next one is in another bucket, it cannot be taken for the one that is missing.
        pairs = pairwise(kept.items())
        apart = (at for (at, a), (_, b) in pairs if hdr.index(a) != hdr.index(b))
        del kept[next(apart, next(iter(kept)))]
    return kept


def since(peaks: Mapping[int, int], n: int) -> dict[int, int]:
    """The peaks of what came behind the first `n` durations."""
    return {at - n: peak for at, peak in peaks.items() if at > n}


def joined(first: Histogram, then: Histogram) -> Mapping[int, int]:
    """The longest of the durations of both, as the peaks of their sum; empty if not known."""
    tops = [_top(one) for one in (first, then)]
    highest = max(tops)
    found = [
        _peak(one, top) for one, top in zip((first, then), tops, strict=True) if top == highest
    ]
    return {first.n + then.n: max(found)} if all(found) else {}


def maximum(spent: Histogram) -> tuple[float | None, bool | None]:
    """The longest duration in ns, and whether it is exact, else the least bound that is known."""
    top = _top(spent)
    peak = _peak(spent, top)
    if peak:
        return peak, True
    bound = hdr.maximum(spent.buckets, spent.total)
    if bound is None:
        return None, None
    low, high = hdr.bounds(top)
    single = spent.n == 1 and hdr.index(spent.total) == top
    return bound, single or (high - low == 1 and top != hdr.LAST)


def _top(spent: Histogram) -> int:
    """The highest bucket with a duration; -1 if there is none."""
    return max([bucket for bucket, n in spent.buckets.items() if n > 0], default=-1)


def _peak(spent: Histogram, top: int) -> int:
    """The first of its peaks, 0 if there is none or it is not the longest."""
    peak = spent.peaks[min(spent.peaks)] if spent.peaks else 0
    return peak if hdr.index(peak) == top else 0
