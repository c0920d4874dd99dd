# SPDX-License-Identifier: Apache-2.0
"""Hardware and software counters in a Frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, NamedTuple

from probes.core.limits import AtMost, Count, Cpu, Id, Name, Total
from probes.core.readings import Reading
from probes.core.sample import Estimate, Sample
from probes.core.schema import Schema
from probes.pmc.schema import PMC


class TaskTimes(NamedTuple):
    """What a process did with CPUs, cumulative: nanoseconds on one, switches away from it.

    `migrations` are moves to another CPU, `wait` nanoseconds runnable without a CPU (None
    where the kernel does not keep that).
    """

    clock: Total
    switches: Total
    migrations: Total
    wait: Total | None


class CpuTimes(NamedTuple):
    """What a CPU did, cumulative: nanoseconds with a process and without, switches, wait.

    `wait` is what those that got this CPU had waited for one, in ns (None: not kept).
    """

    busy: Total
    idle: Total
    switches: Total
    wait: Total | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PmcSample(Sample):
    """Hardware and software counters, by CPU and by process, since the probe was switched on.

    `events` are what is counted, in the order of showing, by perf's names ("cycles",
    "page-faults"); `absent` has those of the set that are not, each with why. `hardware`
    tells whether any of them is a hardware counter, `reason` why not. Keys of `readings` are
    (process id, event), of `cpu_readings` (CPU, event); process 0 is idle. A CPU's readings
    are of all that ran there, idle too, as `perf stat -C` has it. `kinds` names the PMU of a
    CPU where there are several kinds of them, `sockets` its socket. `unattributed` counts
    switches of processes that found no row.

    While switches are looked at in bursts, counters of a CPU's own go on counting exactly:
    `cpu_readings` of all events but page faults. All else is estimated, by quantity (an event, or
    a name of `probes.pmc.bursts`): of processes, of CPUs, and of all CPUs together.
    """

    schema: ClassVar[Schema] = PMC

    hardware: bool = False
    reason: str | None = None
    event_set: Name = "base"
    mode: Literal["all", "user", "kernel"] = "all"
    events: Annotated[tuple[Name, ...], AtMost(100)] = ()
    absent: Annotated[Mapping[Name, str], AtMost(1000)] = field(default_factory=dict)
    tasks: Mapping[Id, TaskTimes] = field(default_factory=dict)
    readings: Mapping[tuple[Id, Name], Reading] = field(default_factory=dict)
    cpus: Mapping[Cpu, CpuTimes] = field(default_factory=dict)
    cpu_readings: Mapping[tuple[Cpu, Name], Reading] = field(default_factory=dict)
    comms: Mapping[Id, Name] = field(default_factory=dict)
    kinds: Mapping[Cpu, Name] = field(default_factory=dict)
    sockets: Mapping[Cpu, Cpu] = field(default_factory=dict)
    unattributed: Count = 0
    estimated: Mapping[tuple[Id, Name], Estimate] = field(default_factory=dict)
    estimated_cpus: Mapping[tuple[Cpu, Name], Estimate] = field(default_factory=dict)
    estimated_machine: Mapping[Name, Estimate] = field(default_factory=dict)

    def counts_as(self, before: PmcSample) -> bool:
        """Not with other events, or where those are counted."""
        same = (before.mode, before.event_set) == (self.mode, self.event_set)
        return same and set(self.events) <= set(before.events)
