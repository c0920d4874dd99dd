# SPDX-License-Identifier: Apache-2.0
"""Counters of the probes of calls, executions and hardware, made of successive Samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from probes.changes import changed
from probes.pmc_bursts import CLOCK
from probes.pmc_view import SCALED_BELOW, exact, scaled
from probes.readings import Readings, Row
from probes.samples import (
    CpuTimes,
    ExecEvent,
    ExecSample,
    ExitEvent,
    PmcSample,
    Reading,
    Sample,
    SyscallSample,
)
from probes.syscall_names import errno_name
from tui.agent.metrics.estimates import FailedEstimates, PmcEstimates, SyscallEstimates
from tui.agent.metrics.families import OTHER, Family, Names, counter, gauge, label
from tui.agent.metrics.histogram import Spread
from tui.agent.metrics.increases import comparable, more, more_counts, more_of, more_spent
from tui.agent.metrics.top_series import CALLS, CPU, CYCLES, ERRORS, INSTRUCTIONS, Crowd

MOST_CALLS, MOST_UNKNOWN = 1024, 32
"""Most names of system calls; of those, calls without a name ("syscall_999")."""
MOST_ERRNOS = 2048
"""Most pairs of a call and an errno; further errnos of a call are `other`."""
MOST_TIMED = 192
MOST_RESULTS = 160
MOST_EVENTS = 64
"""Most events of the CPUs; their names can be the user's own."""
IDLE = 0
"""The process id of what CPUs do without a process."""


class CallNames:
    """Labels of system calls."""

    def __init__(self) -> None:
        self._named, self._unknown = Names(MOST_CALLS), Names(MOST_UNKNOWN)

    def of(self, name: str) -> str:
        """The label; anybody can call 512 numbers that have no name, and few get one."""
        unknown = name.removeprefix("compat:").startswith("syscall_")
        return (self._unknown if unknown else self._named).of(name)


