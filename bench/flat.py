# SPDX-License-Identifier: Apache-2.0
"""Whether figures that were taken over time stay where they are, or grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

FEWEST = 8
"""Fewer values than this tell nothing: there are two in a quarter then."""


class Limit(NamedTuple):
    """How much higher a figure may be in the last quarter than in the second, and its unit."""

    growth: float
    unit: str = ""


def growth(values: Sequence[float]) -> float:
    """How much higher the lowest of the last quarter is than that of the second one.

    The first quarter is for warming up: caches fill, what is used for the first time is
    imported. What is in use comes and goes with the load; what leaked never goes, so that it
    lifts the lowest value. Raises ValueError for fewer than FEWEST values.
    """
    before, after = _floors(values)
    return after - before


def _floors(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < FEWEST:
        raise ValueError(f"{len(values)} values are too few: {FEWEST} are needed")
    quarter = len(values) // 4
    return min(values[quarter : 2 * quarter]), min(values[-quarter:])


def grown(series: Mapping[str, Sequence[float]], limits: Mapping[str, Limit]) -> list[str]:
    """A line for each figure that grew by more than its limit allows."""
    lines = []
    for name, limit in limits.items():
        more = growth(series[name])
        if more > limit.growth:
            before, after = _floors(series[name])
            unit = f" {limit.unit}" if limit.unit else ""
            lines.append(
                f"{name} grew by {more:.4g}{unit}, from {before:.6g} to {after:.6g} "
                f"(allowed: {limit.growth:g}): "
                + " ".join(f"{value:.6g}" for value in series[name])
            )
    return lines
