# SPDX-License-Identifier: Apache-2.0
"""Counters of a recording, without making its Frames, see `probes.report.recording_totals`."""

from __future__ import annotations

from itertools import accumulate

from probes.core.readings import Reading
from probes.pmc.sample import CpuTimes, PmcSample, TaskTimes
from probes.pmc.sum import PmcSum
from probes.sums.accumulators import SampleSum
from probes.sums.counter_tables import Table, Unusual
from probes.sums.record_fields import COMMS, TEXTS, Fields
from probes.sums.recorded_counts import Counted

MOST_NAMES = 400_000
"""Names of processes; half of them are of such as still live, or counted something."""


class Pmc(Counted):
    """Counters and CPU time, by process and by CPU."""

    kind = PmcSample

    def __init__(self) -> None:
        super().__init__()
        self.tables = {
            "tasks": Table(2), "cpus": Table(2), "readings": Table(2), "cpu_readings": Table(2),
        }  # fmt: skip
        self.later("cpus", "cpu_readings")
        self._events: tuple[str, ...] = ()
        self._all: tuple[str, ...] | None = None
        self._comms: dict[int, str] = {}
        self._named: set[int] = set()

    def _take(self, fields: Fields, whole: bool) -> None:
        events, comms = bytes(fields.events), bytes(fields.comms)
        if events or whole:
            self._events = tuple(TEXTS.decode(events)) if events else ()
        if whole:
            self._named = set()
        if comms:
            columns = COMMS.decode(comms)
            names = dict(zip(accumulate(columns.keys), columns.values, strict=True))
            self._named.difference_update(accumulate(columns.gone))
            self._named |= names.keys()
            self._comms |= names
        if len(self._comms) > MOST_NAMES:
            self._forget()

    def _forget(self) -> None:
        """Leave out the names of processes that neither live nor counted anything."""
        known = self.tables["readings"].keys()
        pids = self._named | self.tables["tasks"].keys()
        pids |= {pid for pid, _ in known}
        self._comms = {pid: comm for pid, comm in self._comms.items() if pid in pids}
        if len(self._comms) > MOST_NAMES // 2:
            raise Unusual("too many names")

    def counted(self, seconds: float) -> None:
        if self.state == "on" and self._all != self._events:
            before = self._events if self._all is None else self._all
            self._all = tuple([event for event in self._events if event in before])

    def sum(self) -> SampleSum:
        total, tables = PmcSum(), {name: table.sums() for name, table in self.tables.items()}
        total._events, total._comms = self._all, self._comms
        total._tasks = {key: TaskTimes(*v) for key, v in tables["tasks"].items()}
        total._cpus = {key: CpuTimes(*v) for key, v in tables["cpus"].items()}
        total._readings = {key: Reading(*v) for key, v in tables["readings"].items()}
        total._cpu_readings = {key: Reading(*v) for key, v in tables["cpu_readings"].items()}
        return total
