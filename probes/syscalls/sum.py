# SPDX-License-Identifier: Apache-2.0
"""System calls over a span: what many intervals counted together.

See `probes.sums.accumulators`.
"""

from __future__ import annotations

from heapq import nsmallest
from typing import Any, cast

from probes.core.adding import add_histogram, add_pairs, add_to, keep_first, only
from probes.core.changes import loses
from probes.core.delta import count_delta, histogram_delta, int_delta
from probes.core.estimates import (
    add_all,
    estimate_delta,
    estimate_object,
    estimates_delta,
    with_estimates,
)
from probes.core.process_keys import pid_of
from probes.core.sample import NONE_ESTIMATED, Counts, Estimate, Estimates, Histogram, Sample
from probes.sums.accumulators import MOST_KEYS, MOST_NAMES, MOST_ROWS, MOST_TIMED, SampleSum, Tick
from probes.sums.retention import KEPT, Left, leave, without_first
from probes.syscalls.sample import SyscallSample


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

    def finish(self, sample: Sample, own: dict[str, Any], left: Left) -> dict[str, Any]:
        """With the matrix of processes and calls, and what was estimated in all."""
        assert isinstance(sample, SyscallSample)
        own["matrix"] = matrix_rows(sample, left)
        if sample.duty is not None:
            own |= estimate_object(sample.estimated_total, sample.duty)
        own["untimed"] = sample.missed if sample.latency is not None else None
        return own

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


def matrix_rows(sample: SyscallSample, left: Left) -> list[dict[str, Any]]:
    """Which process made which calls, most calls first; what is behind those is left out."""
    matrix, estimated = (
        with_estimates(sample.matrix, sample.estimated_matrix),
        sample.estimated_matrix,
    )
    keys = nsmallest(KEPT, matrix, key=lambda key: (-matrix[key].n, key))
    if len(keys) < len(matrix):
        first = [matrix[key] for key in keys]
        rest = {
            name: sum([n[at] for n in matrix.values()]) - sum([n[at] for n in first])
            for at, name in enumerate(("count", "errors"))
        }
        known = sum([estimated[key].n for key in keys if key in estimated])
        if more := sum([n.n for n in estimated.values()]) - known:
            rest["estimated"] = more
        leave(left, "matrix", len(matrix) - len(keys), **rest)
    return [
        {
            "pid": pid_of(pid),
            "comm": sample.comms.get(pid, "?"),
            "syscall": name,
            "count": matrix[pid, name].n,
            "errors": matrix[pid, name].errors,
            **estimate_object(estimated.get((pid, name)), sample.duty),
        }
        for pid, name in keys
    ]
