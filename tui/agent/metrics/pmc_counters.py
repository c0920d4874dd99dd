# SPDX-License-Identifier: Apache-2.0
"""Counters of hardware and scheduler, made of successive Samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from probes.core.changes import changed
from probes.core.readings import Reading, Readings, Row
from probes.core.sample import Sample
from probes.core.schema import Schema
from probes.core.tables import comparable
from probes.pmc.bursts import CLOCK
from probes.pmc.sample import CpuTimes, PmcSample
from probes.pmc.view import SCALED_BELOW, exact, scaled
from tui.agent.metrics.estimates import PmcEstimates
from tui.agent.metrics.families import Family, Names, counter, gauge
from tui.agent.metrics.increases import more
from tui.agent.metrics.probe_collector import Collector
from tui.agent.metrics.top_series import CPU, CYCLES, INSTRUCTIONS, Crowd
from tui.agent.state.client_view import View

MOST_EVENTS = 64
"""Most events of the CPUs; their names can be the user's own."""
IDLE = 0
"""The process id of what CPUs do without a process."""


class PmcCounters(Collector):
    """Hardware and software counters of the machine, and what processes had of them."""

    def __init__(self, name: str, schema: Schema, crowd: Crowd) -> None:
        super().__init__(name, schema, crowd)
        self._last: PmcSample | None = None
        self._names = Names(MOST_EVENTS)
        self._events: dict[tuple[str, str], float] = {}
        self._running: dict[tuple[str, str], tuple[int, int]] = {}
        self._times = {"busy": 0, "idle": 0}
        self._switches = self._migrations = self._unattributed = 0
        self._wait: int | None = None
        self._estimates = PmcEstimates(crowd)

    def add(self, new: Sample, now: float) -> None:
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
        crowd = self.crowd
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

    def families(self, view: View) -> Iterator[Family]:
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
