# SPDX-License-Identifier: Apache-2.0
"""How much bursts slow each process whose system calls they count; see `probes.slowdown`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from heapq import nlargest
from typing import Any

from probes.burst_sums import BurstSums, Pair
from probes.messages import BurstReport
from probes.slowdown import (
    NOT_SLOWED,
    UNKNOWN,
    Prices,
    Slowdown,
    Threads,
    slowdown,
    together,
)

LOOKED_AT = 12
"""Processes whose threads are looked at: those that make most calls."""


class CallerSlowdown:
    """What tracing costs the processes of a span of bursts. `price_of_run` are ns of a program."""

    def __init__(
        self, threads: Threads | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock` gives monotonic seconds."""
        self.price_of_run = 0.0
        self._prices = Prices()
        self._threads = threads or Threads()
        self._clock = clock

    def add(self, report: BurstReport, processes: Mapping[int, Pair]) -> None:
        """Take in a burst, and what its processes called: how they go on is of interest."""
        self._prices.add(report.price)
        most = nlargest(LOOKED_AT, processes, key=lambda pid: processes[pid])
        self._threads.begin(most, self._clock())

    def close(self, bursts: BurstSums) -> None:
        """Make estimates of the tables `calls`, `errnos`, `matrix`, `processes` and `total`."""
        processes = self._of_processes(bursts)
        calls: dict[str, list[tuple[float, Slowdown]]] = {}
        matrix = bursts.tables["matrix"].sums
        for (pid, call), row in matrix.items():
            calls.setdefault(call, []).append((row[0], processes[pid]))
        by_call = {call: together(parts) for call, parts in calls.items()}
        made = bursts.tables["processes"].sums
        whole = together((row[0], processes[pid]) for pid, row in made.items())

        def of_call(name: str) -> Slowdown:
            return by_call.get(name, whole)

        by_key: dict[str, Callable[[Any], Slowdown]] = {
            "calls": of_call,
            "errnos": lambda key: of_call(key[0]),
            "matrix": lambda key: processes[key[0]],
            "processes": lambda pid: processes[pid],
        }
        bursts.close(whole, by_key)

    def _of_processes(self, bursts: BurstSums) -> dict[int, Slowdown]:
        """How much each process was slowed."""
        price = self._prices.price()
        if price <= 0:
            return dict.fromkeys(bursts.tables["processes"].sums, NOT_SLOWED)
        price += self.price_of_run
        made = {pid: row[0] for pid, row in bursts.tables["processes"].sums.items()}
        most = nlargest(LOOKED_AT, made, key=lambda pid: made[pid])
        threads = self._threads.since(most, self._clock())
        return {
            pid: slowdown(n / bursts.on, price, threads.get(pid, UNKNOWN), bursts.part)
            for pid, n in made.items()
        }
