# SPDX-License-Identifier: Apache-2.0
"""What two Samples of system calls say about the time between them: rates, shares, percentiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from probes.core.delta import count_delta, histogram_delta, int_delta, percentiles
from probes.core.estimates import (
    duty_of,
    errors_of,
    estimate_delta,
    estimates_delta,
    with_estimates,
)
from probes.core.lazy_rows import Ranked
from probes.core.peak_values import maximum
from probes.core.process_keys import pid_of
from probes.core.sample import Counts, Duty, Estimates
from probes.syscalls.sample import SyscallSample


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

    `number` tells it from others with the same pid (see `probes.core.process_keys`). `estimated` of
    the calls are what bursts stand for; `error` is the standard error of the count then,
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


def _call_row(name: str, counts: Counts, before: SyscallSample, after: SyscallSample) -> CallRow:
    row = CallRow(name, counts.n, counts.errors)
    latest = (after.latency or {}).get(name)
    if latest is not None:
        spent = histogram_delta((before.latency or {}).get(name), latest)
        if spent.n:
            row.maximum, row.exact = maximum(spent)
            row.p50, row.p99 = percentiles(spent, (0.50, 0.99), row.maximum)
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
