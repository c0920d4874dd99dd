# SPDX-License-Identifier: Apache-2.0
"""How much less programs do within bursts than between them, for being traced costs them time.

A program that makes calls as fast as it can makes fewer of them while each is counted: what
bursts see is too little. One that waits for something between its calls makes as many. Nobody
knows which programs are of which kind, but a CPU that is never idle has no time to spare: of the
calls on a CPU that is busy for the part s of the time, s are taken to be slowed, and the rest not.

    x = calls on the CPU * ns that one costs / ns of the bursts
    factor = 1 + s * (1 / (1 - x) - 1)

What a call costs more is measured in each burst, by calls of the broker's own just before it and
within. The factor's error has two parts: a call is slowed or not (s * (1 - s) is the variance of
that), and calls of others may cost another amount than the broker's (OTHERS).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import median
from typing import NamedTuple

OTHERS = 0.25
"""By which part the cost of others' calls is taken to differ from that of our own."""
MOST = 0.8
"""The largest part of a CPU's time that tracing is taken to need in a burst."""
KEPT = 25
"""Bursts of which the cost of a call is the median."""


class Slowdown(NamedTuple):
    """By which factor there are more events than bursts saw, and the standard error of that."""

    factor: float = 1.0
    error: float = 0.0


NOT_SLOWED = Slowdown()


def slowdown(
    events: Mapping[int, int], on: float, price: float, busy: Mapping[int, float]
) -> Slowdown:
    """Of `events` by CPU within `on` seconds, each of which costs `price` ns.

    `busy` is by CPU for which part of the time it had work, 1 where that is not known.
    """
    whole = sum(events.values())
    if not whole or on <= 0 or price <= 0:
        return NOT_SLOWED
    factor = unsure = 0.0
    for cpu, n in events.items():
        taken = min(MOST, n * price / (1e9 * on))
        more, part = 1 / (1 - taken) - 1, busy.get(cpu, 1.0)
        factor += n / whole * more * part
        unsure += n / whole * more * sqrt(part * (1 - part))
    return Slowdown(1 + factor, sqrt(unsure**2 + (OTHERS * factor) ** 2))


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


class BusyCpus:
    """For which part of the time each CPU has work, by /proc/stat."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[int, int]] = {}

    def shares(self) -> dict[int, float]:
        """By CPU, since the last call; of CPUs for which nothing is known there is nothing."""
        now = _times()
        last, self._last = self._last, now
        return {
            cpu: 1 - (idle - last[cpu][0]) / (whole - last[cpu][1])
            for cpu, (idle, whole) in now.items()
            if cpu in last and whole > last[cpu][1]
        }


def _times() -> dict[int, tuple[int, int]]:
    """Idle and all ticks by CPU; without what is waited for, which is idle too."""
    try:
        fd = os.open("/proc/stat", os.O_RDONLY | os.O_CLOEXEC)
        with open(fd, encoding="ascii", errors="replace") as file:
            lines = [line.split() for line in file if line.startswith("cpu")]
    except OSError:
        return {}
    return {int(words[0][3:]): _idle(words[1:9]) for words in lines if words[0] != "cpu"}


def _idle(words: Sequence[str]) -> tuple[int, int]:
    ticks = [int(word) for word in words]
    return ticks[3] + ticks[4], sum(ticks)
