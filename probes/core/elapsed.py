# SPDX-License-Identifier: Apache-2.0
"""For how many seconds of an interval a probe, or one of its targets, counted.

A probe that is attached in the middle of an interval counts for a part of it only: rates are of
that part.
"""

from __future__ import annotations

from probes.core.estimates import duty_of
from probes.core.sample import Sample

SHORTEST = 1e-3
"""Seconds that a rate divides by at least."""


def counted_seconds(before: Sample | None, after: Sample, passed: float) -> float:
    """For how many of the `passed` seconds the probe counted what `after` has and `before` not.

    Without `before`, or with one of another generation, that is all the time since it was
    attached. It is `passed` where that is not known, as in recordings of earlier versions. The
    seconds that bursts stand for are among them.
    """
    old = going_on(before, after)
    bursts = duty_of(old, after)
    if bursts is None:
        return counted_part(old.counted if old else 0.0, after.counted, passed)
    if after.counted is None:
        return max(bursts.seconds, SHORTEST)
    exact = after.counted - ((old.counted or 0.0) if old else 0.0)
    return max(exact + bursts.seconds, SHORTEST)


def exact_seconds(before: Sample | None, after: Sample, passed: float) -> float:
    """For how many of these seconds it counted all that happened: not in bursts."""
    bursts = duty_of(going_on(before, after), after)
    whole = counted_seconds(before, after, passed)
    return whole if bursts is None else max(0.0, whole - bursts.seconds)


def counted_part(before: float | None, after: float | None, passed: float) -> float:
    """The same by the seconds for which a probe had counted, None where they are not known."""
    if before is None or after is None:
        return passed
    return max(after - before, SHORTEST)


def target_part(began: float, counted: float | None, seconds: float) -> float:
    """The same by when it began, in seconds for which the probe had counted."""
    return seconds if counted is None else max(min(seconds, counted - began), SHORTEST)


def going_on(before: Sample | None, after: Sample) -> Sample | None:
    """`before`, where counting went on since."""
    same = before is not None and before.generation == after.generation
    return before if same and before is not None and before.state == "on" else None
