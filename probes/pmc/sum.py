# SPDX-License-Identifier: Apache-2.0
"""Counters over a span: what many intervals counted together, see `probes.sums.accumulators`."""

from __future__ import annotations

from collections.abc import Container, Mapping
from heapq import nsmallest
from typing import Any, cast

from probes.core.adding import add_readings, add_times, keep_first, only
from probes.core.changes import loses
from probes.core.estimates import add_all, estimate_delta
from probes.core.readings import Reading
from probes.core.sample import NOT_ESTIMATED, Estimate, Sample
from probes.pmc.bursts import CLOCK
from probes.pmc.sample import CpuTimes, PmcSample, TaskTimes
from probes.pmc.view import scaled
from probes.sums.accumulators import MOST_KEYS, MOST_NAMES, MOST_ROWS, SampleSum, Tick
from probes.sums.retention import KEPT, leave


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


def least_active(
    tasks: Mapping[int, TaskTimes],
    readings: Mapping[tuple[int, str], Reading],
    alive: Container[int],
) -> set[int]:
    """Processes that neither live nor are among the first by cycles or by time."""

    def cycles(pid: int) -> float:
        reading = readings.get((pid, "cycles"))
        return 0.0 if reading is None else scaled(None, reading).value or 0.0

    # Which of the two counts is known at the end only.
    first = set(nsmallest(KEPT, tasks, key=lambda pid: (-tasks[pid].clock, pid)))
    first |= set(nsmallest(KEPT, tasks, key=lambda pid: (-cycles(pid), -tasks[pid].clock, pid)))
    return {pid for pid in tasks if pid not in first and pid not in alive}
