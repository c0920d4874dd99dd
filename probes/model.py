# SPDX-License-Identifier: Apache-2.0
"""Rates, shares and percentiles: what two Samples say about the time between them.

Everything here is pure. `before` is None, or of another generation, when counting began in
this interval: then all that `after` holds counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from probes import hdr
from probes.changes import changed
from probes.elapsed import target_seconds
from probes.estimates import (
    duty_between,
    duty_of,
    errors_of,
    estimate_delta,
    estimates_delta,
    standard_error,
    with_estimates,
)
from probes.peak_values import maximum, since
from probes.processes import pid_of
from probes.ranked import Ranked
from probes.samples import (
    NO_HISTOGRAM,
    NOT_ESTIMATED,
    Counts,
    Duty,
    Estimate,
    Estimates,
    Frame,
    Histogram,
    LatencySample,
    Spent,
    SyscallSample,
    Target,
)

K = TypeVar("K")
SHORTEST = 1e-3
"""Seconds between two Frames at least, for them to be an interval."""
_NEW = tuple.__new__


def seconds_between(before: Frame | None, after: Frame) -> float:
    """The measured length of the interval that ends with `after`, in seconds.

    Rates divide by it: Frames of a recording may be any fraction of a second apart.
    """
    if before is None or after.mono - before.mono < SHORTEST:
        return after.interval
    return after.mono - before.mono


def count_delta(before: Mapping[K, Counts], after: Mapping[K, Counts]) -> dict[K, Counts]:
    """What was added per key; keys that did not change are absent."""
    delta: dict[K, Counts] = {}
    for key, old, new in changed(before, after):
        if old is None or new[0] < old[0]:  # forgotten and back: it counts from zero
            delta[key] = new
        elif old != new:
            delta[key] = _NEW(Counts, (new[0] - old[0], new[1] - old[1]))
    return delta


def int_delta(before: Mapping[K, int], after: Mapping[K, int]) -> dict[K, int]:
    """As `count_delta`, for plain numbers."""
    known = before.get
    return {key: new - old for key, new in after.items() if new != (old := known(key, 0))}


def histogram_delta(before: Histogram | None, after: Histogram) -> Histogram:
    """The durations that ended in the interval."""
    if before is None or after.n < before.n:
        return after
    if before is after:
        return Histogram({}, 0, 0)
    buckets = int_delta(before.buckets, after.buckets)
    peaks = since(after.peaks, before.n)
    return Histogram(buckets, after.n - before.n, after.total - before.total, peaks)


@dataclass(slots=True)
class CallRow:
    """One system call in an interval: counts of the interval, durations in ns or None.

    `estimated` of the calls are not counted but what bursts stand for; `error` is the standard
    error of the count then, `errors_error` that of the errors, else None.
    Where the maximum is not `exact`, no duration exceeds it.
    """

    name: str
    count: int
    errors: int
    errnos: dict[str, int] = field(default_factory=dict)
    p50: float | None = None
    p99: float | None = None
    maximum: float | None = None
    exact: bool | None = None
    total: int | None = None
    estimated: int = 0
    error: float | None = None
    errors_error: float | None = None


@dataclass(slots=True)
class ProcessRow:
    """One process in an interval: its system calls and how many of them failed.

    `number` tells it from others with the same pid (see `probes.processes`). `estimated` of the
    calls are what bursts stand for; `error` is the standard error of the count then,
    `errors_error` that of the errors.
    """

    number: int
    comm: str
    count: int
    errors: int
    estimated: int = 0
    error: float | None = None
    errors_error: float | None = None

    @property
    def pid(self) -> int:
        """The process id."""
        return pid_of(self.number)


@dataclass
class SyscallView:
    """System calls in one interval of `seconds`: by call, by process and both together.

    What is of processes is computed when somebody asks for it. `duty` are the interval's bursts,
    None where all was counted: then `error` is the standard error of the count, and rows have
    theirs.
    """

    seconds: float
    count: int
    errors: int
    calls: list[CallRow]
    unattributed: int
    before: SyscallSample
    after: SyscallSample
    duty: Duty | None = None
    error: float | None = None

    @property
    def untimed(self) -> int | None:
        """Calls of the interval whose duration is not known, None where none are timed.

        Those that sampling leaves out are not among them.
        """
        if self.after.latency is None:
            return None
        return max(0, self.after.missed - self.before.missed)

    @cached_property
    def matrix(self) -> Mapping[tuple[int, str], Counts]:
        """Calls by process and name, with those that bursts stand for."""
        made = count_delta(self.before.matrix, self.after.matrix)
        return with_estimates(made, self._estimated_matrix)

    @cached_property
    def _estimated_matrix(self) -> dict[tuple[int, str], Estimates]:
        return estimates_delta(self.before.estimated_matrix, self.after.estimated_matrix)

    @cached_property
    def processes(self) -> Ranked[ProcessRow]:
        """Every process that made calls, most first."""
        sums: dict[int, tuple[int, int]] = {}
        for (pid, _), (calls, errors) in self.matrix.items():
            known = sums.get(pid)
            sums[pid] = (calls, errors) if known is None else (known[0] + calls, known[1] + errors)
        # The calls of a process rise and fall together: their errors do not add up.
        spread = estimates_delta(self.before.estimated_processes, self.after.estimated_processes)

        def made(pid: int) -> ProcessRow:
            part = spread.get(pid)
            errors = errors_of(part, self.duty)
            number = part.n if part is not None else 0
            return ProcessRow(pid, self.comms.get(pid, "?"), *sums[pid], number, *errors)

        return Ranked([(-calls, pid) for pid, (calls, _) in sums.items()], made)

    @cached_property
    def ended(self) -> Counts:
        """Calls of processes that have no row any more; errors also of `unattributed` calls."""
        listed = self.matrix.values()
        calls = self.count - self.unattributed - sum([n[0] for n in listed])
        return Counts(max(0, calls), max(0, self.errors - sum([n[1] for n in listed])))

    def ended_of(self, call: CallRow) -> Counts:
        """The same of one call; those without a process are not told from them."""
        listed = [n for (_, name), n in self.matrix.items() if name == call.name]
        calls = call.count - sum([n[0] for n in listed])
        return Counts(max(0, calls), max(0, call.errors - sum([n[1] for n in listed])))

    @property
    def comms(self) -> Mapping[int, str]:
        """The processes' names."""
        return self.after.comms

    def processes_of(self, call: str) -> list[ProcessRow]:
        """Who made this call, most first."""
        rows = [
            ProcessRow(pid, self.comms.get(pid, "?"), n.n, n.errors, *self._part(pid, name))
            for (pid, name), n in self.matrix.items()
            if name == call
        ]
        return sorted(rows, key=lambda row: (-row.count, row.number))

    def calls_of(self, number: int) -> list[CallRow]:
        """What this process called, most first; errno names and durations are not kept."""
        rows = [
            self._call_of(number, name, n)
            for (owner, name), n in self.matrix.items()
            if owner == number
        ]
        return sorted(rows, key=lambda row: (-row.count, row.name))

    def _part(self, pid: int, name: str) -> tuple[int, float | None, float | None]:
        part = self._estimated_matrix.get((pid, name))
        return part.n if part is not None else 0, *errors_of(part, self.duty)

    def _call_of(self, pid: int, name: str, n: Counts) -> CallRow:
        row = CallRow(name, n.n, n.errors)
        row.estimated, row.error, row.errors_error = self._part(pid, name)
        return row


