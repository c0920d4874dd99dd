# SPDX-License-Identifier: Apache-2.0
"""What bursts stand for: estimates of counts, and how far off they may be.

A probe that costs too much is attached in bursts, one in each of many equal periods, at a moment
in it that is drawn by lot. Of the n bursts of a span, each with its count y and the seconds t for
which it was attached, the ratio estimator for a span of T seconds is

    N = T * sum(y) / sum(t)
    v(N) = T^2 * (1 - f) / (n * mean(t)^2) * sum((y - R * t)^2) / (n - 1)
    with R = sum(y) / sum(t) and f = sum(t) / T

(W. G. Cochran, Sampling Techniques, 3rd edition, chapter 6: the ratio estimator and its estimated
variance, with the finite population correction). The variance is taken to be no less than that of
counting each event with the probability f, sum(y) * (1 - f) / f^2: rows that few bursts saw do
not look certain because each of them had one event. Spans are disjoint, so that their estimates
and variances add up, and the difference of two Samples has those of any window.

Of few bursts the variance is uncertain itself: an interval of confidence takes Student's t with
n - 1 degrees of freedom. Attaching and detaching takes time, within which nobody knows whether
events counted already: that is the same for all rows, and is added to the error of each.

What bursts cannot tell: what happens in none of them, and what is of a period so long that few
bursts are spread over it. Both need a longer window. Where an interval of confidence begins at
zero, nothing is told of how far off the estimate is (`known_error`).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import hypot, pi, sqrt, tan
from operator import add
from statistics import NormalDist
from typing import TypeVar

from probes.core.sample import (
    NONE_ESTIMATED,
    NOT_ESTIMATED,
    Counts,
    Duty,
    Estimate,
    Estimates,
    Sample,
)

K = TypeVar("K")
V = TypeVar("V", Estimate, Estimates)
NO_DUTY = Duty()
CONFIDENCE = 0.95
"""How often an interval of confidence has the true count."""
FEWEST = 4
"""Bursts from which one span is estimated at least; until there are so many nothing is known."""
MOST_ERROR = 2.0**80
"""Standard errors are not larger: no count is."""
_Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)


def duty_between(before: Duty | None, after: Duty | None) -> Duty | None:
    """The bursts between two moments; None where there were none."""
    if after is None or after.bursts <= (before or NO_DUTY).bursts:
        return None
    old = before or NO_DUTY
    return Duty(
        after.bursts - old.bursts,
        after.on - old.on,
        after.seconds - old.seconds,
        max(0.0, after.edges - old.edges),
        max(0, after.freedom - old.freedom),
    )


def duty_of(before: Sample | None, after: Sample) -> Duty | None:
    """The bursts of a probe between two Samples; those since the beginning without the first."""
    same = before is not None and before.generation == after.generation
    return duty_between(before.duty if before is not None and same else None, after.duty)


def estimate_delta(before: Mapping[K, Estimate], after: Mapping[K, Estimate]) -> dict[K, Estimate]:
    """What the bursts between two Samples stand for, by key."""
    return {
        key: Estimate(*_less(new, before.get(key, NOT_ESTIMATED)))
        for key, new in after.items()
        if before.get(key) is not new and before.get(key) != new
    }


def estimates_delta(
    before: Mapping[K, Estimates], after: Mapping[K, Estimates]
) -> dict[K, Estimates]:
    """As `estimate_delta`, for calls and errors."""
    return {
        key: Estimates(*_less(new, before.get(key, NONE_ESTIMATED)))
        for key, new in after.items()
        if before.get(key) is not new and before.get(key) != new
    }


def _less(new: tuple[int, ...], old: tuple[int, ...]) -> list[int]:
    """Each number's increase; all of the newer where it was forgotten and begins anew."""
    if new[0] < old[0] or new[-1] < old[-1]:
        return list(new)
    return [max(0, a - b) for a, b in zip(new, old, strict=True)]


