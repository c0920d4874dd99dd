# SPDX-License-Identifier: Apache-2.0
"""What two Samples of latency targets say about the time between them: rates and percentiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

from probes.core.changes import changed
from probes.core.delta import histogram_delta, percentiles
from probes.core.elapsed import SHORTEST, counted_seconds, going_on, target_part
from probes.core.estimates import duty_between, estimate_delta, standard_error
from probes.core.peak_values import maximum
from probes.core.process_keys import pid_of
from probes.core.sample import NO_HISTOGRAM, NOT_ESTIMATED, Duty, Estimate, Histogram, Sample
from probes.latency.sample import LatencySample, Spent, Target


def target_spent(before: LatencySample | None, after: LatencySample) -> dict[str, Histogram]:
    """The durations that ended between two Samples, by target: none while it does not run."""
    same = before is not None and before.generation == after.generation
    old = before.targets if before is not None and same else {}
    return {
        spec: _spent(old.get(spec), target) if target.state == "on" else NO_HISTOGRAM
        for spec, target in after.targets.items()
    }


def restarted(before: Target, after: Target) -> bool:
    """Whether a target was removed and added again between two Samples: it counts from zero."""
    return before.began != after.began or before.histogram.n > after.histogram.n


def _spent(before: Target | None, after: Target) -> Histogram:
    if after.counts_only:
        return NO_HISTOGRAM
    old = before if before is not None and not restarted(before, after) else None
    exact = histogram_delta(old.histogram if old else None, after.histogram)
    return with_bursts(exact, old, after)


def with_bursts(exact: Histogram, old: Target | None, new: Target) -> Histogram:
    """Durations that were counted, with those in bursts as often as there were such calls."""
    seen = histogram_delta(old.in_bursts if old else None, new.in_bursts)
    more = estimated_calls(old, new).n
    if not seen.n or not more:
        return exact
    times = more / seen.n
    buckets = dict(exact.buckets)
    for bucket, n in seen.buckets.items():
        buckets[bucket] = buckets.get(bucket, 0) + max(1, round(n * times))
    n, total = sum(buckets.values()), exact.total + round(seen.total * times)
    return Histogram(buckets, n, total)


def estimated_calls(old: Target | None, new: Target) -> Estimate:
    """The calls that the bursts between two states of a target stand for."""
    before = {0: old.estimated} if old is not None else {}
    return estimate_delta(before, {0: new.estimated}).get(0, NOT_ESTIMATED)


K = TypeVar("K")
_NEW = tuple.__new__


@dataclass(slots=True)
class TargetRow:
    """One latency target in an interval; durations in ns, None where there were none.

    `target` is the cumulative one, `seconds` for how many it counted. `count` is None while the
    target does not run, `spent`
    holds the interval's durations, `total` is their sum. `missed` and `overflow` are calls
    of the interval whose duration is not known. Where the maximum is not `exact`, no duration
    exceeds it. Of a target that is attached in bursts (`duty` are those of the interval), `count`
    is None where none of them is in the interval, else `estimated` of it are what they stand for,
    with the standard `error`; the maximum is only the longest that they saw.
    """

    target: Target
    count: int | None = None
    spent: Histogram = NO_HISTOGRAM
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    p999: float | None = None
    maximum: float | None = None
    exact: bool | None = None
    mean: float | None = None
    total: int | None = None
    missed: int = 0
    overflow: int = 0
    seconds: float = 1.0
    duty: Duty | None = None
    estimated: int = 0
    error: float | None = None


@dataclass(slots=True)
class SpentRow:
    """One process behind a target in an interval; `total` ns, None if only counted.

    `number` tells it from others with the same pid (see `probes.core.process_keys`). Where calls
    are told apart by a text, it is None and `comm` the text; where values are measured, `total` is
    their sum. `estimated` of the calls are what bursts stand for, with the standard `error`; how
    long those took in all is not known.
    """

    number: int | None
    comm: str
    count: int
    total: int | None
    estimated: int = 0
    error: float | None = None

    @property
    def pid(self) -> int | None:
        """The process id."""
        return None if self.number is None else pid_of(self.number)

    @property
    def mean(self) -> float | None:
        """The mean duration of its calls, in ns."""
        return None if self.total is None or not self.count else self.total / self.count


@dataclass
class LatencyView:
    """All latency targets in one interval of `seconds`, in the order of adding.

    What is behind them is computed when somebody asks for it.
    """

    seconds: float
    targets: list[TargetRow]
    before: LatencySample
    after: LatencySample

    @cached_property
    def processes(self) -> dict[tuple[str, int], Spent]:
        """Calls and the time in them, by target and process."""
        return spent_delta(self.before.processes, self.after.processes)

    @cached_property
    def texts(self) -> dict[tuple[str, str], Spent]:
        """Calls and the time in them, by target and text."""
        return spent_delta(self.before.texts, self.after.texts)

    @property
    def count(self) -> int:
        """Calls of all targets."""
        return sum([row.count or 0 for row in self.targets])

    @property
    def rate(self) -> float:
        """Calls of all targets a second."""
        return sum([(row.count or 0) / row.seconds for row in self.targets])

    @cached_property
    def spread(self) -> dict[tuple[str, int | str], Estimate]:
        """Calls that bursts stand for, by target and process, or text."""
        before: dict[Any, Estimate] = {**self.before.estimated_processes}
        after: dict[Any, Estimate] = {**self.after.estimated_processes}
        before |= self.before.estimated_texts
        after |= self.after.estimated_texts
        return estimate_delta(before, after)

    def unlisted(self, row: TargetRow) -> int:
        """Calls of a target by processes, or with texts, that have no row."""
        return max(0, (row.count or 0) - sum([one.count for one in self.behind(row.target.spec)]))

    def behind(self, spec: str) -> list[SpentRow]:
        """Who called this target (or with which text), longest in it first."""
        row = next((row for row in self.targets if row.target.spec == spec), None)
        timed = row is not None and not row.target.counts_only
        duty = row.duty if row is not None else None
        found: dict[int | str, Spent] = {
            who: n
            for table in (self.processes, self.texts)
            for (of, who), n in table.items()
            if of == spec
        }
        spread = {who: n for (of, who), n in self.spread.items() if of == spec and n.n}
        rows = []
        for who in [*found, *[who for who in spread if who not in found]]:
            exact, more = found.get(who, Spent(0, 0)), spread.get(who)
            number = None if isinstance(who, str) else who
            name = who if isinstance(who, str) else self.after.comms.get(who, "?")
            made = SpentRow(number, name, exact.n, exact.total if timed and not more else None)
            if more is not None:
                made.count += more.n
                made.estimated = more.n
                made.error = standard_error(more.n, more.variance, duty)
            rows.append(made)
        return sorted(
            rows, key=lambda row: (-(row.total or 0), -row.count, row.number or 0, row.comm)
        )


def _target_row(before: Target | None, after: Target, seconds: float) -> TargetRow:
    row = TargetRow(after, seconds=seconds)
    if after.state != "on":
        return row
    if before is not None and restarted(before, after):
        before = None
    exact = histogram_delta(before.histogram if before else None, after.histogram)
    row.missed = max(0, after.missed - (before.missed if before else 0))
    row.overflow = max(0, after.overflow - (before.overflow if before else 0))
    if after.duty is not None:
        row.duty = duty_between(before.duty if before else None, after.duty)
        if row.duty is None and not exact.n:
            return row
    more = estimated_calls(before, after)
    row.count, row.estimated = exact.n + more.n, more.n
    row.error = standard_error(more.n, more.variance, row.duty)
    spent = with_bursts(exact, before, after)
    if after.counts_only or not spent.n:
        return row
    row.spent = spent
    fractions = (0.50, 0.90, 0.99, 0.999)
    row.maximum, row.exact = maximum(spent)
    if row.duty is not None:
        seen = histogram_delta(before.in_bursts if before else None, after.in_bursts)
        longest = [maximum(one)[0] or 0 for one in (exact, seen)]
        row.maximum, row.exact = max(longest), False
    row.p50, row.p90, row.p99, row.p999 = percentiles(spent, fractions, row.maximum)
    row.mean = spent.total / spent.n
    row.total = spent.total
    return row


def spent_delta(before: Mapping[K, Spent], after: Mapping[K, Spent]) -> dict[K, Spent]:
    """As `count_delta`, for calls and the time in them."""
    delta: dict[K, Spent] = {}
    for key, old, new in changed(before, after):
        if old is None or new[0] < old[0]:  # forgotten and back: it counts from zero
            delta[key] = new
        elif old != new:
            delta[key] = _NEW(Spent, (new[0] - old[0], new[1] - old[1]))
    return delta


def continued(before: LatencySample, after: LatencySample) -> LatencySample:
    """`before` without the rows of targets that were removed and added again since."""
    again = {
        spec
        for spec, target in after.targets.items()
        if (old := before.targets.get(spec)) is not None and restarted(old, target)
    }
    if not again:
        return before
    return replace(
        before,
        processes={key: n for key, n in before.processes.items() if key[0] not in again},
        texts={key: n for key, n in before.texts.items() if key[0] not in again},
        estimated_processes={
            key: n for key, n in before.estimated_processes.items() if key[0] not in again
        },
        estimated_texts={
            key: n for key, n in before.estimated_texts.items() if key[0] not in again
        },
    )


def latency_view(before: LatencySample | None, after: LatencySample, seconds: float) -> LatencyView:
    """The interval between two Samples."""
    if before is None or before.generation != after.generation:
        before = LatencySample(generation=after.generation)
    before = continued(before, after)
    return LatencyView(
        seconds=seconds,
        targets=[
            _target_row(before.targets.get(spec), t, target_seconds(before, after, t, seconds))
            for spec, t in after.targets.items()
        ],
        before=before,
        after=after,
    )


def target_seconds(before: Sample | None, after: Sample, target: Target, passed: float) -> float:
    """The same for one target of `after`, which may have been attached later than the probe."""
    seconds = counted_seconds(before, after, passed)
    old = going_on(before, after)
    was = old.targets.get(target.spec) if isinstance(old, LatencySample) else None
    bursts = duty_between(was.duty if was else None, target.duty)
    if bursts is not None:
        if target.histogram.n == (was.histogram.n if was else 0):
            return max(bursts.seconds, SHORTEST)
        # A target's `counted` goes on while others count: what is exact is the rest at most.
        return max(seconds, bursts.seconds)
    return target_part(target.began, after.counted, seconds)
