# SPDX-License-Identifier: Apache-2.0
"""How much less programs do within bursts than between them, for being traced costs them time.

A program that makes calls as fast as it can makes fewer of them while each is traced: what bursts
see is too little. One that waits for something between its calls makes as many. Nobody knows of
which kind a program is, so the truth is taken to lie anywhere between the two, each place being
as likely as another (a uniform distribution: its mean is the half, its variance a twelfth).

    x = calls on a CPU * ns that one costs / ns of the burst
    factor = 1 + (1 / (1 - x) - 1) / 2

Of a CPU's bursts the one with most calls counts: in the others it may have worked for somebody
else for a part of the time, which leaves as much less to those that call.

What a call costs more is measured in each burst, by calls of the broker's own just before it and
within. Calls of others may cost another amount (OTHERS), which adds to the factor's error.
"""

from __future__ import annotations

from collections.abc import Mapping
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


def slowdown(events: Mapping[int, int], peaks: Mapping[int, float], price: float) -> Slowdown:
    """Of `events` by CPU, each of which costs `price` ns.

    `peaks` are the events a second of the burst with most of them, by CPU.
    """
    whole = sum(events.values())
    if not whole or price <= 0:
        return NOT_SLOWED
    most = 0.0
    for cpu, n in events.items():
        taken = min(MOST, peaks[cpu] * price / 1e9)
        most += n / whole * (1 / (1 - taken) - 1)
    return Slowdown(1 + most / 2, most * sqrt(1 / 12 + (OTHERS / 2) ** 2))


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
