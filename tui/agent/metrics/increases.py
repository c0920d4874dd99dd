# SPDX-License-Identifier: Apache-2.0
"""What was counted between two Samples, never below zero: counters of Prometheus only rise.

`probes.core.delta` makes the differences. Here whatever counts fewer than before is taken to have
begun anew, also where only a part of a number did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from probes.core.changes import changed
from probes.core.delta import histogram_delta
from probes.core.sample import Counts, Histogram

K = TypeVar("K")


def more(before: int | None, after: int) -> int:
    """By how much a number rose; all of it where it began anew."""
    return after if before is None or after < before else after - before


def more_of(before: Mapping[K, int], after: Mapping[K, int]) -> Iterator[tuple[K, int]]:
    """By how much each number rose, of those that did."""
    for key, old, new in changed(before, after):
        risen = more(old, new)
        if risen:
            yield key, risen


def more_counts(
    before: Mapping[K, Counts], after: Mapping[K, Counts]
) -> Iterator[tuple[K, int, int]]:
    """Calls and errors of each key that has more of them."""
    for key, old, new in changed(before, after):
        n, errors = new
        if old is not None and n >= old[0]:
            n -= old[0]
            errors = max(0, errors - old[1])
        if n or errors:
            yield key, n, errors


def more_spent(before: Histogram | None, after: Histogram) -> Histogram:
    """The durations that came in; all of `after` where any of its numbers fell."""
    risen = histogram_delta(before, after)
    if risen.total < 0 or any(n < 0 for n in risen.buckets.values()):
        return after
    return risen
