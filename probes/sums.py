# SPDX-License-Identifier: Apache-2.0
"""What many Frames of one run counted together: a Sample of the whole span for each probe.

The difference of the last Frame and the first would miss what began anew between them: a probe
that was off for a while, a process that ended and was forgotten. So every interval's own
difference (see `probes.model`) is added up. The sums are cumulative Samples that begin at zero:
the contract's own code makes the rows of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

from probes.adding import (
    add_histogram,
    add_pairs,
    add_readings,
    add_times,
    add_to,
    keep_first,
    only,
)
from probes.cgroup_names import CgroupName
from probes.changes import loses
from probes.elapsed import counted_seconds, target_seconds
from probes.estimates import (
    add_all,
    add_duty,
    duty_between,
    duty_of,
    estimate_delta,
    estimates_delta,
    with_estimates,
)
from probes.execlog import ExecLog
from probes.model import (
    continued,
    count_delta,
    estimated_calls,
    histogram_delta,
    int_delta,
    restarted,
    spent_delta,
    with_bursts,
)
from probes.pmc_bursts import CLOCK
from probes.pmc_view import scaled
from probes.programs import Programs
from probes.pruned import ROOM, Left, behind_first, least_active, leave, without_first
from probes.samples import (
    MAX_EVENTS,
    NONE_ESTIMATED,
    NOT_ESTIMATED,
    Counts,
    CpuTimes,
    Duty,
    Estimate,
    Estimates,
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

MOST_KEYS = 50_000
"""Keys of tables in which a real machine has some hundreds: calls, errnos, CPUs, names."""
MOST_ROWS = 1_000_000
"""Rows of tables by process."""
MOST_NAMES = 100_000
"""Names of processes, above which those go of processes that have no row."""
MOST_TIMED = 1000
"""Calls and targets whose durations are kept."""


@dataclass(slots=True)
class Tick:
    """What graphs need of one interval, or of several together.

    `seconds` is for how many the probe counted, 0.0 while it is off; `counting` the same of what
    began later, by name. `counts` are numbers to be added up, by name; what is not known is
    absent. `spent` has the durations (or values) of each latency target, by histogram bucket, of
    those that have any.
    """

    seconds: float
    counts: dict[str, float] = field(default_factory=dict)
    spent: dict[str, dict[int, int]] = field(default_factory=dict)
    counting: dict[str, float] = field(default_factory=dict)

    def of(self, name: str) -> float:
        """For how many seconds the count of this name was counted."""
        if name not in self.counts:
            return 0.0
        return self.counting.get(name, self.seconds)

    def add(self, other: Tick) -> None:
        """Take in the interval that follows; a count that one of them lacks is of the other."""
        seconds = self.seconds + other.seconds
        counting = {
            name: self.of(name) + other.of(name) for name in {**self.counts, **other.counts}
        }
        self.counting = {name: own for name, own in counting.items() if own != seconds}
        self.seconds = seconds
        for name, value in other.counts.items():
            self.counts[name] = self.counts.get(name, 0) + value
        for spec, buckets in other.spent.items():
            add_to(self.spent.setdefault(spec, {}), buckets)


class SampleSum:
    """One probe over a span. `seconds` is for how long it ran.

    Cost: `events` are of the span, `cpu_percent` is the mean over the time in which it was
    known, the others are the last known ones. `every` says that each Frame has what no later
    one repeats. `left` has of each table how many rows were left out because they come behind
    the first KEPT for good, and what their numbers add up to; targets' have their spec as key.
    """

    every = False

    def __init__(self, kind: type[Sample]) -> None:
        self.last: Sample = kind()
        self.seconds = 0.0
        self.left: Left = {}
        self._lost = 0
        self._counted = 0
        self._spent = [0.0, 0.0]
        self._known = kind().cost
        self._notes: dict[str, None] = {}
        self._on: Sample | None = None
        self._duty: Duty | None = None
        self._room = ROOM

    def add(self, before: Sample | None, after: Sample, tick: Tick) -> None:
        """Take in one interval and put into `tick` what the graphs need of it.

        Without `before` the probe was not there; a probe that was attached within the interval
        has seen a part of it. `tick` gets the length of that part.
        """
        self.last = after
        if after.given_up:
            self._notes[f"to stay within the budget, at times: {after.given_up}"] = None
        if after.state != "on":
            tick.seconds = 0.0
            return
        tick.seconds = counted_seconds(before, after, tick.seconds)
        fresh = before is None or before.generation != after.generation
        old = type(after)(generation=after.generation) if fresh or before is None else before
        self.seconds += tick.seconds
        self._lost += max(0, after.lost - old.lost)
        self._counted += max(0, after.cost.events - old.cost.events)
        self._duty = add_duty(self._duty, duty_of(old, after))
        self._take_cost(after, tick.seconds)
        self._notes |= dict.fromkeys(after.notes)
        keep_first(self._notes, MOST_TIMED)
        self._on = after
        self._take(old, after, tick)

    def loses(self, before: Sample | None, after: Sample | None) -> bool:
        """Whether `before` knows what `after` does not: then it cannot be left out."""
        if before is None or after is None or type(before) is not type(after):
            return before is not after
        same = (
            before.state == after.state
            and before.generation == after.generation
            and before.given_up == after.given_up
            and before.notes == after.notes
        )
        return not same or (after.state == "on" and self._loses(before, after))

    def _loses(self, before: Any, after: Any) -> bool:
        """The same of the probe's own fields, where it is on in both."""
        return False

    def _take_cost(self, after: Sample, seconds: float) -> None:
        cost = after.cost
        if cost.cpu_percent is not None:
            self._spent[0] += cost.cpu_percent * seconds
            self._spent[1] += seconds
        known = {name: v for name, v in cost._asdict().items() if v is not None}
        self._known = self._known._replace(**known)

    def _take(self, old: Sample, after: Sample, tick: Tick) -> None:
        """What the probe itself counted."""

    def _prune(self, size: int, sample: Any) -> None:
        """Leave out what no table will show, if there are so many rows that it is worth it.

        Keys that are in `sample` may grow yet. Of the others those stay that come first.
        """
        if size > self._room:
            left = self._leave_out(sample)
            self._room = left + max(left, ROOM)

    def _leave_out(self, sample: Any) -> int:
        """Does so; returns how many rows there are still."""
        return 0

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
            "counted": max(0.0, self.seconds - (self._duty.seconds if self._duty else 0.0)),
            "duty": self._duty, "given_up": self.last.given_up,
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
        self._estimated: dict[str, Estimates] = {}
        self._estimated_errnos: dict[tuple[str, str], Estimate] = {}
        self._estimated_matrix: dict[tuple[int, str], Estimates] = {}
        self._estimated_processes: dict[int, Estimates] = {}
        self._estimated_total: dict[int, Estimates] = {}

    def _take_estimates(self, old: SyscallSample, new: SyscallSample) -> Estimates:
        """Add up what bursts stand for; returns that of all calls."""
        add_all(self._estimated, estimates_delta(old.estimated, new.estimated))
        errnos = estimate_delta(old.estimated_errnos, new.estimated_errnos)
        add_all(self._estimated_errnos, errnos)
        add_all(self._estimated_matrix, estimates_delta(old.estimated_matrix, new.estimated_matrix))
        processes = estimates_delta(old.estimated_processes, new.estimated_processes)
        add_all(self._estimated_processes, processes)
        total = estimates_delta({0: old.estimated_total}, {0: new.estimated_total})
        add_all(self._estimated_total, total)
        for table in (self._estimated, self._estimated_errnos):
            keep_first(table, MOST_KEYS)
        for rows in (self._estimated_matrix, self._estimated_processes):
            keep_first(rows, MOST_ROWS)
        return total.get(0, NONE_ESTIMATED)

    def _take(self, old: Sample, after: Sample, tick: Tick) -> None:
        old, new = cast(SyscallSample, old), cast(SyscallSample, after)
        self._every = max(self._every, new.sample_every)
        calls = count_delta(old.calls, new.calls)
        add_pairs(self._calls, calls, Counts)
        add_pairs(self._matrix, count_delta(old.matrix, new.matrix), Counts)
        add_to(self._errnos, int_delta(old.errnos, new.errnos))
        self._comms.update(new.comms)
        keep_first(self._calls, MOST_KEYS)
        keep_first(self._errnos, MOST_KEYS)
        if len(self._comms) > MOST_NAMES:
            pids = {pid for pid, _ in self._matrix} | self._estimated_processes.keys()
            self._comms = only(self._comms, pids)
        self._unattributed += max(0, new.unattributed - old.unattributed)
        self._missed += max(0, new.missed - old.missed)
        if new.latency is not None:
            self._latency = self._latency or {}
            for name, histogram in new.latency.items():
                spent = histogram_delta((old.latency or {}).get(name), histogram)
                if spent.n and (name in self._latency or len(self._latency) < MOST_TIMED):
                    self._latency[name] = add_histogram(self._latency.get(name), spent)
        more = self._take_estimates(old, new)
        tick.counts["calls"] = sum([n.n for n in calls.values()]) + more.n
        tick.counts["errors"] = sum([n.errors for n in calls.values()]) + more.errors
        tick.counts["estimated"] = more.n
        self._prune(len(self._matrix) + len(self._estimated_matrix), new)

    def _leave_out(self, sample: SyscallSample) -> int:
        alive = {pid for pid, _ in sample.matrix} | sample.estimated_processes.keys()
        whole = with_estimates(self._matrix, self._estimated_matrix)
        gone, calls = without_first(whole, alive)
        spread = self._estimated_processes
        numbers = {
            "count": sum([n.n for n in gone.values()]),
            "errors": sum([n.errors for n in gone.values()]),
        }
        if estimated := sum([spread[pid].n for pid in gone if pid in spread]):
            numbers["estimated"] = estimated
        self._matrix = {key: n for key, n in self._matrix.items() if key[0] not in gone}
        rows = self._estimated_matrix.items()
        self._estimated_matrix = {key: n for key, n in rows if key[0] not in gone}
        self._estimated_processes = {pid: n for pid, n in spread.items() if pid not in gone}
        self._comms = {pid: comm for pid, comm in self._comms.items() if pid not in gone}
        leave(self.left, "matrix", calls, **numbers)
        leave(self.left, "processes", len(gone), **numbers)
        return len(self._matrix) + len(self._estimated_matrix)

    def _loses(self, before: SyscallSample, after: SyscallSample) -> bool:
        timed = (before.latency is None, before.sample_every)
        return (
            timed != (after.latency is None, after.sample_every)
            or loses(before.matrix, after.matrix)
            or loses(before.estimated_processes, after.estimated_processes)
        )

    def _own(self) -> dict[str, Any]:
        return {
            "calls": self._calls, "errnos": self._errnos, "matrix": self._matrix,
            "comms": self._comms, "latency": self._latency,
            "unattributed": self._unattributed, "missed": self._missed,
            "sample_every": self._every,
            "estimated": self._estimated, "estimated_errnos": self._estimated_errnos,
            "estimated_matrix": self._estimated_matrix,
            "estimated_processes": self._estimated_processes,
            "estimated_total": self._estimated_total.get(0, NONE_ESTIMATED),
        }  # fmt: skip


