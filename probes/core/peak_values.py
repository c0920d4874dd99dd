# SPDX-License-Identifier: Apache-2.0
"""The longest duration of a Histogram, exactly: its peaks, how they add up, and the maximum.

A Histogram's peaks tell of each of its readings the longest duration, under the number of
durations there were then, as far as no later one is longer: the first that is behind a number
is the longest of all since. So two Samples give the maximum of the time between them, however
many were read meanwhile. `probes.bpf.peaks` reads them from the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from probes.core import histogram
from probes.core.sample import Histogram

MOST = 40
"""Peaks of a histogram at most; a day of readings has about twelve, unless durations fall."""


def with_peak(peaks: Mapping[int, int], n: int, value: int) -> Mapping[int, int]:
    """The peaks after one more reading, with `n` durations in all; 0 where its own is not known."""
    if not value:
        return peaks
    kept = {at: peak for at, peak in peaks.items() if peak > value}
    kept[n] = value
    if len(kept) > MOST:
        # Where the next one is in another bucket, it cannot be taken for the one that is missing.
        pairs = pairwise(kept.items())
        apart = (at for (at, a), (_, b) in pairs if histogram.index(a) != histogram.index(b))
        del kept[next(apart, next(iter(kept)))]
    return kept


def since(peaks: Mapping[int, int], n: int) -> dict[int, int]:
    """The peaks of what came behind the first `n` durations."""
    return {at - n: peak for at, peak in peaks.items() if at > n}


def joined(first: Histogram, then: Histogram) -> Mapping[int, int]:
    """The longest of the durations of both, as the peaks of their sum; empty if not known."""
    tops = [_top(one) for one in (first, then)]
    highest = max(tops)
    found = [
        _peak(one, top) for one, top in zip((first, then), tops, strict=True) if top == highest
    ]
    return {first.n + then.n: max(found)} if all(found) else {}


def maximum(spent: Histogram) -> tuple[float | None, bool | None]:
    """The longest duration in ns, and whether it is exact, else the least bound that is known."""
    top = _top(spent)
    peak = _peak(spent, top)
    if peak:
        return peak, True
    bound = histogram.maximum(spent.buckets, spent.total)
    if bound is None:
        return None, None
    low, high = histogram.bounds(top)
    single = spent.n == 1 and histogram.index(spent.total) == top
    return bound, single or (high - low == 1 and top != histogram.LAST)


def _top(spent: Histogram) -> int:
    """The highest bucket with a duration; -1 if there is none."""
    return max([bucket for bucket, n in spent.buckets.items() if n > 0], default=-1)


def _peak(spent: Histogram, top: int) -> int:
    """The first of its peaks, 0 if there is none or it is not the longest."""
    peak = spent.peaks[min(spent.peaks)] if spent.peaks else 0
    return peak if histogram.index(peak) == top else 0
