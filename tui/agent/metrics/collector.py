# SPDX-License-Identifier: Apache-2.0
"""Everything that Prometheus scrapes, made of successive Frames.

The counters are kept here and only rise: a Frame adds the difference to the one before, also
when a probe was off in between, a filter changed, or processes came and went. Their number is
bounded whatever happens on the machine, and arguments of programs are never among the labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from prometheus_client import ProcessCollector

from probes.core.cgroup_names import describe
from probes.core.frame import Frame
from probes.host.cgroups import cgroup_of
from tui.agent.metrics.exposition import negotiated, written
from tui.agent.metrics.families import OTHER, Family, counter, gauge, label
from tui.agent.metrics.probe_collector import Collector
from tui.agent.metrics.probe_states import ProbeStates
from tui.agent.metrics.top_series import (
    CALLS,
    CPU,
    CYCLES,
    ERRORS,
    ESTIMATED_CALLS,
    ESTIMATED_CPU,
    ESTIMATED_CYCLES,
    ESTIMATED_ERRORS,
    ESTIMATED_INSTRUCTIONS,
    INSTRUCTIONS,
    Crowd,
    Tally,
)
from tui.agent.state.client_view import Sight, View
from tui.registry import REGISTRY

TOP, CGROUPS = 20, 50
"""How many names of a control group, and how many control groups, have series of their own."""
EVERYTHING = View()
_LABELS = ("cgroup", "unit", "pod", "namespace", "container", "comm")
_PER_PROCESS = (
    ("probetop_process_syscalls", CALLS, 1.0, "System calls of the processes."),
    ("probetop_process_syscall_errors", ERRORS, 1.0,
     "System calls of the processes that returned an error."),
    ("probetop_process_cpu_seconds", CPU, 1e9, "Time of the processes on a CPU."),
    ("probetop_process_cycles", CYCLES, 1.0, "CPU cycles of the processes."),
    ("probetop_process_instructions", INSTRUCTIONS, 1.0, "Instructions of the processes."),
    ("probetop_process_syscalls_estimated", ESTIMATED_CALLS, 1.0,
     "System calls of the processes that bursts stand for, an estimate."),
    ("probetop_process_syscall_errors_estimated", ESTIMATED_ERRORS, 1.0,
     "Those of them that returned an error, an estimate."),
    ("probetop_process_cpu_seconds_estimated", ESTIMATED_CPU, 1e9,
     "Time of the processes on a CPU that bursts stand for, an estimate."),
    ("probetop_process_cycles_estimated", ESTIMATED_CYCLES, 1.0,
     "CPU cycles of the processes that bursts stand for, an estimate."),
    ("probetop_process_instructions_estimated", ESTIMATED_INSTRUCTIONS, 1.0,
     "Instructions of the processes that bursts stand for, an estimate."),
)  # fmt: skip


class Named(Protocol):
    """What people call a control group; None for what is not known."""

    @property
    def unit(self) -> str | None: ...
    @property
    def pod(self) -> str | None: ...
    @property
    def namespace(self) -> str | None: ...
    @property
    def container(self) -> str | None: ...


class Metrics:
    """The series of one machine.

    `top` names in each of `cgroups` control groups have series of their own. `name_of` tells
    what people call a control group, by its path.
    """

    def __init__(
        self,
        *,
        top: int = TOP,
        cgroups: int = CGROUPS,
        name_of: Callable[[str], Named] | None = None,
        read: Callable[[int], str | None] = cgroup_of,
        views: Mapping[Sight, View] | None = None,
    ) -> None:
        """`views` are what kinds of clients see; without them each sees everything."""
        self._views = views or {}
        self.crowd = Crowd(top, cgroups, read)
        self._name_of = name_of
        self._states = ProbeStates()
        self._collectors: dict[str, Collector] = {
            entry.name: entry.collector_class()(entry.name, entry.sample_class().schema, self.crowd)
            for entry in REGISTRY
        }
        self._bodies: dict[tuple[str, Sight], tuple[bytes, str]] = {}
        self._process = ProcessCollector(registry=None)

    def add(self, frame: Frame) -> None:
        """Count what is new in a Frame; every one must come here, in order."""
        self._bodies.clear()
        self.crowd.begin(frame.mono)
        self._states.add(frame)
        for name, one in sorted(self._collectors.items(), key=lambda item: not item[1].comes_first):
            if name in frame.samples:
                one.add(frame.samples[name], frame.mono)
        if self.crowd.end():
            collectors = self._collectors.values()
            known = [one.knows for one in collectors if type(one).knows is not Collector.knows]
            self.crowd.keep(lambda pid: any(knows(pid) for knows in known))
            self.crowd.rank()

    def collect(self, view: View = EVERYTHING) -> list[Family]:
        """All series as they stand now, as a view has them; empty families are left out."""
        everything = [
            *self._states.families(),
            *[family for one in self._collectors.values() for family in one.families(view)],
            *self._processes(view.names),
            *self._own(),
        ]
        return [family for family in everything if family.points]

    def render(self, accept: str, sight: Sight = "all") -> tuple[bytes, str]:
        """The body for a scraper's Accept header and what it sees, and its content type.

        Until the next Frame nobody gets another one: who asks often costs little.
        """
        key = negotiated(accept), sight
        if key not in self._bodies:
            view = self._views.get(sight, EVERYTHING)
            self._bodies[key] = written(self.collect(view), key[0])
        return self._bodies[key]

    def _processes(self, told: bool) -> Iterator[Family]:
        """By process name; `told` is whether names that runtimes told are seen."""
        points: list[tuple[tuple[str, ...], Tally]] = [
            ((*self._named(cgroup, told), comm), tally)
            for cgroup, comm, tally in self.crowd.tallies()
        ]
        for name, place, unit, text in _PER_PROCESS:
            yield counter(
                name,
                f"{text} By name and control group; what has no series of its own is `{OTHER}`.",
                _LABELS,
                [(labels, tally[place] / unit) for labels, tally in points if tally[place]],
            )
        yield gauge(
            "probetop_process_series", "Names that have series of their own.", (),
            [((), sum([len(group.own) for group in self.crowd.groups.values()]))],
        )  # fmt: skip

    def _named(self, cgroup: str, told: bool) -> tuple[str, ...]:
        """The labels of a control group."""
        if self._name_of is None or not cgroup or cgroup == OTHER:
            return (label(cgroup), "", "", "", "")
        name = self._name_of(cgroup) if told else describe(cgroup)
        parts = (name.unit, name.pod, name.namespace, name.container)
        return (label(cgroup), *map(label, parts))

    def _own(self) -> Iterator[Family]:
        """What the process that counts costs, by the usual names."""
        for metric in self._process.collect():
            kind = counter if metric.type == "counter" else gauge
            yield kind(
                metric.name, metric.documentation, (), [((), s.value) for s in metric.samples]
            )
