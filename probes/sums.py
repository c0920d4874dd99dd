# SPDX-License-Identifier: Apache-2.0
"""What many Frames of one run counted together: a Sample of the whole span for each probe.

The difference of the last Frame and the first would miss what began anew between them: a probe
that was off for a while, a process that ended and was forgotten. So every interval's own
difference (see `probes.model`) is added up. The sums are cumulative Samples that begin at zero:
the contract's own code makes the rows of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from probes.changes import changed
from probes.execlog import ExecLog
from probes.model import count_delta, histogram_delta, int_delta, spent_delta
from probes.pmc_view import scaled
from probes.programs import Programs
from probes.samples import (
    MAX_EVENTS,
    Counts,
    CpuTimes,
    ExecSample,
    Histogram,
    LatencySample,
    PmcSample,
    Reading,
    Sample,
    Spent,
    SyscallSample,
    Target,
    TaskTimes,
)


@dataclass(slots=True)
class Tick:
    """What graphs need of one interval, or of several together.

    `counts` are numbers to be added up, by name; what is not known is absent. `spent` has the
    durations (or values) of each latency target, by histogram bucket, of those that have any.
    """

    seconds: float
    counts: dict[str, float] = field(default_factory=dict)
    spent: dict[str, dict[int, int]] = field(default_factory=dict)

    def add(self, other: Tick) -> None:
        """Take in the interval that follows; a count that one of them lacks is of the other."""
        self.seconds += other.seconds
        for name, value in other.counts.items():
            self.counts[name] = self.counts.get(name, 0) + value
        for spec, buckets in other.spent.items():
            add_to(self.spent.setdefault(spec, {}), buckets)


def add_to(total: dict[Any, int], more: Mapping[Any, int]) -> None:
    """Add counts up, key by key."""
    for key, n in more.items():
        total[key] = total.get(key, 0) + n


def _add_pairs(total: dict[Any, Any], more: Mapping[Any, Any], kind: type) -> None:
    """As `add_to`, for named tuples of two numbers."""
    for key, (n, m) in more.items():
        old = total.get(key)
        total[key] = kind(n, m) if old is None else kind(old[0] + n, old[1] + m)


def _add_histogram(total: Histogram | None, more: Histogram) -> Histogram:
    """The sum; its buckets are changed in place, for nobody else has them."""
    if total is None:
        return Histogram(dict(more.buckets), more.n, more.total)
    add_to(cast("dict[int, int]", total.buckets), more.buckets)
    return Histogram(total.buckets, total.n + more.n, total.total + more.total)


def _less(new: Iterable[int | None], old: Iterable[int | None]) -> list[int | None]:
    return [None if a is None else max(0, a - (b or 0)) for a, b in zip(new, old, strict=True)]


def _plus(some: Iterable[int | None], more: Iterable[int | None]) -> list[int | None]:
    both = zip(some, more, strict=True)
    return [None if a is None or b is None else a + b for a, b in both]


class SampleSum:
    """One probe over a span. `seconds` is for how long it ran.

    Cost: `events` are of the span, `cpu_percent` is the mean over the time in which it was
    known, the others are the last known ones.
    """

    def __init__(self, kind: type[Sample]) -> None:
        self.last: Sample = kind()
        self.seconds = 0.0
        self._lost = 0
        self._counted = 0
        self._spent = [0.0, 0.0]
        self._known = kind().cost
        self._notes: dict[str, None] = {}
        self._on: Sample | None = None

    def add(self, before: Sample | None, after: Sample, tick: Tick) -> None:
        """Take in one interval and put into `tick` what the graphs need of it.

        Without `before` the probe was not there; a probe that was on for a part of the
        interval has seen that part.
        """
        self.last = after
        if after.given_up:
            self._notes[f"to stay within the budget, at times: {after.given_up}"] = None
        if "on" not in (after.state, before.state if before else None):
            return
        fresh = before is None or before.generation != after.generation
        old = type(after)(generation=after.generation) if fresh or before is None else before
        self.seconds += tick.seconds
        self._lost += max(0, after.lost - old.lost)
        self._counted += max(0, after.cost.events - old.cost.events)
        self._take_cost(after, tick.seconds)
        self._notes |= dict.fromkeys(after.notes)
        if after.state == "on":
            self._on = after
        self._take(old, after, tick)

    def _take_cost(self, after: Sample, seconds: float) -> None:
        cost = after.cost
        if cost.cpu_percent is not None:
            self._spent[0] += cost.cpu_percent * seconds
            self._spent[1] += seconds
        known = {name: v for name, v in cost._asdict().items() if v is not None}
        self._known = self._known._replace(**known)

    def _take(self, old: Sample, after: Sample, tick: Tick) -> None:
        """What the probe itself counted."""

    def sample(self) -> Sample:
        """The whole span as one Sample that began at zero."""
        spent, seconds = self._spent
        cost = self._known._replace(
            events=self._counted, cpu_percent=spent / seconds if seconds else None
        )
        last = self._on or self.last
        common: dict[str, Any] = {
            "state": self.last.state, "why": self.last.why, "fix": self.last.fix,
            "lost": self._lost, "cost": cost, "notes": tuple(self._notes), "generation": 0,
        }  # fmt: skip
        return replace(last, **common, **self._own())

    def _own(self) -> dict[str, Any]:
        """The probe's own fields."""
        return {}


