# SPDX-License-Identifier: Apache-2.0
"""Reads the longest durations from the kernel: the peaks of include/hist.h.

`probes.core.peak_values` says what a Sample keeps of them.
"""

from __future__ import annotations

import sys

from probes.bpf.control_page import Control
from probes.bpf.layouts import PEAK
from probes.bpf.maps import MappedArray
from probes.core import histogram

ROUNDS = 4
SIZE = PEAK.size * ROUNDS
"""Bytes of `struct peaks`, the last rounds of one CPU."""
LOWEST = 0 if sys.byteorder == "little" else 7
"""Where a word has its lowest byte."""


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
        low, high = histogram.bounds(top)
        recorded = self._recorded(slot)
        found = recorded + self._beyond.pop(slot, [])
        # What is longer has not come into its bucket yet.
        beyond = [value for value in recorded if value >= high and top != histogram.LAST]
        if beyond:
            self._beyond[slot] = beyond
        return max(
            [v for v in found if low <= v and (v < high or top == histogram.LAST)], default=0
        )

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
