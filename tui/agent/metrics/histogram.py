# SPDX-License-Identifier: Apache-2.0
"""Histograms for Prometheus: classic buckets and native ones, both from those of
`probes.core.histogram`.

Counts are kept by HDR bucket, 32 a power of two, and put into the buckets of Prometheus when
somebody asks. A duration's HDR bucket that lies on both sides of a bound goes to the upper side:
`le="0.01"` counts only what surely took no longer, so that no quantile and no share of fast calls
looks better than it was, and is at most 3 % of its bound too strict. A value's HDR bucket goes
where its lowest value belongs: sizes are mostly powers of two, which begin an HDR bucket, and
`le="4096"` must count those of 4096.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from probes.core import histogram

SCHEMA = 3
"""Native buckets grow by 2 ** (1 / 8), 9 %: coarser than HDR's, so that counts stay right."""
ZERO_THRESHOLD = 2.0**-128
"""Only zero itself is below it; the same for ever, for histograms that differ cannot be added."""

_STEPS = ("1", "2.5", "5")
SECONDS = (*[float(f"{step}e{power}") for power in range(-7, 1) for step in _STEPS], 10.0)
"""Bounds of durations, in seconds: 100 ns (system calls, small functions) to 10 s (waiting).

Three in a decade, round numbers: objectives are written with them ("99 % below 10 ms"), and
a quantile between two of them is off by 2.5 times at most.
"""
VALUES = tuple(float(4**power) for power in range(20))
"""Bounds of values of no unit (sizes, lengths, counts): powers of four, 1 to 2.7e11."""


class Span(NamedTuple):
    """A run of native buckets: how many are left out before it (of the first: its index)."""

    offset: int
    length: int


class Native(NamedTuple):
    """Buckets of a native histogram of SCHEMA; `deltas` are each bucket's count less the last's."""

    zero: int
    spans: Sequence[Span]
    deltas: Sequence[int]


class Layout:
    """Where each HDR bucket goes: `classic` is an index of `bounds`, `native` a bucket's index.

    Durations are nanoseconds and become seconds.
    """

    def __init__(self, bounds: Sequence[float], scale: float, upper: bool) -> None:
        self.bounds, self.scale = bounds, scale
        self._upper = upper

    def _value(self, bucket: int) -> float:
        low, high = histogram.bounds(bucket)
        return (high - 1 if self._upper else low) / self.scale

    @cached_property
    def classic(self) -> list[int]:
        """The first bound that is not below, by HDR bucket."""
        return [
            bisect_left(self.bounds, self._value(bucket)) for bucket in range(histogram.BUCKETS)
        ]

    @cached_property
    def native(self) -> list[int]:
        """The native bucket, by HDR bucket; that of zero is not to be used."""
        return [0] + [native_index(self._value(bucket)) for bucket in range(1, histogram.BUCKETS)]


def native_index(value: float) -> int:
    """The index of the native bucket of SCHEMA that a value above 0 is in.

    Bucket i ends with 2 ** (i / 8), which is part of it.
    """
    index: int = math.ceil(math.log2(value) * 2**SCHEMA)
    # A power of two must not be off by the logarithm's last digit.
    below: float = 2 ** ((index - 1) / 2**SCHEMA)
    return index - 1 if below >= value else index


DURATIONS = Layout(SECONDS, 1e9, upper=True)
PLAIN = Layout(VALUES, 1, upper=False)


class Spread:
    """Durations (or values) that only become more; `sum` in seconds (or as they are)."""

    __slots__ = ("buckets", "count", "layout", "total")

    def __init__(self, layout: Layout = DURATIONS) -> None:
        self.layout = layout
        self.buckets: dict[int, int] = {}
        self.count = 0
        self.total = 0

    def add(self, buckets: Mapping[int, int], total: int) -> None:
        """Count more, by HDR bucket; `total` is their sum in ns, or as they are."""
        known = self.buckets
        for bucket, n in buckets.items():
            bucket = min(max(bucket, 0), histogram.BUCKETS - 1)
            known[bucket] = known.get(bucket, 0) + n
            self.count += n
        self.total += total

    @property
    def sum(self) -> float:
        """The sum, in seconds or as it is."""
        return self.total / self.layout.scale

    def classic(self) -> list[tuple[float, int]]:
        """Each bound, and how many were not above it."""
        counts = [0] * (len(self.layout.bounds) + 1)
        place = self.layout.classic
        for bucket, n in self.buckets.items():
            counts[place[bucket]] += n
        found, seen = [], 0
        for bound, n in zip(self.layout.bounds, counts, strict=False):
            seen += n
            found.append((bound, seen))
        return found

    def native(self) -> Native:
        """The same as a native histogram."""
        counts: dict[int, int] = {}
        place = self.layout.native
        for bucket, n in self.buckets.items():
            if bucket:
                counts[place[bucket]] = counts.get(place[bucket], 0) + n
        return Native(self.buckets.get(0, 0), *_spans(counts))


def _spans(counts: Mapping[int, int]) -> tuple[list[Span], list[int]]:
    """Runs of buckets that are not empty, and the differences of their counts."""
    spans: list[Span] = []
    deltas: list[int] = []
    end, last = 0, 0
    for index in sorted(counts):
        if spans and index == end:
            spans[-1] = Span(spans[-1].offset, spans[-1].length + 1)
        else:
            spans.append(Span(index - end, 1))
        deltas.append(counts[index] - last)
        end, last = index + 1, counts[index]
    return spans, deltas