class SyscallSum(SampleSum):
    """System calls over a span."""

    def __init__(self, kind: type[Sample] = SyscallSample) -> None:
        super().__init__(kind)
        self._calls: dict[str, Counts] = {}
        self._errnos: dict[tuple[str, str], int] = {}
        self._matrix: dict[tuple[int, str], Counts] = {}
        self._comms: dict[int, str] = {}
        self._latency: dict[str, Histogram] | None = None
        self._unattributed = self._missed = 0
        self._every = 1

    def _take(self, old: Sample, after: Sample, tick: Tick) -> None:
        old, new = cast(SyscallSample, old), cast(SyscallSample, after)
        self._every = max(self._every, new.sample_every)
        calls = count_delta(old.calls, new.calls)
        _add_pairs(self._calls, calls, Counts)
        _add_pairs(self._matrix, count_delta(old.matrix, new.matrix), Counts)
        add_to(self._errnos, int_delta(old.errnos, new.errnos))
        self._comms.update(new.comms)
        self._unattributed += max(0, new.unattributed - old.unattributed)
        self._missed += max(0, new.missed - old.missed)
        if new.latency is not None:
            self._latency = self._latency or {}
            for name, histogram in new.latency.items():
                spent = histogram_delta((old.latency or {}).get(name), histogram)
                if spent.n:
                    self._latency[name] = _add_histogram(self._latency.get(name), spent)
        tick.counts["calls"] = sum([n.n for n in calls.values()])
        tick.counts["errors"] = sum([n.errors for n in calls.values()])

    def _own(self) -> dict[str, Any]:
        return {
            "calls": self._calls, "errnos": self._errnos, "matrix": self._matrix,
            "comms": self._comms, "latency": self._latency,
            "unattributed": self._unattributed, "missed": self._missed,
            "sample_every": self._every,
        }  # fmt: skip


class ExecSum(SampleSum):
    """Program executions over a span: `log` has the newest rows, `programs` counts all."""

    def __init__(self, kind: type[Sample] = ExecSample) -> None:
        super().__init__(kind)
        self.log = ExecLog(limit=MAX_EVENTS)
        self.programs = Programs()
        self._failed = self._dropped = 0
        self._counts = [0, 0, 0]

    def _take(self, old: Sample, after: Sample, tick: Tick) -> None:
        old, new = cast(ExecSample, old), cast(ExecSample, after)
        now = max([event.time for event in new.events], default=0.0)
        self.log.add(new.events, now or None)
        self.programs.take(self.log, now)
        self._dropped += new.dropped
        pairs = ((new.execs, old.execs), (new.failed, old.failed), (new.exits, old.exits))
        delta = [max(0, a - b) for a, b in pairs]
        self._counts = [a + b for a, b in zip(self._counts, delta, strict=True)]
        tick.counts["execs"] = delta[0]
        tick.counts["failed"] = self.log.failed - self._failed
        self._failed = self.log.failed

    def _own(self) -> dict[str, Any]:
        execs, failed, exits = self._counts
        return {
            "execs": execs, "failed": failed, "exits": exits,
            "events": (), "dropped": self._dropped,
        }  # fmt: skip


class LatencySum(SampleSum):
    """Latency targets over a span."""

    def __init__(self, kind: type[Sample] = LatencySample) -> None:
        super().__init__(kind)
        self._targets: dict[str, Target] = {}
        self._processes: dict[tuple[str, int], Spent] = {}
        self._texts: dict[tuple[str, str], Spent] = {}
        self._comms: dict[int, str] = {}

    def _take(self, old: Sample, after: Sample, tick: Tick) -> None:
        old, new = cast(LatencySample, old), cast(LatencySample, after)
        for spec, target in new.targets.items():
            self._take_target(old.targets.get(spec), target, tick)
        _add_pairs(self._processes, spent_delta(old.processes, new.processes), Spent)
        _add_pairs(self._texts, spent_delta(old.texts, new.texts), Spent)
        self._comms.update(new.comms)

    def _take_target(self, old: Target | None, new: Target, tick: Tick) -> None:
        if old is not None and old.histogram.n > new.histogram.n:
            old = None  # removed and added again: it counts from zero
        spent = histogram_delta(old.histogram if old else None, new.histogram)
        total = self._targets.get(new.spec)
        self._targets[new.spec] = replace(
            new,
            histogram=_add_histogram(total.histogram if total else None, spent),
            missed=(total.missed if total else 0) + max(0, new.missed - (old.missed if old else 0)),
            overflow=(total.overflow if total else 0)
            + max(0, new.overflow - (old.overflow if old else 0)),
        )
        if new.state == "on":
            tick.counts[f"calls {new.spec}"] = spent.n
            if spent.n and not new.counts_only:
                tick.spent[new.spec] = dict(spent.buckets)

    def _own(self) -> dict[str, Any]:
        return {
            "targets": self._targets, "processes": self._processes,
            "texts": self._texts, "comms": self._comms,
        }  # fmt: skip


