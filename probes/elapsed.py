# SPDX-License-Identifier: Apache-2.0
"""For how many seconds of an interval a probe, or one of its targets, counted.

A probe that is attached in the middle of an interval counts for a part of it only: rates are of
that part.
"""

from __future__ import annotations

from probes.samples import Sample, Target

SHORTEST = 1e-3
"""Seconds that a rate divides by at least."""


def counted_seconds(before: Sample | None, after: Sample, passed: float) -> float:
    """For how many of the `passed` seconds the probe counted what `after` has and `before` not.

    Without `before`, or with one of another generation, that is all the time since it was
    attached. It is `passed` where that is not known, as in recordings of earlier versions.
    """
    old = _old(before, after)
    return counted_part(old.counted if old else 0.0, after.counted, passed)


def counted_part(before: float | None, after: float | None, passed: float) -> float:
    """The same by the seconds for which a probe had counted, None where they are not known."""
    if before is None or after is None:
        return passed
    return max(after - before, SHORTEST)


def target_seconds(before: Sample | None, after: Sample, target: Target, passed: float) -> float:
    """The same for one target of `after`, which may have been attached later than the probe."""
    seconds = counted_seconds(before, after, passed)
    return target_part(target.began, after.counted, seconds)


def target_part(began: float, counted: float | None, seconds: float) -> float:
    """The same by when it began, in seconds for which the probe had counted."""
    return seconds if counted is None else max(min(seconds, counted - began), SHORTEST)


def _old(before: Sample | None, after: Sample) -> Sample | None:
    """`before`, where counting went on since."""
    same = before is not None and before.generation == after.generation
    return before if same and before is not None and before.state == "on" else None