def _comparable(before: SyscallSample | None, after: SyscallSample) -> SyscallSample:
    """`before` where subtracting it is right, else the empty sample."""
    if before is None or before.generation != after.generation:
        return SyscallSample(generation=after.generation)
    return before


def calls_made(before: SyscallSample | None, after: SyscallSample) -> Counts:
    """Calls and failed calls between two Samples: those of `syscall_view`, at less cost."""
    old = _comparable(before, after)
    made = count_delta(old.calls, after.calls).values()
    more, less = after.estimated_total, old.estimated_total
    return Counts(
        sum([counts.n for counts in made]) + more.n - less.n,
        sum([counts.errors for counts in made]) + more.errors - less.errors,
    )


def call_count(before: SyscallSample | None, after: SyscallSample) -> int:
    """How many calls were made between two Samples."""
    return calls_made(before, after).n


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


def _percentiles(
    spent: Histogram, fractions: Sequence[float], longest: float | None
) -> list[float | None]:
    """Percentiles of durations, which are known to a bucket; none is above the longest."""
    found = hdr.percentiles(spent.buckets, fractions)
    if longest is None:
        return list(found)
    return [None if value is None else min(value, longest) for value in found]


def _call_row(name: str, counts: Counts, before: SyscallSample, after: SyscallSample) -> CallRow:
    row = CallRow(name, counts.n, counts.errors)
    latest = (after.latency or {}).get(name)
    if latest is not None:
        spent = histogram_delta((before.latency or {}).get(name), latest)
        if spent.n:
            row.maximum, row.exact = maximum(spent)
            row.p50, row.p99 = _percentiles(spent, (0.50, 0.99), row.maximum)
            # Of a sample, the mean stands for all calls; what was missed otherwise is not known.
            sampled = after.sample_every > 1
            row.total = round(spent.total * counts.n / spent.n) if sampled else spent.total
    return row


def syscall_view(before: SyscallSample | None, after: SyscallSample, seconds: float) -> SyscallView:
    """The interval between two Samples; rows are sorted, most calls first."""
    old = _comparable(before, after)
    duty = duty_of(old, after)
    made = count_delta(old.calls, after.calls)
    by_name = {name: _call_row(name, counts, old, after) for name, counts in made.items()}
    for name, more in estimates_delta(old.estimated, after.estimated).items():
        row = by_name.setdefault(name, CallRow(name, 0, 0))
        row.count, row.errors = row.count + more.n, row.errors + more.errors
        row.estimated = more.n
        row.error, row.errors_error = errors_of(more, duty)
    for (name, errno), times in int_delta(old.errnos, after.errnos).items():
        if name in by_name:
            by_name[name].errnos[errno] = times
    for (name, errno), part in estimate_delta(old.estimated_errnos, after.estimated_errnos).items():
        if name in by_name:
            errnos = by_name[name].errnos
            errnos[errno] = errnos.get(errno, 0) + part.n
    calls = list(by_name.values())
    total = estimates_delta({0: old.estimated_total}, {0: after.estimated_total}).get(0)
    return SyscallView(
        seconds=seconds,
        count=sum(row.count for row in calls),
        errors=sum(row.errors for row in calls),
        calls=sorted(calls, key=lambda row: (-row.count, row.name)),
        unattributed=after.unattributed - old.unattributed,
        before=old,
        after=after,
        duty=duty,
        error=errors_of(total, duty)[0],
    )


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

    `number` tells it from others with the same pid (see `probes.processes`). Where calls are told
    apart by a text, it is None and `comm` the text; where values are measured, `total` is their
    sum. `estimated` of the calls are what bursts stand for, with the standard `error`; how long
    those took in all is not known.
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
    row.p50, row.p90, row.p99, row.p999 = _percentiles(spent, fractions, row.maximum)
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
