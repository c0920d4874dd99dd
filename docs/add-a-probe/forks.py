# SPDX-License-Identifier: Apache-2.0
"""Creation of threads and processes, counted per CPU."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, cast

from probes.fork_sample import ForkSample

from probes import kernel
from probes.base import Attach, Loaded, Params, Plan, ProbeError
from probes.control import FILTER_HELPERS, FILTER_OFFSETS, Control, filter_defines
from probes.cost import Meter
from probes.governor import ALL_OR_NOTHING, Part
from probes.maps import MappedArray
from probes.messages import BurstReport
from probes.model import int_delta
from probes.samples import Filters, Sample

_CREATED = struct.Struct("=Q56x")
"""struct created of forks.bpf.c."""


class ForkProbe:
    """Counts created threads; a process is created with its first one. It has no options."""

    name: ClassVar[str] = "forks"
    options: ClassVar[Mapping[str, Any]] = {}
    sample_type: ClassVar[type[Sample]] = ForkSample

    def __init__(self) -> None:
        self.meter = Meter()
        self.filters = Filters()
        self.started: int | None = None
        self.generation = 0
        self._control: Control | None = None
        self._created: MappedArray | None = None

    @staticmethod
    def plan(params: Params) -> Plan:
        """One program on the scheduler's event."""
        cpus = kernel.possible_cpus()
        return Plan(
            source="forks.bpf.c",
            attach=[Attach(kind="raw_tracepoint", function="on_fork", target="sched_process_fork")],
            maps=["control", "created"],
            defines={**filter_defines(), "PT_CPUS": cpus},
            helpers=FILTER_HELPERS,
            offsets=FILTER_OFFSETS,
            facts={"cpus": cpus},
        )

    @staticmethod
    def contract(before: Sample | None, after: Sample, seconds: float) -> dict[str, Any]:
        """`cpus` of a stream object: threads created in the interval, by CPU."""
        old = {} if before is None else cast(ForkSample, before).created
        made = int_delta(old, cast(ForkSample, after).created)
        return {"cpus": [{"cpu": cpu, "created": count} for cpu, count in sorted(made.items())]}

    def params(self) -> Params:
        """Nothing: there is one way to load it."""
        return {}

    def adopt(self, loaded: Loaded) -> None:
        """Begin to count."""
        self.release()
        cpus = loaded.facts["cpus"]
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

    def wait_fds(self) -> Sequence[int]:
        """None: nothing is sent."""
        return ()

    def set_filters(self, filters: Filters, started: int | None = None) -> None:
        """Count from the next event on what passes; raises ProbeError."""
        if self._control is not None:
            self._control.set_filters(filters, started)
        self.filters, self.started = filters, started

    def check_option(self, option: str, value: Any) -> None:
        """Raises ProbeError: there are no options."""
        raise ProbeError(f"forks has no option {option}", "it has none")

    def set_option(self, option: str, value: Any) -> bool:
        """Raises ProbeError: there are no options."""
        self.check_option(option, value)
        return False

    def refuse(self, why: str, fix: str) -> bool:
        """Nothing is asked for while it runs."""
        return False

    def parts(self) -> Sequence[Part]:
        """All of it."""
        return (Part("", ALL_OR_NOTHING, 0),)

    def give_up(self, what: str, level: int, why: str, fix: str) -> bool:
        """Nothing: the live source detaches the whole."""
        return False

    def burst(self, report: BurstReport) -> None:
        """It is attached always, or not at all."""

    def uncounted(self, now: float) -> float:
        """None."""
        return 0.0

    def given_up(self) -> str | None:
        """Nothing."""
        return None

    def last_seen(self, before: Sample | None, seconds: float) -> str:
        """Nothing beyond what was shown."""
        return ""

    def _counters(self) -> dict[int, int]:
        array = self._created
        if array is None:
            return {}
        counts = {
            cpu: _CREATED.unpack_from(array.memory, cpu * array.stride)[0]
            for cpu in range(array.entries)
        }
        return {cpu: count for cpu, count in counts.items() if count}
