# SPDX-License-Identifier: Apache-2.0
"""The values of a graph: one place per interval, also for intervals without a count."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import ceil
from typing import Generic, TypeVar

from probes.core.frame import Frame

T = TypeVar("T")


def places(last: float | None, frame: Frame, covered: float) -> tuple[int, int]:
    """The number of intervals without a value before this Frame, and the number with its value.

    `last` is the preceding Frame's time in monotonic seconds; `covered` is the number of seconds
    that the Frame's value covers.
    """
    passed = frame.interval if last is None else frame.mono - last
    every = max(1, round(passed / frame.interval))
    filled = min(every, max(1, round(covered / frame.interval)))
    return every - filled, filled


class OverTime(Generic[T]):
    """The newest `most` values, one per interval; None for an unknown value.

    Intervals without a Frame keep a place. When the interval changes, `join` merges older values,
    or they are repeated, so that the axis stays linear in time.
    """

    def __init__(self, most: int, join: Callable[[list[T | None]], T | None]) -> None:
        self.values: deque[T | None] = deque(maxlen=most)
        self._join = join
        self._interval: float | None = None
        self._end = 0.0

    def add(self, frame: Frame, value: T | None, covered: float = 0.0) -> None:
        """Add a value for the `covered` seconds before a Frame, at least one interval."""
        if self._interval is not None and frame.interval != self._interval:
            self._rescale(self._interval, frame.interval)
        most = self.values.maxlen or 0
        missing, filled = places(self._end if self.values else None, frame, covered)
        self.values.extend([None] * min(missing, most))
        self.values.extend([value] * min(filled, most))
        self._interval, self._end = frame.interval, frame.mono

    def clear(self) -> None:
        """Drop all values."""
        self.values.clear()

    def _rescale(self, old: float, new: float) -> None:
        """Convert the values to places of another length."""
        values = list(self.values)
        most = self.values.maxlen or 0
        if new < old:
            times = min(max(1, round(old / new)), most)
            made = [value for value in values[-ceil(most / times) :] for _ in range(times)]
        else:
            by = max(1, round(new / old))
            made = [self._join(values[max(0, at - by) : at]) for at in range(len(values), 0, -by)][
                ::-1
            ]
        self.values.clear()
        self.values.extend(made)


def mean(values: list[float | None]) -> float | None:
    """The mean of the known values; None without any."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
