# SPDX-License-Identifier: Apache-2.0
"""A logarithmic axis of durations or values: the position of a bucket, and the labels.

Positions count quarters of a power of two from 1 ns (or 1): 1 us (1000 ns) is at 39.9.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import log2
from typing import NamedTuple

from probes.core import histogram

OCTAVE = 4
"""Positions per power of two."""
LEAST = 4 * OCTAVE
"""The shortest axis in positions: four powers of two, which leaves space for a label or two."""
SLACK = 2 * OCTAVE
"""Unused positions at one end that the axis tolerates before it changes."""
_SECOND = 10**9
_UNITS = (("ns", 1), ("us", 10**3), ("ms", 10**6))
_MAJOR = (
    *[(n * unit, f"{n}{name}") for name, unit in _UNITS for n in (1, 10, 100)],
    *[(n * _SECOND, name) for n, name in ((1, "1s"), (10, "10s"), (60, "1m"), (600, "10m"))],
    (3600 * _SECOND, "1h"),
)
_MINOR = (
    *[(n * unit, f"{n}{name}") for name, unit in _UNITS for n in (2, 5, 20, 50, 200, 500)],
    *[(n * _SECOND, name) for n, name in ((2, "2s"), (5, "5s"), (20, "20s"), (30, "30s"))],
    *[(n * 60 * _SECOND, name) for n, name in ((2, "2m"), (5, "5m"), (20, "20m"), (30, "30m"))],
    (7200 * _SECOND, "2h"),
    (4 * 3600 * _SECOND, "4h"),
)
_PREFIXES = ("", "k", "M", "G", "T")
_VALUES = tuple(
    [
        (n * 10**power, f"{n * 10 ** (power % 3)}{_PREFIXES[power // 3]}")
        for power in range(14)
        for n in (1, 2, 5)
    ]
)


@cache
def edges() -> tuple[float, ...]:
    """The position of each bucket's lower end, and of the last bucket's upper end."""
    lows = [histogram.bounds(bucket)[0] for bucket in range(histogram.BUCKETS)]
    ends = [*lows, histogram.bounds(histogram.BUCKETS - 1)[1]]
    return tuple([OCTAVE * log2(max(1, low)) for low in ends])


@cache
def quarters() -> tuple[int, ...]:
    """The integer position of each bucket's middle."""
    ends = edges()
    return tuple([int((ends[at] + ends[at + 1]) / 2) for at in range(histogram.BUCKETS)])


class Scale(NamedTuple):
    """An axis from position `low` to below `high`; `unit` is "" for plain values."""

    low: int
    high: int
    unit: str = "ns"

    def place(self, duration: float, cells: int) -> int:
        """The cell of a duration in ns (or a value) on an axis of `cells` cells."""
        part = (OCTAVE * log2(max(1.0, duration)) - self.low) / (self.high - self.low)
        return max(0, min(cells - 1, int(part * cells)))

    def labels(self, cells: int, gap: int = 0) -> list[tuple[int, str]]:
        """Round durations or values as (cell, text), as many as fit.

        With a `gap`, the texts stand along the axis with that many blanks between them; without it,
        they stand across the axis and need two cells each.
        """
        major, minor = (_MAJOR, _MINOR) if self.unit else (_VALUES[::3], _VALUES)
        for marks in (sorted({*major, *minor}), major, major[::2]):
            found = self._within(marks, cells)
            if _apart(found, gap) == found:
                return found
        return _apart(self._within(major, cells), gap)

    def _within(
        self, marks: tuple[tuple[int, str], ...] | list[tuple[int, str]], cells: int
    ) -> list[tuple[int, str]]:
        return [
            (self.place(value, cells), text)
            for value, text in marks
            if self.low <= OCTAVE * log2(value) < self.high
        ]


def _apart(labels: list[tuple[int, str]], gap: int) -> list[tuple[int, str]]:
    """The labels that do not overlap, starting with the first."""
    out: list[tuple[int, str]] = []
    for cell, text in labels:
        needed = (len(out[-1][1]) + gap if gap else 2) if out else 0
        if not out or cell - out[-1][0] >= needed:
            out.append((cell, text))
    return out


def settle(before: Scale | None, low: int, high: int, unit: str = "ns") -> Scale:
    """An axis for the positions from `low` to below `high`, in whole powers of two.

    It stays equal to `before` while that fits and wastes little, because an axis that moves with
    every duration is hard to read.
    """
    low = low // OCTAVE * OCTAVE
    high = -(-high // OCTAVE) * OCTAVE
    if before is not None:
        under, over = low - before.low, before.high - high
        if 0 <= under <= SLACK and 0 <= over <= SLACK:
            return before
    lack = LEAST - (high - low)
    if lack > 0:
        low = max(0, low - lack // (2 * OCTAVE) * OCTAVE)
        high = low + LEAST
    return Scale(low, high, unit)


def spread(buckets: Mapping[int, int], scale: Scale, cells: int) -> list[float]:
    """Counts by cell; a bucket across several cells is divided in proportion to its length."""
    out = [0.0] * cells
    ends = edges()
    size = cells / (scale.high - scale.low)
    for bucket, count in buckets.items():
        start = (ends[bucket] - scale.low) * size
        end = (ends[bucket + 1] - scale.low) * size
        first = max(0, min(cells - 1, int(start)))
        last = max(first, min(cells - 1, int(end)))
        if first == last or end <= start:
            out[first] += count
            continue
        for cell in range(first, last + 1):
            part = (min(end, cell + 1) - max(start, cell)) / (end - start)
            out[cell] += count * max(0.0, part)
    return out
