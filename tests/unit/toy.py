# SPDX-License-Identifier: Apache-2.0
"""A probe that has nothing but a schema: every kind of measure, processes, and estimates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from probes.bpf.plan import Loaded, Params, Plan
from probes.core.limits import Count, Cpu, Id, Name, Total
from probes.core.sample import Estimate, Histogram, Sample
from probes.core.schema import KeyColumn, MeasureColumn, Schema, TableSchema
from probes.probe import Probe
from tui.registry import Entry


class Sent(NamedTuple):
    """Messages and bytes of a process, and what waits now."""

    messages: Total
    size: Total
    waiting: Count | None


PEER = KeyColumn(name="peer")
TOY = Schema(
    title="toys",
    tables=(
        TableSchema(
            name="peers",
            title="By process and peer",
            item="peer",
            field="sent",
            comms="comms",
            key=(KeyColumn(name="process", process=True), PEER),
            measures=(
                MeasureColumn(name="messages", help="sent"),
                MeasureColumn(name="size", unit="bytes"),
                MeasureColumn(name="waiting", kind="gauge"),
            ),
        ),
        TableSchema(
            name="cpus", title="By CPU", item="cpu", field="made", estimated="estimated_made",
            key=(KeyColumn(name="cpu", title="CPU"),), measures=(MeasureColumn(name="made"),),
        ),
        TableSchema(
            name="calls", title="By call", field="spent", key=(KeyColumn(name="call"),),
            measures=(MeasureColumn(name="calls", kind="histogram", unit="ns"),),
        ),
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ToySample(Sample):
    """Made up."""

    schema: ClassVar[Schema] = TOY

    sent: Mapping[tuple[Id, Name], Sent] = field(default_factory=dict)
    comms: Mapping[Id, Name] = field(default_factory=dict)
    made: Mapping[Cpu, Count] = field(default_factory=dict)
    estimated_made: Mapping[Cpu, Estimate] = field(default_factory=dict)
    spent: Mapping[Name, Histogram] = field(default_factory=dict)


class ToyProbe(Probe):
    """Loads nothing: its Samples come from tests."""

    name = "toys"
    sample_type = ToySample

    @staticmethod
    def plan(params: Params) -> Plan:
        return Plan(source="toys.bpf.c", attach=[], maps=[])

    def adopt(self, loaded: Loaded) -> None:
        raise NotImplementedError

    def release(self) -> None:
        raise NotImplementedError

    def read(self, now: float) -> Sample:
        raise NotImplementedError

    def drain(self) -> None:
        raise NotImplementedError


ENTRY = Entry("9", "toys", "Toys", f"{__name__}:ToySample", f"{__name__}:ToyProbe", "")
