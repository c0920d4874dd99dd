# SPDX-License-Identifier: Apache-2.0
"""Numbers that tell processes apart, also those that have the same pid one after the other.

The kernel gives a pid again, the sooner the fewer there are. Samples therefore have a number for
each process: its pid for the first process that was seen with it, and for each further one the
pid and a count above it. A number stands for one process only, so counters of two of them are
never subtracted from each other, and names never mixed.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterable

PID_BITS = 22
"""Linux has at most 4 Mi pids (PID_MAX_LIMIT)."""
_PID = (1 << PID_BITS) - 1
_LAST = 1 << 32
INDEX_BITS, NOTED_SHIFT = 24, 10
"""A list's entry has a row's index in so many bits; above it a time in ns without so many."""
_NOTED = (1 << 64 - INDEX_BITS) - 1
EXECUTIONS = 63
"""The bits of a start that say nothing of it."""
MOST_KNOWN = 1 << 17
"""Most processes that are remembered; of those that nobody keeps the oldest are forgotten."""

MANY_NAMED = 4096
"""Names from which on it is looked which of them nobody keeps."""


def pid_of(number: int) -> int:
    """The pid of the process that has a number."""
    return number & _PID


class Processes:
    """Gives numbers to processes, which are known by their pid and by when they started.

    `numbers` maps pid << 32 | start to the number, for those that look up many; `number` does
    for all. A start is what `struct pt_process` of include/probetop.h has: the lowest bits of
    nanoseconds since boot, and EXECUTIONS that count executions; 0 for one that is not known.
    `forgotten` rises whenever some are forgotten: the same process then has another number.
    """

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}
        self._newest: dict[int, int] = {}
        self._named: dict[int, int] = {}
        self._most_named = MANY_NAMED
        self.forgotten = 0

    def number(self, pid: int, start: int) -> int:
        """The number of a process; without a start, that of the newest with its pid."""
        start &= ~EXECUTIONS
        found = self.numbers.get(pid << 32 | start)
        if found is not None:
            return found
        newest = self._newest.get(pid)
        if not start or pid > _PID:
            return pid if newest is None else newest
        # Whoever had this pid before the others were forgotten may have had any lower count.
        number = self.forgotten << PID_BITS | pid if newest is None else newest + (1 << PID_BITS)
        number = number if number < _LAST else pid
        self.numbers[pid << 32 | start] = self._newest[pid] = number
        return number

    def name(self, comms: dict[int, str], number: int, comm: str, noted: int) -> None:
        """Put the name of a process into `comms`, unless the one there was noted later.

        `noted` is an entry of a list of include/rows.h, of a moment ago.
        """
        # The entry has the lower bits of the time only.
        now = time.monotonic_ns() >> NOTED_SHIFT
        when = now - ((now - (noted >> INDEX_BITS)) & _NOTED)
        if when >= self._named.get(number, 0):
            comms[number], self._named[number] = comm, when

    def alive(self, pids: Iterable[int]) -> set[int]:
        """The numbers of the processes that have these pids now."""
        newest = self._newest.get
        return {newest(pid, pid) for pid in pids}

    def forget(self, kept: Container[int]) -> None:
        """Forget the older half where there are too many, but for those whose numbers are kept."""
        if len(self._named) > self._most_named:
            self._named = {number: at for number, at in self._named.items() if number in kept}
            self._most_named = 2 * len(self._named) + MANY_NAMED
        if len(self.numbers) <= MOST_KNOWN:
            return
        old = list(self.numbers)[: len(self.numbers) // 2]
        for process in old:
            if self.numbers[process] not in kept:
                del self.numbers[process]
        there = set(self.numbers.values())
        self._newest = {pid: number for pid, number in self._newest.items() if number in there}
        self.forgotten += 1
