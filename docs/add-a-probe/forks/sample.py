# SPDX-License-Identifier: Apache-2.0
"""The Sample of created threads, and what it measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from probes.core.limits import Count, Cpu
from probes.core.sample import Sample
from probes.core.schema import KeyColumn, MeasureColumn, Schema, TableSchema

CPUS = TableSchema(
    name="cpus",
    title="By CPU",
    field="created",
    key=(KeyColumn(name="cpu", title="CPU"),),
    measures=(MeasureColumn(name="created", help="threads and processes"),),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkSample(Sample):
    """Threads created since the probe was switched on, cumulative, by CPU."""

    schema: ClassVar[Schema] = Schema(title="created threads", tables=(CPUS,))

    created: Mapping[Cpu, Count] = field(default_factory=dict)
