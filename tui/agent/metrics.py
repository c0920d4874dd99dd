# SPDX-License-Identifier: Apache-2.0
"""Everything that Prometheus scrapes, made of successive Frames.

The counters are kept here and only rise: a Frame adds the difference to the one before, also
when a probe was off in between, a filter changed, or processes came and went. Their number is
bounded whatever happens on the machine, and arguments of programs are never among the labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from prometheus_client import ProcessCollector

from probes.cgroups import cgroup_of
from probes.samples import Frame
from tui.agent.metrics_crowd import (
    CALLS,
    CPU,
    CYCLES,
    ERRORS,
    INSTRUCTIONS,
    Crowd,
    Tally,
)
from tui.agent.metrics_exposition import negotiated, written
from tui.agent.metrics_family import OTHER, Family, counter, gauge, label
from tui.agent.metrics_probes import ExecCounters, PmcCounters, SyscallCounters
from tui.agent.metrics_states import ProbeStates
from tui.agent.metrics_targets import TargetCounters

TOP, CGROUPS = 20, 50
"""How many names of a control group, and how many control groups, have series of their own."""
_LABELS = ("cgroup", "unit", "pod", "namespace", "container", "comm")
_PER_PROCESS = (
    ("syscalls", CALLS, 1.0, "System calls of the processes."),
    ("syscall_errors", ERRORS, 1.0, "System calls of the processes that returned an error."),
    ("cpu_seconds", CPU, 1e9, "Time of the processes on a CPU."),
    ("cycles", CYCLES, 1.0, "CPU cycles of the processes."),
    ("instructions", INSTRUCTIONS, 1.0, "Instructions of the processes."),
)


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
    ) -> None:
        self.crowd = Crowd(top, cgroups, read)
        self._name_of = name_of
        self._states = ProbeStates()
        self._calls = SyscallCounters(self.crowd)
        self._execs = ExecCounters(self.crowd)
        self._targets = TargetCounters()
        self._pmc = PmcCounters(self.crowd)
        self._bodies: dict[str, tuple[bytes, str]] = {}
        self._process = ProcessCollector(registry=None)

    def add(self, frame: Frame) -> None:
        """Count what is new in a Frame; every one must come here, in order."""
        self._bodies.clear()
        self.crowd.begin(frame.mono)
        self._states.add(frame)
        samples = frame.samples
        # Executions tell which control group a process is in that has gone already.
        if "execs" in samples:
            self._execs.add(samples["execs"])
        if "syscalls" in samples:
            self._calls.add(samples["syscalls"])
        if "pmc" in samples:
            self._pmc.add(samples["pmc"])
        if "latency" in samples:
            self._targets.add(samples["latency"], frame.mono)
        if self.crowd.end():
            self.crowd.keep(lambda pid: self._calls.knows(pid) or self._pmc.knows(pid))
            self.crowd.rank()

    def collect(self) -> list[Family]:
        """All series as they stand now; families without any are left out."""
        everything = [
            *self._states.families(),
            *self._calls.families(),
            *self._execs.families(),
            *self._targets.families(),
            *self._pmc.families(),
            *self._processes(),
            *self._own(),
        ]
        return [family for family in everything if family.points]

    def render(self, accept: str) -> tuple[bytes, str]:
        """The body for a scraper's Accept header, and its content type.

        Until the next Frame nobody gets another one: who asks often costs little.
        """
        kind = negotiated(accept)
        if kind not in self._bodies:
            self._bodies[kind] = written(self.collect(), kind)
        return self._bodies[kind]

    def _processes(self) -> Iterator[Family]:
        points: list[tuple[tuple[str, ...], Tally]] = [
            ((*self._named(cgroup), comm), tally) for cgroup, comm, tally in self.crowd.tallies()
        ]
        for name, place, unit, text in _PER_PROCESS:
            yield counter(
                f"probetop_process_{name}",
                f"{text} By name and control group; what has no series of its own is `{OTHER}`.",
                _LABELS,
                [(labels, tally[place] / unit) for labels, tally in points if tally[place]],
            )
        yield gauge(
            "probetop_process_series", "Names that have series of their own.", (),
            [((), sum([len(group.own) for group in self.crowd.groups.values()]))],
        )  # fmt: skip

    def _named(self, cgroup: str) -> tuple[str, ...]:
        """The labels of a control group."""
        if self._name_of is None or not cgroup or cgroup == OTHER:
            return (label(cgroup), "", "", "", "")
        name = self._name_of(cgroup)
        parts = (name.unit, name.pod, name.namespace, name.container)
        return (label(cgroup), *map(label, parts))

    def _own(self) -> Iterator[Family]:
        """What the process that counts costs, by the usual names."""
        for metric in self._process.collect():
            kind = counter if metric.type == "counter" else gauge
            yield kind(
                metric.name, metric.documentation, (), [((), s.value) for s in metric.samples]
            )