class ExecSum(SampleSum):
    """Program executions over a span: `log` has the newest rows, `programs` counts all.

    `names` are those of control groups that container runtimes told of.
    """

    every = True

    def __init__(self, kind: type[Sample] = ExecSample) -> None:
        super().__init__(kind)
        self.log = ExecLog(limit=MAX_EVENTS)
        self.programs = Programs()
        self.names: dict[str, CgroupName] = {}
        self._failed = self._dropped = 0
        self._counts = [0, 0, 0]
        self._failed_duty: Duty | None = None
        self._estimated: dict[int, Estimate] = {}

    def _take(self, old: Sample, after: Sample, tick: Tick) -> None:
        old, new = cast(ExecSample, old), cast(ExecSample, after)
        now = max([event.time for event in new.events], default=0.0)
        self.log.add(new.events, now or None)
        self.names.update(new.names)
        keep_first(self.names, MAX_EVENTS)
        self.programs.take(self.log, now)
        self._dropped += new.dropped
        pairs = ((new.execs, old.execs), (new.failed, old.failed), (new.exits, old.exits))
        delta = [max(0, a - b) for a, b in pairs]
        self._counts = [a + b for a, b in zip(self._counts, delta, strict=True)]
        tick.counts["execs"] = delta[0]
        if new.given_up is None:
            tick.counts["failed"] = self.log.failed - self._failed
        self._failed = self.log.failed
        self._failed_duty = add_duty(
            self._failed_duty, duty_between(old.failed_duty, new.failed_duty)
        )
        more = estimate_delta({0: old.estimated_failed}, {0: new.estimated_failed})
        add_all(self._estimated, more)

    def _own(self) -> dict[str, Any]:
        execs, failed, exits = self._counts
        return {
            "execs": execs, "failed": failed, "exits": exits,
            "events": (), "dropped": self._dropped, "failed_duty": self._failed_duty,
            "estimated_failed": self._estimated.get(0, NOT_ESTIMATED),
        }  # fmt: skip


