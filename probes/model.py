# SPDX-License-Identifier: Apache-2.0
"""Rates, shares and percentiles: what two Samples say about the time between them.

Everything here is pure. `before` is None, or of another generation, when counting began in
this interval: then all that `after` holds counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from probes import hdr
from probes.samples import Counts, Frame, Histogram, SyscallSample

K = TypeVar("K")
NONE = Counts(0, 0)


def seconds_between(before: Frame | None, after: Frame) -> float:
    """The measured length of the interval that ends with `after`, in seconds."""
    if before is None or after.mono <= before.mono:
        return after.interval
    return after.mono - before.mono


def count_delta(before: Mapping[K, Counts], after: Mapping[K, Counts]) -> dict[K, Counts]:
    """What was added per key; keys that did not change are absent."""
    delta: dict[K, Counts] = {}
    for key, new in after.items():
        old = before.get(key)
        if old is new or old == new:
            continue
        if old is None or new.n < old.n:  # forgotten and back: it counts from zero
            delta[key] = new
        else:
            delta[key] = Counts(new.n - old.n, new.errors - old.errors)
    return delta


def int_delta(before: Mapping[K, int], after: Mapping[K, int]) -> dict[K, int]:
    """As `count_delta`, for plain numbers."""
    return {
        key: new - before.get(key, 0) for key, new in after.items() if new != before.get(key, 0)
    }


def histogram_delta(before: Histogram | None, after: Histogram) -> Histogram:
    """The durations that ended in the interval."""
    if before is None or after.n < before.n:
        return after
    if before is after:
        return Histogram({}, 0, 0)
    buckets = int_delta(before.buckets, after.buckets)
    return Histogram(buckets, after.n - before.n, after.total - before.total)


@dataclass(slots=True)
class CallRow:
    """One system call in an interval: counts of the interval, durations in ns or None."""

    name: str
    count: int
    errors: int
    errnos: dict[str, int] = field(default_factory=dict)
    p50: float | None = None
    p99: float | None = None
    maximum: float | None = None
    total: int | None = None


@dataclass(slots=True)
class ProcessRow:
    """One process in an interval: its system calls and how many of them failed."""

    pid: int
    comm: str
    count: int
    errors: int


@dataclass(slots=True)
class SyscallView:
    """System calls in one interval of `seconds`: by call, by process and both together."""

    seconds: float
    count: int
    errors: int
    calls: list[CallRow]
    processes: list[ProcessRow]
    matrix: dict[tuple[int, str], Counts]
    unattributed: int
    comms: Mapping[int, str]

    def processes_of(self, call: str) -> list[ProcessRow]:
        """Who made this call, most first."""
        rows = [
            ProcessRow(pid, self.comms.get(pid, "?"), n.n, n.errors)
            for (pid, name), n in self.matrix.items()
            if name == call
        ]
        return sorted(rows, key=lambda row: (-row.count, row.pid))

    def calls_of(self, pid: int) -> list[CallRow]:
        """What this process called, most first; errno names and durations are not kept."""
        rows = [
            CallRow(name, n.n, n.errors) for (owner, name), n in self.matrix.items() if owner == pid
        ]
        return sorted(rows, key=lambda row: (-row.count, row.name))


def _comparable(before: SyscallSample | None, after: SyscallSample) -> SyscallSample:
    """`before` where subtracting it is right, else the empty sample."""
    if before is None or before.generation != after.generation:
        return SyscallSample(generation=after.generation)
    return before


def _call_row(name: str, counts: Counts, before: SyscallSample, after: SyscallSample) -> CallRow:
    row = CallRow(name, counts.n, counts.errors)
    latest = (after.latency or {}).get(name)
    if latest is not None:
        spent = histogram_delta((before.latency or {}).get(name), latest)
        if spent.n:
            row.p50 = hdr.percentile(spent.buckets, 0.50)
            row.p99 = hdr.percentile(spent.buckets, 0.99)
            row.maximum = hdr.maximum(spent.buckets)
            row.total = spent.total * after.sample_every
    return row


def syscall_view(before: SyscallSample | None, after: SyscallSample, seconds: float) -> SyscallView:
    """The interval between two Samples; rows are sorted, most calls first."""
    old = _comparable(before, after)
    changed = count_delta(old.calls, after.calls)
    calls = [_call_row(name, counts, old, after) for name, counts in changed.items()]
    by_name = {row.name: row for row in calls}
    for (name, errno), times in int_delta(old.errnos, after.errnos).items():
        if name in by_name:
            by_name[name].errnos[errno] = times
    matrix = count_delta(old.matrix, after.matrix)
    sums: dict[int, list[int]] = {}
    for (pid, _), n in matrix.items():
        entry = sums.setdefault(pid, [0, 0])
        entry[0] += n.n
        entry[1] += n.errors
    processes = [
        ProcessRow(pid, after.comms.get(pid, "?"), count, errors)
        for pid, (count, errors) in sums.items()
    ]
    return SyscallView(
        seconds=seconds,
        count=sum(row.count for row in calls),
        errors=sum(row.errors for row in calls),
        calls=sorted(calls, key=lambda row: (-row.count, row.name)),
        processes=sorted(processes, key=lambda row: (-row.count, row.pid)),
        matrix=matrix,
        unattributed=after.unattributed - old.unattributed,
        comms=after.comms,
    )
