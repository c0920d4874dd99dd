# SPDX-License-Identifier: Apache-2.0
"""Creation of threads and processes, counted per CPU."""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import ClassVar

from msgspec import Struct
from probes.forks.sample import ForkSample

from probes.bpf.control_page import FILTER_HELPERS, FILTER_OFFSETS, Control, filter_defines
from probes.bpf.maps import MappedArray
from probes.bpf.plan import Attach, Loaded, Params, Plan
from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.sample import Sample
from probes.ipc.messages import CpuCount
from probes.probe import Probe

_CREATED = struct.Struct("=Q56x")
"""struct created of forks.bpf.c."""


class Facts(Struct):
    """Facts from the loader: the number of possible CPUs."""

    cpus: CpuCount


class ForkProbe(Probe):
    """Counts created threads; a process is created with its first one. It has no options."""

    name: ClassVar[str] = "forks"
    sample_type: ClassVar[type[Sample]] = ForkSample

    def __init__(self) -> None:
        super().__init__()
        self.generation = 0
        self._created: MappedArray | None = None

    @staticmethod
    def plan(params: Params) -> Plan:
        """One program on the scheduler's event."""
        cpus = kernel.possible_cpus()
        return Plan(
            source="forks/forks.bpf.c",
            attach=[Attach(kind="raw_tracepoint", function="on_fork", target="sched_process_fork")],
            maps=["control", "created"],
            defines={**filter_defines(), "PT_CPUS": cpus},
            helpers=FILTER_HELPERS,
            offsets=FILTER_OFFSETS,
            facts={"cpus": cpus},
        )

    def adopt(self, loaded: Loaded) -> None:
        """Begin to count."""
        self.release()
        cpus = loaded.facts_as(Facts).cpus
        self._control = Control(loaded.maps.pop("control"))
        self._created = MappedArray(loaded.maps.pop("created"), _CREATED.size, cpus)
        with suppress(ProbeError):  # a cgroup that has gone matches nothing
            self._control.set_filters(self.filters, self.started)
        self._control.enable(True)
        self.meter.adopt(loaded)

    def release(self) -> None:
        """Unmap and detach; counting starts from zero when it is switched on again."""
        if self._control is None or self._created is None:
            return
        self._control.enable(False)
        self._control.close()
        self._created.close()
        self._control = self._created = None
        self.generation += 1
        self.meter.release()

    def read(self, now: float) -> ForkSample:
        """Counters until now."""
        self.drain()
        return ForkSample(
            state="on",
            generation=self.generation,
            lost=self.meter.missed(),
            cost=self.meter.cost(now),
            notes=self.meter.notes,
            created=self._counters(),
        )

    def drain(self) -> None:
        """Counters need no reading in between; tells the meter how many events there were."""
        self.meter.events = sum(self._counters().values())

    def _counters(self) -> dict[int, int]:
        array = self._created
        if array is None:
            return {}
        counts = {
            cpu: _CREATED.unpack_from(array.memory, cpu * array.stride)[0]
            for cpu in range(array.entries)
        }
        return {cpu: count for cpu, count in counts.items() if count}
