# SPDX-License-Identifier: Apache-2.0
"""Adds up what bursts saw, by key, until it is enough for an estimate; see `probes.core.estimates`.

The estimate of a span takes the sums of y, y^2 and y*t over its bursts: nothing else is kept of
a burst, so that memory and time follow the rows that changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil, hypot, sqrt
from types import MappingProxyType
from typing import Any

from probes.budget.slowdown import NOT_SLOWED, Slowdown
from probes.core.estimates import FEWEST, NO_DUTY
from probes.core.sample import Duty, Estimate, Estimates
from probes.ipc.messages import BurstReport

Pair = tuple[int, int]
"""Events of a burst, and how many of them failed."""


@dataclass(slots=True)
class Span:
    """The bursts of one span: how many, seconds attached, their squares, and what they stand for.

    `edges` are the uncertain seconds. `slowed` says how much less there was within bursts than
    between them.
    """

    bursts: int = 0
    on: float = 0.0
    squares: float = 0.0
    seconds: float = 0.0
    edges: float = 0.0
    slowed: Slowdown = NOT_SLOWED

    def add(self, on: float, seconds: float, edges: float) -> None:
        """Take in a burst."""
        self.bursts += 1
        self.on += on
        self.squares += on * on
        self.seconds += seconds
        self.edges += edges

    def estimate(
        self, y: float, yy: float, yt: float, slowed: Slowdown | None = None
    ) -> tuple[int, int]:
        """A count's estimate and its variance, by the sums of y, y^2 and y*t.

        Of a row that is `slowed` in its own way, what is more uncertain of it than of the whole
        span is in its variance.
        """
        times = self.seconds / self.on
        slowed = slowed or self.slowed
        more = slowed.factor
        rate = y / self.on
        off = max(0.0, yy - 2 * rate * yt + rate * rate * self.squares)
        rest = max(0.0, 1 - 1 / times)
        spread = off * times * times * rest * self.bursts / max(1, self.bursts - 1)
        variance = max(spread, y * rest * times * times) * more * more
        alike = self.slowed.error / self.slowed.factor * more
        own = (y * times) ** 2 * max(0.0, slowed.error**2 - alike**2)
        return round(y * times * more), ceil(variance + own)

    def uncertain(self) -> float:
        """The seconds attached that are uncertain, or would be as much: it is off in all rows."""
        slowed = self.slowed.error / self.slowed.factor * self.on * sqrt(12)
        return hypot(self.edges, slowed)


@dataclass(slots=True)
class Table:
    """One table of counts: what the span's bursts saw, and the estimates so far."""

    sums: dict[Any, list[float]] = field(default_factory=dict)
    known: dict[Any, Estimates] = field(default_factory=dict)

    def add(self, seen: Mapping[Any, Pair], on: float) -> None:
        """Take in what a burst of `on` seconds saw."""
        sums = self.sums
        for key, (n, errors) in seen.items():
            row = sums.get(key)
            if row is None:
                sums[key] = [n, n * n, n * on, errors, errors * errors, errors * on]
                continue
            row[0] += n
            row[1] += n * n
            row[2] += n * on
            row[3] += errors
            row[4] += errors * errors
            row[5] += errors * on

    def close(self, span: Span, slowed: Callable[[Any], Slowdown] | None = None) -> None:
        """Turn the sums into estimates; `slowed` is by key where that differs."""
        known = self.known
        for key, row in self.sums.items():
            own = slowed(key) if slowed is not None else None
            y, yy, yt, failed, squares, times = row
            n, variance = span.estimate(y, yy, yt, own)
            errors, errors_variance = (0, 0)
            if failed:
                errors, errors_variance = span.estimate(failed, squares, times, own)
            old = known.get(key)
            if old is not None:
                n, errors = n + old[0], errors + old[1]
                variance, errors_variance = variance + old[2], errors_variance + old[3]
            known[key] = Estimates(n, errors, variance, errors_variance)
        self.sums = {}

    def keep(self, keys: Iterable[Any]) -> None:
        """Forget all other keys."""
        self.known = {key: self.known[key] for key in keys}

    def counts(self) -> dict[Any, Estimate]:
        """A copy without errors."""
        return {key: Estimate(row[0], row[2]) for key, row in self.known.items()}


class BurstSums:
    """Tables by name, and the bursts that they are of. `sampling` is whether there are any now.

    `uncounted` are the seconds, and `paused` is since when, nothing is counted exactly.
    """

    def __init__(self, *tables: str) -> None:
        self.tables = {name: Table() for name in tables}
        self.duty: Duty | None = None
        self._span = Span()
        self._paused: float | None = None
        self._uncounted = 0.0

    @property
    def on(self) -> float:
        """Seconds attached in the bursts of which there is no estimate yet."""
        return self._span.on

    @property
    def part(self) -> float:
        """The part of their time for which those bursts were attached."""
        return self._span.on / self._span.seconds if self._span.seconds else 0.0

    @property
    def sampling(self) -> bool:
        """Whether what is counted now is counted in bursts."""
        return self._paused is not None

    def uncounted(self, now: float) -> float:
        """For how many seconds until `now` nothing was counted exactly."""
        since = self._uncounted
        return since if self._paused is None else since + max(0.0, now - self._paused)

    def pause(self, at: float) -> None:
        """From here on there are only bursts."""
        if self._paused is None:
            self._paused = at
        self.duty = self.duty or NO_DUTY

    def resume(self, at: float) -> None:
        """From here on everything is counted; bursts that are too few for an estimate are left."""
        if self._paused is not None:
            self._uncounted += max(0.0, at - self._paused)
            self._paused = None
        self._drop()

    def add(self, report: BurstReport, seen: Mapping[str, Mapping[Any, Pair]]) -> None:
        """Take in a burst, and what it saw by table and key."""
        on = (report.end - report.begin) / 1e9
        self._span.add(on, (report.until - report.since) / 1e9, report.edges / 1e9)
        for name, rows in seen.items():
            self.tables[name].add(rows, on)

    def is_enough(self) -> bool:
        """Whether there are bursts enough for an estimate."""
        return self._span.bursts >= FEWEST and self._span.on > 0

    def close(
        self,
        slowed: Slowdown = NOT_SLOWED,
        by_key: Mapping[str, Callable[[Any], Slowdown]] = MappingProxyType({}),
    ) -> None:
        """Make estimates of what is there, if that is enough.

        All is `slowed` alike, but for tables whose rows have a slowdown each.
        """
        span = self._span
        if not self.is_enough():
            return
        span.slowed = slowed
        for name, table in self.tables.items():
            table.close(span, by_key.get(name))
        old = self.duty or NO_DUTY
        self.duty = Duty(
            old.bursts + span.bursts,
            old.on + span.on,
            old.seconds + span.seconds,
            old.edges + span.uncertain(),
            old.freedom + span.bursts - 1,
        )
        self._span = Span()

    def _drop(self) -> None:
        self.close()
        self._span = Span()
        for table in self.tables.values():
            table.sums = {}