def reading_delta(before: Reading | None, after: Reading) -> Reading:
    """What was counted between two readings; all of `after` where it began anew."""
    if before is None or after.enabled < before.enabled or after.value < before.value:
        return after
    return Reading(*[new - old for new, old in zip(after, before, strict=True)])


class PmcSum(SampleSum):
    """Counters over a span; events that were not counted all the time are left out."""

    def __init__(self, kind: type[Sample] = PmcSample) -> None:
        super().__init__(kind)
        self._events: tuple[str, ...] | None = None
        self._tasks: dict[int, TaskTimes] = {}
        self._cpus: dict[int, CpuTimes] = {}
        self._readings: dict[tuple[int, str], Reading] = {}
        self._cpu_readings: dict[tuple[int, str], Reading] = {}
        self._comms: dict[int, str] = {}
        self._unattributed = 0

    def _take(self, old: Sample, after: Sample, tick: Tick) -> None:
        old, new = cast(PmcSample, old), cast(PmcSample, after)
        if new.state == "on":
            before = new.events if self._events is None else self._events
            self._events = tuple([event for event in new.events if event in before])
        _add_times(self._tasks, old.tasks, new.tasks, TaskTimes)
        cpus = _add_times(self._cpus, old.cpus, new.cpus, CpuTimes)
        _add_readings(self._readings, old.readings, new.readings)
        _add_readings(self._cpu_readings, old.cpu_readings, new.cpu_readings)
        self._comms.update(new.comms)
        self._unattributed += max(0, new.unattributed - old.unattributed)
        tick.counts["busy"] = sum([cpu.busy for cpu in cpus])
        tick.counts["idle"] = sum([cpu.idle for cpu in cpus])
        for event in ("cycles", "instructions"):
            pairs = [
                (old.cpu_readings.get(key), reading)
                for key, reading in new.cpu_readings.items()
                if key[1] == event
            ]
            values = [scaled(*pair).value for pair in pairs]
            known = [value for value in values if value is not None]
            if known and len(known) == len(values):
                tick.counts[event] = sum(known)

    def _own(self) -> dict[str, Any]:
        return {
            "events": self._events or (), "tasks": self._tasks, "cpus": self._cpus,
            "readings": self._readings, "cpu_readings": self._cpu_readings,
            "comms": self._comms, "unattributed": self._unattributed,
        }  # fmt: skip


def _add_times(total: dict[int, Any], old: Mapping[int, Any], new: Any, kind: Any) -> list[Any]:
    """Add up what tasks or CPUs did since `old`; returns that."""
    out = []
    for key, after in new.items():
        before = old.get(key)
        if before is after or before == after:
            continue
        if before is None or any(
            (a or 0) < (b or 0) for a, b in zip(after[:2], before[:2], strict=True)
        ):
            delta = after
        else:
            delta = kind(*_less(after, before))
        total[key] = kind(*_plus(total[key], delta)) if key in total else delta
        out.append(delta)
    return out


def _add_readings(
    total: dict[tuple[int, str], Reading],
    old: Mapping[tuple[int, str], Reading],
    new: Mapping[tuple[int, str], Reading],
) -> None:
    for key, before, after in changed(old, new):
        if before == after:
            continue
        delta, sum_ = reading_delta(before, after), total.get(key, Reading(0, 0, 0))
        total[key] = Reading(*[a + b for a, b in zip(sum_, delta, strict=True)])


SUMS: dict[type[Sample], type[SampleSum]] = {
    SyscallSample: SyscallSum,
    ExecSample: ExecSum,
    LatencySample: LatencySum,
    PmcSample: PmcSum,
}


def sum_of(kind: type[Sample]) -> SampleSum:
    """The sum for a probe whose Samples are of this class; of other classes the common fields."""
    return SUMS.get(kind, SampleSum)(kind)
