# SPDX-License-Identifier: Apache-2.0
"""Counters of system calls, made of successive Samples."""

from __future__ import annotations

from collections.abc import Iterator

from probes.core.changes import changed
from probes.core.sample import Sample
from probes.core.schema import Schema
from probes.core.tables import comparable
from probes.syscalls.sample import SyscallSample
from tui.agent.metrics.estimates import SyscallEstimates
from tui.agent.metrics.families import OTHER, Family, Names, counter, gauge, label
from tui.agent.metrics.histogram import Spread
from tui.agent.metrics.increases import more, more_counts, more_of, more_spent
from tui.agent.metrics.probe_collector import Collector
from tui.agent.metrics.top_series import CALLS, ERRORS, Crowd
from tui.agent.state.client_view import View

MOST_CALLS, MOST_UNKNOWN = 1024, 32
"""Most names of system calls; of those, calls without a name ("syscall_999")."""
MOST_ERRNOS = 2048
"""Most pairs of a call and an errno; further errnos of a call are `other`."""
MOST_TIMED = 192


class CallNames:
    """Labels of system calls."""

    def __init__(self) -> None:
        self._named, self._unknown = Names(MOST_CALLS), Names(MOST_UNKNOWN)

    def of(self, name: str) -> str:
        """The label; anybody can call 512 numbers that have no name, and few get one."""
        unknown = name.removeprefix("compat:").startswith("syscall_")
        return (self._unknown if unknown else self._named).of(name)


class SyscallCounters(Collector):
    """System calls, their errors and durations."""

    def __init__(self, name: str, schema: Schema, crowd: Crowd) -> None:
        super().__init__(name, schema, crowd)
        self._last: SyscallSample | None = None
        self._names = CallNames()
        self._calls: dict[str, int] = {}
        self._errors: dict[tuple[str, str], int] = {}
        self._spent: dict[str, Spread] = {}
        self._missed = self._unattributed = 0
        self._every: int | None = None
        self._estimates = SyscallEstimates(crowd, self._names.of)

    def add(self, new: Sample, now: float) -> None:
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
        self.crowd.rest[CALLS] += unattributed
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
        crowd = self.crowd
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

    def families(self, view: View) -> Iterator[Family]:
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