def add_duty(total: Duty | None, more: Duty | None) -> Duty | None:
    """The bursts of two spans together."""
    if total is None or more is None:
        return total or more
    return Duty(
        total.bursts + more.bursts,
        total.on + more.on,
        total.seconds + more.seconds,
        total.edges + more.edges,
        total.freedom + more.freedom,
    )


def add_all(total: dict[K, V], more: Mapping[K, V]) -> None:
    """Add estimates of other spans up, key by key: they are independent, so variances add up."""
    for key, new in more.items():
        old = total.get(key)
        total[key] = new if old is None else type(new)(*map(add, old, new))


def with_estimates(
    exact: Mapping[K, Counts], estimated: Mapping[K, Estimates]
) -> Mapping[K, Counts]:
    """What was counted and what bursts stand for in one; the very same if there are no bursts."""
    if not estimated:
        return exact
    out = dict(exact)
    for key, more in estimated.items():
        old = out.get(key)
        out[key] = Counts(more.n + (old.n if old else 0), more.errors + (old.errors if old else 0))
    return out


def standard_error(n: float, variance: float, duty: Duty | None) -> float | None:
    """The standard error of an estimated count; None where nothing was estimated.

    What is not certain of the bursts' length is taken to be spread evenly, and to be off in all
    bursts alike: few bursts make that no more uncertain, so that of `factor` it takes only what
    it would be of many.
    """
    if duty is None:
        return None
    edges = n * duty.edges / duty.on / sqrt(12) if duty.on else 0.0
    # JSON has no infinity, and a recording may say that bursts took next to no time.
    return min(MOST_ERROR, hypot(sqrt(variance), edges * _Z / factor(duty)))


def errors_of(estimates: Estimates | None, duty: Duty | None) -> tuple[float | None, float | None]:
    """The standard errors of calls and of errors; None where nothing was estimated."""
    if estimates is None:
        return None, None
    n, errors, variance, errors_variance = estimates
    return standard_error(n, variance, duty), standard_error(errors, errors_variance, duty)


def estimate_object(
    estimates: Estimates | None, duty: Duty | None
) -> dict[str, float | int | None]:
    """How much of a row is estimated, and the standard errors; nothing where all was counted.

    An error is None where the count may be anything, see `known_error`.
    """
    error, errors_error = errors_of(estimates, duty)
    if estimates is None or error is None or errors_error is None:
        return {}
    return {
        "estimated": estimates.n,
        "error": known_error(estimates.n, error, duty),
        "errors_error": known_error(estimates.errors, errors_error, duty),
    }


def known_error(n: float, error: float | None, duty: Duty | None) -> float | None:
    """The standard error of an estimate; None where its interval of confidence begins at zero.

    Then bursts differ so much, or saw so little, that they tell neither how much there was nor,
    for their own spread is as uncertain, how far off that is.
    """
    if error is None or duty is None or factor(duty) * error >= n:
        return None
    return error


def factor(duty: Duty) -> float:
    """What a standard error is multiplied by: within so much is the count, with CONFIDENCE."""
    return student(max(1, duty.freedom))


def student(freedom: int) -> float:
    """The quantile of Student's t that CONFIDENCE of all lies below, on both sides of zero.

    Exact for one and two degrees of freedom, else the expansion of Cornish and Fisher.
    """
    if freedom == 1:
        return tan(pi * CONFIDENCE / 2)
    if freedom == 2:
        return CONFIDENCE * sqrt(2 / (1 - CONFIDENCE**2))
    z, v = _Z, float(freedom)
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
    )


def duty_object(duty: Duty | None) -> dict[str, float | int] | None:
    """`duty` of a stream object, whose rows have their standard error as `error`.

    Attached for `on` of the estimated `seconds`, in so many `bursts`. With CONFIDENCE a true
    count is within `factor` times its row's error.
    """
    if duty is None:
        return None
    return {
        "on": duty.on,
        "seconds": duty.seconds,
        "bursts": duty.bursts,
        "factor": factor(duty),
    }
