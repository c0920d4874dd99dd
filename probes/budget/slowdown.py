# SPDX-License-Identifier: Apache-2.0
"""How much less programs do within bursts than between them, for being traced costs them time.

A thread that makes one call after the other makes fewer of them while each is traced. How many,
follows from the part x of its time that tracing takes:

    x = calls a second * ns that tracing one costs / 1e9 / free
    factor = 1 / (1 - x)

`free` is the part of the time for which the thread does not wait for a CPU, by the kernel's own
figures (/proc/PID/task/TID/schedstat): who gets a third of a CPU spends x of that third. A thread
that never sleeps is slowed by that factor. Of one that sleeps nobody knows whether it waits for
its own calls, and is slowed as well, or works at the pace of a clock or of somebody who asks, and
is not. Either is taken to be as likely as the other: the mean is the middle, the standard error
half of what is between them. The same holds where the kernel's figures are not known.

What a call costs more is measured in each burst, by calls of the broker's own just before it and
within. Calls of others may cost another amount (OTHERS), which adds to the factor's error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import hypot
from statistics import median
from typing import NamedTuple

OTHERS = 0.2
"""By which part the cost of others' calls is taken to differ from that of our own."""
MOST = 0.6
"""The largest part of a thread's time that tracing is taken to need in a burst: to enter the kernel
and to leave it, which each call does, costs about as much."""
KEPT = 25
"""Bursts of which the cost of a call is the median."""
AWAKE = 0.95
"""A thread that runs or waits for a CPU for more than this part of the time never sleeps."""
MOST_THREADS = 32
"""Threads of a process that are looked at; one that has more is of unknown kind."""


class Slowdown(NamedTuple):
    """By which factor there are more events than bursts saw, and the standard error of that."""

    factor: float = 1.0
    error: float = 0.0


NOT_SLOWED = Slowdown()


class Thread(NamedTuple):
    """Which parts of the time a thread ran, and waited for a CPU."""

    run: float
    wait: float


UNKNOWN = (Thread(0.0, 0.0),)
"""Threads of a process of which nothing is known: one that sleeps, and could always run."""


def slowdown(rate: float, price: float, threads: Sequence[Thread], duty: float) -> Slowdown:
    """Of a process that makes `rate` calls a second in bursts, each of which costs `price` ns.

    `duty` is the part of the time for which it is traced: then it is as slow as bursts say.
    """
    taken = rate * price / 1e9
    if taken <= 0:
        return NOT_SLOWED
    ran = sum(thread.run for thread in threads)
    low = high = steep = 0.0
    for thread in threads:
        part = thread.run / ran if ran else 1 / len(threads)
        free = max(thread.run, 1 - thread.wait) or 1.0
        x = min(MOST, taken * part / free)
        more = part * x / (1 - x)
        high += more
        steep += more / (1 - x)
        low += more if thread.run + thread.wait >= AWAKE else 0.0
    rest = 1 - duty
    middle, between = (low + high) / 2, (high - low) / 2
    priced = OTHERS * steep * middle / high
    return Slowdown(1 + middle * rest, hypot(between, priced) * rest)


def together(parts: Iterable[tuple[float, Slowdown]]) -> Slowdown:
    """That of several together, each with its events: they may all be off in the same way."""
    whole = factor = error = 0.0
    for events, one in parts:
        whole += events
        factor += events * one.factor
        error += events * one.error
    return Slowdown(factor / whole, error / whole) if whole else NOT_SLOWED


class Prices:
    """What one system call costs more while it is traced, in ns, by the last bursts."""

    def __init__(self) -> None:
        self._last: list[int] = []

    def add(self, price: int) -> None:
        """Take in what a burst's own calls have shown."""
        self._last = [*self._last[1 - KEPT :], price]

    def price(self) -> float:
        """The median: 0 where nothing is known."""
        return max(0.0, median(self._last)) if self._last else 0.0


Reading = Mapping[int, tuple[int, int]]
"""By thread, the nanoseconds for which it ran, and waited for a CPU."""


def read_threads(pid: int) -> Reading:
    """The threads of a process; nothing where it is not seen, or has too many."""
    found: dict[int, tuple[int, int]] = {}
    try:
        names = os.listdir(f"/proc/{pid}/task")
        if len(names) > MOST_THREADS:
            return {}
        for name in names:
            with open(f"/proc/{pid}/task/{name}/schedstat", "rb", buffering=0) as file:
                run, wait, _ = file.read(100).split()
            found[int(name)] = int(run), int(wait)
    except (OSError, ValueError):
        return {}
    return found


class Threads:
    """What the threads of processes did between two readings, which `read` gives."""

    def __init__(self, read: Callable[[int], Reading] = read_threads) -> None:
        self._read = read
        self._last: dict[int, tuple[float, Reading]] = {}

    def begin(self, pids: Iterable[int], now: float) -> None:
        """Read those that have not been read yet."""
        for pid in pids:
            if pid not in self._last:
                self._last[pid] = now, self._read(pid)

    def since(self, pids: Iterable[int], now: float) -> dict[int, Sequence[Thread]]:
        """What they did since they were read before; all others are forgotten.

        UNKNOWN are those that were not.
        """
        last, self._last = self._last, {}
        found: dict[int, Sequence[Thread]] = {}
        for pid in pids:
            begun, old = last.get(pid, (now, {}))
            new = self._read(pid)
            self._last[pid] = now, new
            found[pid] = _between(old, new, now - begun) or UNKNOWN
        return found


def _between(old: Reading, new: Reading, seconds: float) -> list[Thread]:
    """What threads did that were there at both ends, and ran."""
    if seconds <= 0:
        return []
    return [
        Thread(*(max(0.0, (a - b) / 1e9 / seconds) for a, b in zip(now, old[tid], strict=True)))
        for tid, now in new.items()
        if tid in old and now[0] > old[tid][0]
    ]
