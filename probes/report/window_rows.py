# SPDX-License-Identifier: Apache-2.0
"""Tables by process over a window: every interval's own difference, added up.

A process that ended is forgotten some seconds later, so the difference of a window's last Frame
and its first lacks all that ended within it. When the window moves on, what its new interval
counted is added and what its first one counted is subtracted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from heapq import nlargest
from operator import add, sub
from typing import Any

from probes.core.adding import reading_delta
from probes.core.changes import changed, gone
from probes.core.delta import count_delta
from probes.core.estimates import estimate_delta, estimates_delta
from probes.core.readings import Reading
from probes.core.sample import Counts, Estimate, Estimates, Sample
from probes.latency.sample import LatencySample, Spent
from probes.latency.view import continued, spent_delta
from probes.pmc.sample import PmcSample, TaskTimes
from probes.syscalls.sample import SyscallSample

ROOM = 20_000
"""Rows of a table from which on those of ended processes are left out that count least."""
KEPT = 2_000
"""Rows of ended processes that stay then: more than a screen shows."""

Numbers = tuple[Any, ...]
Rows = Iterable[tuple[Any, Numbers]]


def _matrix(old: Any, new: Any) -> Rows:
    return count_delta(old.matrix, new.matrix).items()


def _estimated(old: Any, new: Any) -> Rows:
    return estimates_delta(old.estimated_matrix, new.estimated_matrix).items()


def _of_processes(old: Any, new: Any) -> Rows:
    return estimates_delta(old.estimated_processes, new.estimated_processes).items()


def _processes(old: Any, new: Any) -> Rows:
    return spent_delta(continued(old, new).processes, new.processes).items()


def _texts(old: Any, new: Any) -> Rows:
    return spent_delta(continued(old, new).texts, new.texts).items()


def _sampled(old: Any, new: Any) -> Rows:
    before = continued(old, new).estimated_processes
    return estimate_delta(before, new.estimated_processes).items()


def _sampled_texts(old: Any, new: Any) -> Rows:
    return estimate_delta(continued(old, new).estimated_texts, new.estimated_texts).items()


def _tasks(old: Any, new: Any) -> Rows:
    for pid, before, after in changed(old.tasks, new.tasks):
        if before is None or after.clock < before.clock or after.switches < before.switches:
            yield pid, after
        elif before != after:
            yield pid, _pairwise(sub, after, before)


def _readings(old: Any, new: Any) -> Rows:
    for key, before, after in changed(old.readings, new.readings):
        if before != after:
            yield key, reading_delta(before, after)


def _by_quantity(old: Any, new: Any) -> Rows:
    return estimate_delta(old.estimated, new.estimated).items()


def _pairwise(do: Callable[[int, int], int], some: Numbers, more: Numbers) -> Numbers:
    return tuple(
        [None if a is None or b is None else do(a, b) for a, b in zip(some, more, strict=True)]
    )


Table = tuple[Callable[[Any, Any], Rows], Callable[..., Any]]
TABLES: Mapping[type[Sample], Mapping[str, Table]] = {
    SyscallSample: {
        "matrix": (_matrix, Counts),
        "estimated_matrix": (_estimated, Estimates),
        "estimated_processes": (_of_processes, Estimates),
    },
    LatencySample: {
        "processes": (_processes, Spent),
        "texts": (_texts, Spent),
        "estimated_processes": (_sampled, Estimate),
        "estimated_texts": (_sampled_texts, Estimate),
    },
    PmcSample: {
        "tasks": (_tasks, TaskTimes),
        "readings": (_readings, Reading),
        "estimated": (_by_quantity, Estimate),
    },
}
"""The tables from which ended processes disappear: how to compare them, and what rows are."""


class RowSum:
    """The sums of one probe's tables by process; Samples of other probes stay as they are."""

    def __init__(self, kind: type[Sample]) -> None:
        self._kinds = TABLES.get(kind, {})
        self._tables: dict[str, dict[Any, Any]] = {name: {} for name in self._kinds}
        self._names: dict[int, str] = {}
        self._room = dict.fromkeys(self._kinds, ROOM)

    def add(self, old: Sample, new: Sample) -> None:
        """Take in the interval between two Samples that may be compared."""
        for name, (delta, kind) in self._kinds.items():
            table = self._tables[name]
            for key, numbers in delta(old, new):
                known = table.get(key)
                table[key] = kind(*(_pairwise(add, known, numbers) if known else numbers))
            if len(table) > self._room[name]:
                self._leave_out(name, getattr(new, name))
        if self._kinds:
            comms = old.comms  # type: ignore[attr-defined]
            self._names.update({pid: comms[pid] for pid in gone(comms, new.comms)})  # type: ignore[attr-defined]
            if len(self._names) > ROOM:
                self._forget_names()

    def subtract(self, old: Sample, new: Sample) -> None:
        """Take out an interval that was added before; rows that were left out stay so."""
        for name, (delta, kind) in self._kinds.items():
            table = self._tables[name]
            for key, numbers in delta(old, new):
                known = table.get(key)
                if known is None:
                    continue
                rest = _pairwise(sub, known, numbers)
                if rest[0] <= 0 and not any(rest[1:]):
                    del table[key]
                else:
                    table[key] = kind(*[None if n is None else max(0, n) for n in rest])

    def between(self, old: Sample, new: Sample) -> tuple[Sample, Sample]:
        """Two Samples of which the tables' difference is the sum; all else is that of `old`, `new`.

        They are good until the next interval is taken in.
        """
        if not self._kinds:
            return old, new
        nothing: dict[str, Any] = {name: {} for name in self._kinds}
        names = {**self._names, **new.comms}  # type: ignore[attr-defined]
        fields: dict[str, Any] = {**self._tables, "comms": names}
        return replace(old, **nothing), replace(new, **fields)

    def _leave_out(self, name: str, alive: Mapping[Any, Any]) -> None:
        table = self._tables[name]
        ended = [key for key in table if key not in alive]
        first = set(nlargest(KEPT, ended, key=lambda key: table[key][0]))
        self._tables[name] = kept = {
            key: row for key, row in table.items() if key in alive or key in first
        }
        self._room[name] = max(ROOM, 2 * len(kept))

    def _forget_names(self) -> None:
        pids: set[Any] = set()
        for table in self._tables.values():
            for key in table:
                pids.update(key if isinstance(key, tuple) else (key,))
        self._names = {pid: name for pid, name in self._names.items() if pid in pids}