class SyscallCounters:
    """System calls, their errors and durations."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._last: SyscallSample | None = None
        self._names = CallNames()
        self._calls: dict[str, int] = {}
        self._errors: dict[tuple[str, str], int] = {}
        self._spent: dict[str, Spread] = {}
        self._missed = self._unattributed = 0
        self._every: int | None = None
        self._estimates = SyscallEstimates(crowd, self._names.of)

    def add(self, new: Sample) -> None:
        """Take in the next Sample."""
        if not isinstance(new, SyscallSample) or new.state != "on":
            self._every = None
            return
        old = comparable(self._last, new)
        self._last = new
        self._every = None if new.latency is None else max(1, new.sample_every)
        for name, n, _ in more_counts(old.calls, new.calls):
            name = self._names.of(name)
            self._calls[name] = self._calls.get(name, 0) + n
        for (name, errno), n in more_of(old.errnos, new.errnos):
            self._add_error(self._names.of(name), label(errno), n)
        self._missed += more(old.missed, new.missed)
        unattributed = more(old.unattributed, new.unattributed)
        self._unattributed += unattributed
        self._crowd.rest[CALLS] += unattributed
        self._add_processes(old, new)
        self._add_spent(old, new)
        self._estimates.add(old, new)

    def knows(self, pid: int) -> bool:
        """Whether the last Sample has this process."""
        return self._last is not None and pid in self._last.comms

    def _add_error(self, name: str, errno: str, n: int) -> None:
        key = (name, errno)
        if key not in self._errors and len(self._errors) >= MOST_ERRNOS:
            key = (name, OTHER)
        self._errors[key] = self._errors.get(key, 0) + n

    def _add_processes(self, old: SyscallSample, new: SyscallSample) -> None:
        crowd = self._crowd
        for pid, was, comm in changed(old.comms, new.comms):
            if was != comm:
                crowd.name(pid, comm)
        known = crowd.pids.get
        for (pid, _), n, errors in more_counts(old.matrix, new.matrix):
            owner = known(pid) or crowd.name(pid, new.comms.get(pid, ""))
            owner.tally[CALLS] += n
            owner.tally[ERRORS] += errors
            owner.recent += n

    def _add_spent(self, old: SyscallSample, new: SyscallSample) -> None:
        if new.latency is None:
            return
        for name, was, histogram in changed(old.latency or {}, new.latency):
            risen = more_spent(was, histogram)
            if risen.buckets:
                name = self._names.of(name)
                if name not in self._spent and len(self._spent) >= MOST_TIMED:
                    name = OTHER
                self._spent.setdefault(name, Spread()).add(risen.buckets, risen.total)

    def families(self) -> Iterator[Family]:
        """What there is to expose."""
        one = ("syscall",)
        yield counter(
            "probetop_syscalls", "System calls that ended.", one,
            [((name,), n) for name, n in self._calls.items()],
        )  # fmt: skip
        yield counter(
            "probetop_syscall_errors", "System calls that returned an error.", ("syscall", "errno"),
            self._errors.items(),
        )  # fmt: skip
        yield counter(
            "probetop_syscalls_unattributed",
            "System calls that found no room in the table of processes (in the series `other`).",
            (), [((), self._unattributed)],
        )  # fmt: skip
        yield Family(
            "probetop_syscall_latency_seconds", "histogram",
            "How long system calls took, of those that were timed (one in 1/sample_ratio).", one,
            [((name,), spread) for name, spread in self._spent.items()],
        )  # fmt: skip
        yield counter(
            "probetop_syscall_latency_missed", "Timed system calls whose duration is not known.",
            (), [((), self._missed)],
        )  # fmt: skip
        yield gauge(
            "probetop_syscall_sample_ratio",
            "Share of the system calls that is timed; absent while none is.",
            (), [] if self._every is None else [((), 1 / self._every)],
        )  # fmt: skip
        yield from self._estimates.families()


class Settled:
    """What a probe's counters have that its events have not shown after one more Sample.

    Counters and events of one moment may arrive in two Samples; what was dropped never does.
    """

    def __init__(self) -> None:
        self.unknown = 0
        self._due = 0

    def add(self, counted: int, shown: int) -> None:
        """One Sample: how many more its counters and its events have."""
        due = self._due - shown
        if due > 0:
            self.unknown += due
            due = 0
        self._due = due + counted


class ExecCounters:
    """Program executions by result, and ends of processes by kind."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._last: ExecSample | None = None
        self._execs = self._dropped = 0
        self._failed: dict[str, int] = {}
        self._exits = {"ok": 0, "nonzero": 0, "signal": 0}
        self._failures, self._ends = Settled(), Settled()
        self._results = Names(MOST_RESULTS)
        self._estimates = FailedEstimates()

    def add(self, new: Sample) -> None:
        """Take in the next Sample."""
        if not isinstance(new, ExecSample) or new.state != "on":
            return
        old = comparable(self._last, new)
        # Its events were counted: nobody needs them again.
        self._last = ExecSample(
            generation=new.generation, execs=new.execs, failed=new.failed, exits=new.exits,
            failed_duty=new.failed_duty, estimated_failed=new.estimated_failed,
        )  # fmt: skip
        self._estimates.add(old, new)
        self._execs += more(old.execs, new.execs)
        self._dropped += max(0, new.dropped)
        failed = ended = 0
        # What bursts saw is in the estimate.
        sampled = new.failed_duty is not None and not more(old.failed, new.failed)
        for event in new.events:
            if isinstance(event, ExitEvent):
                ended += 1
                kind = "signal" if event.signal else "nonzero" if event.exit_code else "ok"
                self._exits[kind] += 1
            elif event.ret < 0 and sampled:
                continue
            elif event.ret < 0:
                failed += 1
                name = self._results.of(errno_name(-event.ret))
                self._failed[name] = self._failed.get(name, 0) + 1
            else:
                self._tell(event)
        self._failures.add(more(old.failed, new.failed), failed)
        self._ends.add(more(old.exits, new.exits), ended)

    def _tell(self, event: ExecEvent) -> None:
        if event.cgroup is not None:
            self._crowd.tell(event.pid, event.cgroup)

    def families(self) -> Iterator[Family]:
        """What there is to expose."""
        results = {"ok": self._execs, **self._failed}
        if self._failures.unknown:
            results["unknown"] = self._failures.unknown
        yield counter(
            "probetop_execs", "Program executions: ok, or the errno of those that failed.",
            ("result",), [((name,), n) for name, n in results.items()],
        )  # fmt: skip
        kinds = {**self._exits, "unknown": self._ends.unknown}
        yield counter(
            "probetop_exits",
            "Processes that ended, by status. It is unknown of those that executed no program"
            " and were not killed, and of what came too fast.",
            ("kind",), [((kind,), n) for kind, n in kinds.items()],
        )  # fmt: skip
        yield counter(
            "probetop_exec_events_dropped",
            "Executions and exits that came too fast for their details to be kept.",
            (), [((), self._dropped)],
        )  # fmt: skip
        yield from self._estimates.families()