class LatencySum(SampleSum):
    """Latency targets over a span."""

    def __init__(self, kind: type[Sample] = LatencySample) -> None:
        super().__init__(kind)
        self._targets: dict[str, Target] = {}
        self._counting: dict[str, float] = {}
        self._processes: dict[tuple[str, int], Spent] = {}
        self._texts: dict[tuple[str, str], Spent] = {}
        self._estimated: dict[tuple[str, int], Estimate] = {}
        self._estimated_texts: dict[tuple[str, str], Estimate] = {}
        self._comms: dict[int, str] = {}

    def _take(self, old: Sample, after: Sample, tick: Tick) -> None:
        old, new = cast(LatencySample, old), cast(LatencySample, after)
        old = continued(old, new)
        for spec, target in new.targets.items():
            if target.spec in self._targets or len(self._targets) < MOST_TIMED:
                seconds = target_seconds(old, new, target, tick.seconds)
                self._take_target(old.targets.get(spec), target, seconds, tick)
        add_pairs(self._processes, spent_delta(old.processes, new.processes), Spent)
        add_pairs(self._texts, spent_delta(old.texts, new.texts), Spent)
        more = estimate_delta(old.estimated_processes, new.estimated_processes)
        add_all(self._estimated, more)
        add_all(self._estimated_texts, estimate_delta(old.estimated_texts, new.estimated_texts))
        for table in (self._estimated, self._estimated_texts):
            keep_first(cast("dict[Any, Any]", table), MOST_KEYS)
        self._comms.update(new.comms)
        keep_first(self._processes, MOST_KEYS)
        keep_first(self._texts, MOST_KEYS)
        if len(self._comms) > MOST_NAMES:
            pids = {pid for _, pid in (*self._processes, *self._estimated)}
            self._comms = only(self._comms, pids)
        self._prune(len(self._processes) + len(self._texts), new)

    def _leave_out(self, sample: LatencySample) -> int:
        untimed = {spec for spec, target in self._targets.items() if target.counts_only}
        for table, alive in ((self._processes, sample.processes), (self._texts, sample.texts)):
            for key in behind_first(table, alive, untimed):
                spent = table.pop(key)
                leave(self.left, key[0], 1, count=spent.n, total=spent.total)
        pids = {pid for _, pid in (*self._processes, *self._estimated)} | sample.comms.keys()
        self._comms = {pid: comm for pid, comm in self._comms.items() if pid in pids}
        return len(self._processes) + len(self._texts)

    def _loses(self, before: LatencySample, after: LatencySample) -> bool:
        for spec, old in before.targets.items():
            new = after.targets.get(spec)
            if new is None or new.state != old.state or new.histogram.n < old.histogram.n:
                return True
        return loses(before.processes, after.processes) or loses(before.texts, after.texts)

    def _take_target(self, old: Target | None, new: Target, seconds: float, tick: Tick) -> None:
        if old is not None and restarted(old, new):
            old = None
        spent = histogram_delta(old.histogram if old else None, new.histogram)
        total = self._targets.get(new.spec)
        self._targets[new.spec] = replace(
            new,
            histogram=add_histogram(total.histogram if total else None, spent),
            missed=(total.missed if total else 0) + max(0, new.missed - (old.missed if old else 0)),
            overflow=(total.overflow if total else 0)
            + max(0, new.overflow - (old.overflow if old else 0)),
            **_bursts(total, old, new),
        )
        more = duty_between(old.duty if old else None, new.duty)
        if new.state == "on" and (new.duty is None or more is not None or spent.n):
            name = f"calls {new.spec}"
            self._counting[new.spec] = self._counting.get(new.spec, 0.0) + seconds
            tick.counts[name] = spent.n + estimated_calls(old, new).n
            if seconds != tick.seconds:
                tick.counting[name] = seconds
            spent = with_bursts(spent, old, new)
            if spent.n and not new.counts_only:
                tick.spent[new.spec] = dict(spent.buckets)

    def _own(self) -> dict[str, Any]:
        targets = {
            spec: replace(target, began=max(0.0, self.seconds - self._counting.get(spec, 0.0)))
            for spec, target in self._targets.items()
        }
        return {
            "targets": targets, "processes": self._processes,
            "texts": self._texts, "comms": self._comms,
            "estimated_processes": self._estimated, "estimated_texts": self._estimated_texts,
        }  # fmt: skip


