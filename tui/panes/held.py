# SPDX-License-Identifier: Apache-2.0
"""Keeps the last estimate of a target that is attached in bursts until the next estimate.

A short interval may contain no burst; the pane then shows the newest burst's result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from probes.core.estimates import duty_between
from probes.core.sample import Estimate
from probes.latency.sample import LatencySample, Target

LONGEST = 8.0
"""Seconds that an estimate stays valid; bursts come more often than that."""


class _Before(NamedTuple):
    """A target's state before its newest bursts, and the time when those appeared."""

    at: float
    target: Target
    processes: Mapping[Any, Estimate]
    texts: Mapping[Any, Estimate]


class Held:
    """Each target's state before its newest bursts."""

    def __init__(self) -> None:
        self._before: dict[str, _Before] = {}

    def clear(self) -> None:
        """Drop all states."""
        self._before.clear()

    def before(self, was: LatencySample, sample: LatencySample, now: float) -> LatencySample:
        """Return `was` with each target that has had no burst since then replaced by its earlier
        state.

        `now` is the monotonic time of `sample` in seconds.
        """
        older: list[tuple[str, _Before]] = []
        for spec, target in sample.targets.items():
            old = was.targets.get(spec)
            if target.duty is None or old is None or old.began != target.began:
                self._before.pop(spec, None)
                continue
            kept = self._before.get(spec)
            if duty_between(old.duty, target.duty) is not None:
                tables = (was.estimated_processes, was.estimated_texts)
                self._before[spec] = _Before(now, old, *(_of(spec, one) for one in tables))
            elif kept is not None and 0 <= now - kept.at <= LONGEST and _goes_on(kept, target):
                older.append((spec, kept))
        if not older:
            return was
        specs = {spec for spec, _ in older}
        return replace(
            was,
            targets={**was.targets, **{spec: kept.target for spec, kept in older}},
            estimated_processes=_instead(
                was.estimated_processes, specs, [kept.processes for _, kept in older]
            ),
            estimated_texts=_instead(was.estimated_texts, specs, [kept.texts for _, kept in older]),
        )


def _goes_on(kept: _Before, target: Target) -> bool:
    """True if the same target has had further bursts: its time and counts have not decreased."""
    same = kept.target.began == target.began
    return same and duty_between(kept.target.duty, target.duty) is not None


def _of(spec: str, table: Mapping[Any, Estimate]) -> Mapping[Any, Estimate]:
    return {key: n for key, n in table.items() if key[0] == spec}


def _instead(
    table: Mapping[Any, Estimate], specs: set[str], kept: list[Mapping[Any, Estimate]]
) -> dict[Any, Estimate]:
    """Return a table with the older rows of these targets."""
    out = {key: n for key, n in table.items() if key[0] not in specs}
    for rows in kept:
        out |= rows
    return out
