# SPDX-License-Identifier: Apache-2.0
"""What Samples of all probes have: counts, estimates, histograms, cost, and the base class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from probes.core.limits import AtMost, Between, Bucket, Count, Share, Total, Variance
from probes.core.schema import Schema

State = Literal["on", "off", "starting", "failed"]
EMPTY: Mapping[Any, Any] = {}


class Counts(NamedTuple):
    """Cumulative number of calls, and how many of them returned an error."""

    n: Count
    errors: Count


class Duty(NamedTuple):
    """For how long a probe was attached in bursts, cumulative; see `probes.core.estimates`.

    `bursts` were measured, `on` seconds in all; they stand for `seconds`. `edges` are those of the
    `on` seconds that are not certain, for attaching takes time. `freedom` are the degrees of
    freedom of the variances: bursts, less the spans that were estimated from them.
    """

    bursts: Count = 0
    on: Share = 0.0
    seconds: Share = 0.0
    edges: Share = 0.0
    freedom: Count = 0


class Estimate(NamedTuple):
    """Cumulative estimate of a count from bursts, and the estimate's variance."""

    n: Total = 0
    variance: Variance = 0


class Estimates(NamedTuple):
    """Cumulative estimates of Counts from bursts, and the variance of each of the two."""

    n: Total = 0
    errors: Total = 0
    variance: Variance = 0
    errors_variance: Variance = 0


NOT_ESTIMATED = Estimate()
NONE_ESTIMATED = Estimates()


class Histogram(NamedTuple):
    """Cumulative log-linear histogram of durations in nanoseconds.

    `buckets` maps a bucket index (see `probes.core.histogram`) to its cumulative count; empty
    buckets are absent. `n` is their sum, `total` the summed nanoseconds. `peaks` has the longest
    ones (see `probes.bpf.peaks`), as far as they are known: recordings of earlier versions have
    none.
    """

    buckets: Mapping[Bucket, Count]
    n: Total
    total: Total
    peaks: Mapping[Total, Count] = EMPTY


NO_HISTOGRAM = Histogram({}, 0, 0)


class Cost(NamedTuple):
    """What a probe costs the machine.

    `events` is the cumulative number of events its programs counted. `ns_per_event` (one
    program run) and `cpu_percent` (of one CPU, at the present rate of events) come from the
    kernel's run-time statistics, None until they ran, and hold what it takes the kernel to
    call the programs, where that was measured; `map_bytes` is kernel memory.
    """

    events: Total = 0
    ns_per_event: float | None = None
    cpu_percent: float | None = None
    map_bytes: Count | None = None


NO_COST = Cost()


class Budget(NamedTuple):
    """What all of this may cost, and what it does, in per cent of all CPUs; None if not known.

    One Frame in `drawing` is to be drawn, for drawing costs as well. `lifted` are the seconds for
    which nothing is given up, as somebody asked for; None while it holds.
    """

    percent: Share = 0.0
    used: float | None = None
    drawing: Annotated[int, Between(1, 1000)] = 1
    lifted: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What every probe's sample has: its state, its cost, what was lost (cumulative).

    `generation` changes when counters restart from zero, so that nobody subtracts across.
    `since` are the monotonic seconds of the first Sample with which this one may be compared:
    from then on the probe was on and counted the same things; None if that is not known.
    `given_up` says what it does without to stay within the budget, None for nothing.
    `counted` is for how many seconds its counters counted, cumulative as they are; None if that
    is not known. While it is attached in bursts none of these counts: what they saw is in `duty`
    and in the fields whose names begin with `estimated`, which are never part of the others.
    `kept_on` are the seconds for which it is not detached, though it costs more than the budget,
    for somebody has just switched it on; None where it need not be.
    `schema` declares what it measures.
    """

    schema: ClassVar[Schema] = Schema()

    state: State = "off"
    why: str | None = None
    fix: str | None = None
    lost: Count = 0
    cost: Cost = NO_COST
    generation: Count = 0
    notes: Annotated[tuple[str, ...], AtMost(1000)] = ()
    since: float | None = None
    given_up: str | None = None
    counted: Share | None = None
    duty: Duty | None = None
    kept_on: Share | None = None

    def counts_as(self, before: Any) -> bool:
        """Whether it counts what `before` counted, and all of that since.

        `before` is of the same class and generation, and both are on.
        """
        return True

    def merged_after(self, older: Sample) -> Sample:
        """This sample standing for itself and for `older`, which nobody has read."""
        return self

    def without_events(self) -> Sample:
        """This sample without the events since the one before, of which nothing is counted."""
        return self

    def with_fewer_events(self) -> Sample:
        """This sample without a part of its events, the very same if it has none."""
        return self