class PmcCounters:
    """Hardware and software counters of the machine, and what processes had of them."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._last: PmcSample | None = None
        self._names = Names(MOST_EVENTS)
        self._events: dict[tuple[str, str], float] = {}
        self._running: dict[tuple[str, str], tuple[int, int]] = {}
        self._times = {"busy": 0, "idle": 0}
        self._switches = self._migrations = self._unattributed = 0
        self._wait: int | None = None
        self._estimates = PmcEstimates(crowd)

    def add(self, new: Sample) -> None:
        """Take in the next Sample."""
        self._running = {}
        if not isinstance(new, PmcSample) or new.state != "on":
            return
        old = comparable(self._last, new)
        self._last = new
        self._unattributed += more(old.unattributed, new.unattributed)
        for _, was, times in changed(old.cpus, new.cpus):
            self._add_cpu(was or CpuTimes(0, 0, 0, 0), times)
        for (_, event), before, reading in changed(old.cpu_readings, new.cpu_readings):
            self._add_event((self._names.of(event), new.mode), before, reading)
        self._add_tasks(old, new)
        self._estimates.add(old, new)

    def knows(self, pid: int) -> bool:
        """Whether the last Sample has this process."""
        return self._last is not None and (
            pid in self._last.tasks or (pid, CLOCK) in self._last.estimated
        )

    def _add_cpu(self, old: CpuTimes, new: CpuTimes) -> None:
        self._times["busy"] += more(old.busy, new.busy)
        self._times["idle"] += more(old.idle, new.idle)
        self._switches += more(old.switches, new.switches)
        if new.wait is not None:
            self._wait = (self._wait or 0) + more(old.wait, new.wait)

    def _add_event(self, key: tuple[str, str], old: Reading | None, new: Reading) -> None:
        n = scaled(old, new).value
        self._events[key] = self._events.get(key, 0.0) + max(0.0, n or 0.0)
        ran, wanted = self._running.get(key, (0, 0))
        ran += more(old.running if old else None, new.running)
        self._running[key] = ran, wanted + more(old.enabled if old else None, new.enabled)

    def _add_tasks(self, old: PmcSample, new: PmcSample) -> None:
        crowd = self._crowd
        known = crowd.pids.get
        for pid, was, times in changed(old.tasks, new.tasks):
            began = was is None or times.clock < was.clock or times.switches < was.switches
            clock = times.clock if began or was is None else times.clock - was.clock
            self._migrations += (
                times.migrations
                if began or was is None
                else max(0, times.migrations - was.migrations)
            )
            if pid != IDLE and clock:
                owner = known(pid) or crowd.name(pid, new.comms.get(pid, ""))
                owner.tally[CPU] += clock
                owner.recent += clock / 1000
        rows = _changed_rows(old, new)
        for place, event in ((CYCLES, "cycles"), (INSTRUCTIONS, "instructions")):
            if event in new.events:
                ran, wanted = self._running.get((self._names.of(event), new.mode), (0, 0))
                # A stint's length and the time that its counters ran come from two clocks.
                count = exact if wanted and ran >= SCALED_BELOW * wanted else scaled
                for pid, before, reading in _readings(old, new, event, rows):
                    n = count(before, reading).value
                    if pid != IDLE and n:
                        owner = known(pid) or crowd.name(pid, new.comms.get(pid, ""))
                        owner.tally[place] += max(0.0, n)

    def families(self) -> Iterator[Family]:
        """What there is to expose."""
        yield counter(
            "probetop_cpu_events",
            "Events that the CPUs' counters counted, scaled where counters were shared.",
            ("event", "mode"), self._events.items(),
        )  # fmt: skip
        yield gauge(
            "probetop_cpu_event_running_ratio",
            "Share of the last interval in which a counter really counted the event.",
            ("event", "mode"),
            [(key, min(1.0, ran / all_)) for key, (ran, all_) in self._running.items() if all_],
        )  # fmt: skip
        yield counter(
            "probetop_cpu_seconds", "Time of all CPUs with a process (busy) and without (idle).",
            ("state",), [((state,), ns / 1e9) for state, ns in self._times.items()],
        )  # fmt: skip
        yield counter(
            "probetop_context_switches", "Switches from one task to another.",
            (), [((), self._switches)],
        )  # fmt: skip
        yield counter(
            "probetop_task_migrations", "Moves of tasks to another CPU.",
            (), [((), self._migrations)],
        )  # fmt: skip
        yield counter(
            "probetop_runqueue_wait_seconds",
            "Time that tasks waited for a CPU; absent where the kernel does not keep it.",
            (), [] if self._wait is None else [((), self._wait / 1e9)],
        )  # fmt: skip
        yield counter(
            "probetop_switches_unattributed",
            "Switches of processes that found no room in the table of processes.",
            (), [((), self._unattributed)],
        )  # fmt: skip
        yield from self._estimates.families()


def _changed_rows(old: PmcSample, new: PmcSample) -> Sequence[tuple[int, Row | None, Row]] | None:
    """The processes whose readings changed; None where Samples do not keep them by process."""
    before, after = old.readings, new.readings
    known = isinstance(before, Readings) and isinstance(after, Readings)
    if not known or before.events != after.events:  # type: ignore[attr-defined]
        return None
    return changed(before.rows, after.rows)  # type: ignore[attr-defined]


def _readings(
    old: PmcSample,
    new: PmcSample,
    event: str,
    rows: Sequence[tuple[int, Row | None, Row]] | None,
) -> Iterator[tuple[int, Reading | None, Reading]]:
    """One event's readings that changed, by process id; `rows` are those of _changed_rows."""
    events = new.readings.events if isinstance(new.readings, Readings) else ()
    if rows is None or event not in events:
        for (pid, name), was, reading in changed(old.readings, new.readings):
            if name == event:
                yield pid, was, reading
        return
    at = events.index(event)
    for pid, row, latest in rows:
        was, found = row[at] if row else None, latest[at]
        if found is not None and found is not was:
            yield pid, was, found