def _bursts(total: Target | None, old: Target | None, new: Target) -> dict[str, Any]:
    """What a target's bursts stand for, with those of the spans before."""
    duty = duty_between(old.duty if old else None, new.duty)
    known = {0: total.estimated} if total is not None else {}
    add_all(known, {0: estimated_calls(old, new)})
    seen = histogram_delta(old.in_bursts if old else None, new.in_bursts)
    return {
        "duty": add_duty(total.duty if total else None, duty),
        "estimated": known[0],
        "in_bursts": add_histogram(total.in_bursts if total else None, seen),
    }


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
        self._estimated: dict[tuple[int, str], Estimate] = {}
        self._estimated_cpus: dict[tuple[int, str], Estimate] = {}
        self._estimated_machine: dict[str, Estimate] = {}

    def _take_estimates(self, old: PmcSample, new: PmcSample) -> dict[str, Estimate]:
        """Add up what bursts stand for; returns that of the machine, by quantity."""
        add_all(self._estimated, estimate_delta(old.estimated, new.estimated))
        add_all(self._estimated_cpus, estimate_delta(old.estimated_cpus, new.estimated_cpus))
        machine = estimate_delta(old.estimated_machine, new.estimated_machine)
        add_all(self._estimated_machine, machine)
        keep_first(self._estimated, MOST_ROWS)
        keep_first(self._estimated_cpus, MOST_KEYS)
        keep_first(self._estimated_machine, MOST_KEYS)
        return machine

    def _take(self, old: Sample, after: Sample, tick: Tick) -> None:
        old, new = cast(PmcSample, old), cast(PmcSample, after)
        if new.state == "on":
            before = new.events if self._events is None else self._events
            self._events = tuple([event for event in new.events if event in before])
        add_times(self._tasks, old.tasks, new.tasks, TaskTimes)
        cpus = add_times(self._cpus, old.cpus, new.cpus, CpuTimes)
        add_readings(self._readings, old.readings, new.readings)
        add_readings(self._cpu_readings, old.cpu_readings, new.cpu_readings)
        self._comms.update(new.comms)
        keep_first(self._readings, MOST_ROWS)
        keep_first(self._cpu_readings, MOST_KEYS)
        if len(self._comms) > MOST_NAMES:
            pids = {pid for pid, _ in (*self._readings, *self._estimated)}
            self._comms = only(self._comms, self._tasks.keys() | pids)
        self._unattributed += max(0, new.unattributed - old.unattributed)
        more = self._take_estimates(old, new)
        for name in ("busy", "idle"):
            exact = sum([getattr(cpu, name) for cpu in cpus])
            tick.counts[name] = exact + more.get(name, NOT_ESTIMATED).n
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
        self._prune(len(self._tasks), new)

    def _leave_out(self, sample: PmcSample) -> int:
        alive = sample.tasks.keys() | {pid for pid, _ in sample.estimated}
        gone = least_active(self._tasks, self._readings, alive)
        clock = sum([self._tasks.pop(pid).clock for pid in gone])
        self._readings = {key: r for key, r in self._readings.items() if key[0] not in gone}
        estimated = self._estimated.items()
        clock += sum([n.n for (pid, name), n in estimated if pid in gone and name == CLOCK])
        self._estimated = {key: n for key, n in estimated if key[0] not in gone}
        self._comms = {pid: comm for pid, comm in self._comms.items() if pid not in gone}
        leave(self.left, "processes", len(gone), task_clock=clock)
        return len(self._tasks)

    def _loses(self, before: PmcSample, after: PmcSample) -> bool:
        return (
            before.events != after.events
            or loses(before.tasks, after.tasks)
            or loses(before.cpus, after.cpus)
            or loses(before.estimated, after.estimated)
        )

    def _own(self) -> dict[str, Any]:
        return {
            "events": self._events or (), "tasks": self._tasks, "cpus": self._cpus,
            "readings": self._readings, "cpu_readings": self._cpu_readings,
            "comms": self._comms, "unattributed": self._unattributed,
            "estimated": self._estimated, "estimated_cpus": self._estimated_cpus,
            "estimated_machine": self._estimated_machine,
        }  # fmt: skip


SUMS: dict[type[Sample], type[SampleSum]] = {
    SyscallSample: SyscallSum,
    ExecSample: ExecSum,
    LatencySample: LatencySum,
    PmcSample: PmcSum,
}


def sum_of(kind: type[Sample]) -> SampleSum:
    """The sum for a probe whose Samples are of this class; of other classes the common fields."""
    return SUMS.get(kind, SampleSum)(kind)
