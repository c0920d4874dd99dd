# SPDX-License-Identifier: Apache-2.0
"""Medians, and between which values they lie: no distribution is assumed.

Of n independent values the k-th lowest and the k-th highest enclose the true median, unless fewer
than k of them fell on one of its sides: a matter of n coins (order statistics; David and Nagaraja,
Order Statistics, section 7.1). Measurements have long tails, which a mean and its standard error
would follow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A median, and two values that enclose the true one with a probability of `confidence`."""

    median: float
    low: float
    high: float
    confidence: float


def of_median(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """The narrowest interval of at least this confidence.

    Fewer than six values have none of 95 %: it is from the lowest to the highest then, and
    `confidence` says how little that is. Raises ValueError for no values.
    """
    if not values:
        raise ValueError("a median needs values")
    ordered, many = sorted(values), len(values)
    rank, missed = 0, 1 / 2**many
    for below in range(1, (many + 1) // 2):
        more = missed + math.comb(many, below) / 2**many
        if 1 - 2 * more < confidence:
            break
        rank, missed = below, more
    return Interval(median(ordered), ordered[rank], ordered[-1 - rank], 1 - 2 * missed)


def heading(values: int) -> str:
    """The name of a column of intervals over so many values."""
    return f"{100 * of_median(range(values)).confidence:.0f} % interval"
