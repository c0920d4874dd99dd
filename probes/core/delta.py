# SPDX-License-Identifier: Apache-2.0
"""Rates, shares and percentiles: what two Samples say about the time between them.

Everything here is pure. `before` is None, or of another generation, when counting began in
this interval: then all that `after` holds counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from probes.core import histogram
from probes.core.changes import changed
from probes.core.frame import Frame
from probes.core.peak_values import since
from probes.core.sample import Counts, Histogram

K = TypeVar("K")


SHORTEST = 1e-3
"""Seconds between two Frames at least, for them to be an interval."""


_NEW = tuple.__new__


def seconds_between(before: Frame | None, after: Frame) -> float:
    """The measured length of the interval that ends with `after`, in seconds.

    Rates divide by it: Frames of a recording may be any fraction of a second apart.
    """
    if before is None or after.mono - before.mono < SHORTEST:
        return after.interval
    return after.mono - before.mono


def count_delta(before: Mapping[K, Counts], after: Mapping[K, Counts]) -> dict[K, Counts]:
    """What was added per key; keys that did not change are absent."""
    delta: dict[K, Counts] = {}
    for key, old, new in changed(before, after):
        if old is None or new[0] < old[0]:  # forgotten and back: it counts from zero
            delta[key] = new
        elif old != new:
            delta[key] = _NEW(Counts, (new[0] - old[0], new[1] - old[1]))
    return delta


def int_delta(before: Mapping[K, int], after: Mapping[K, int]) -> dict[K, int]:
    """As `count_delta`, for plain numbers."""
    known = before.get
    return {key: new - old for key, new in after.items() if new != (old := known(key, 0))}


def histogram_delta(before: Histogram | None, after: Histogram) -> Histogram:
    """The durations that ended in the interval."""
    if before is None or after.n < before.n:
        return after
    if before is after:
        return Histogram({}, 0, 0)
    buckets = int_delta(before.buckets, after.buckets)
    peaks = since(after.peaks, before.n)
    return Histogram(buckets, after.n - before.n, after.total - before.total, peaks)


def percentiles(
    spent: Histogram, fractions: Sequence[float], longest: float | None
) -> list[float | None]:
    """Percentiles of durations, which are known to a bucket; none is above the longest."""
    found = histogram.percentiles(spent.buckets, fractions)
    if longest is None:
        return list(found)
    return [None if value is None else min(value, longest) for value in found]
