# SPDX-License-Identifier: Apache-2.0
"""How much bursts slow each process whose system calls they count; see `probes.budget.slowdown`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from heapq import nlargest
from typing import Any

from probes.budget.burst_sums import BurstSums, Pair
from probes.budget.slowdown import (
    NOT_SLOWED,
    UNKNOWN,
    Prices,
    Slowdown,
    Threads,
    slowdown,
    together,
)
from probes.ipc.messages import BurstReport

LOOKED_AT = 12
"""Processes whose threads are looked at: those that make most calls."""
KEPT = 0.8
"""The part of a span's figures that is kept in the mean when the next one is added."""


class CallerSlowdown:
    """What tracing costs the processes of a span of bursts. `price_of_run` are ns of a program."""

    def __init__(
        self, threads: Threads | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock` gives monotonic seconds."""
        self.price_of_run = 0.0
        self._prices = Prices()
        self._means: dict[int, tuple[float, float]] = {}
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
        rates = {pid: n / bursts.on for pid, n in made.items()} | self._usual(
            {pid: (made[pid] / bursts.on, sum(t.run for t in found))
             for pid, found in threads.items()}
        )  # fmt: skip
        return {
            pid: slowdown(rate, price, threads.get(pid, UNKNOWN), bursts.part)
            for pid, rate in rates.items()
        }

    def _usual(self, seen: Mapping[int, tuple[float, float]]) -> dict[int, float]:
        """Calls a second in bursts, by those of other spans for as much time on a CPU.

        `seen` are the calls a second and the part of the time on a CPU. In a few bursts a process
        may have had more of the CPUs than it has else.
        """
        old, self._means = self._means, {}
        for pid, now in seen.items():
            before = old.get(pid, (0.0, 0.0))
            rate, run = (KEPT * a + b for a, b in zip(before, now, strict=True))
            self._means[pid] = rate, run
        return {
            pid: rate / run * seen[pid][1] if run and seen[pid][1] else seen[pid][0]
            for pid, (rate, run) in self._means.items()
        }
