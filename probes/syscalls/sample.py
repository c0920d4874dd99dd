# SPDX-License-Identifier: Apache-2.0
"""System calls in a Frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from probes.core.limits import Between, Count, Id, Name
from probes.core.sample import NONE_ESTIMATED, Counts, Estimate, Estimates, Histogram, Sample
from probes.core.schema import Schema
from probes.syscalls.schema import SYSCALLS


@dataclass(frozen=True, slots=True, kw_only=True)
class SyscallSample(Sample):
    """System calls since the probe was switched on.

    Keys are names ("read", "compat:read" for a 32-bit call, "syscall_999" for an unknown
    number), errno names ("EAGAIN") and process ids. `unattributed` counts calls that are in
    `calls` but found no row for their process. `latency` is None while it is not measured;
    `sample_every` N says that one call in N is timed. What was estimated from bursts: by call, by
    process and both together, errors by errno, and all calls in one. What no burst saw has no
    entry.
    """

    schema: ClassVar[Schema] = SYSCALLS

    calls: Mapping[Name, Counts] = field(default_factory=dict)
    errnos: Mapping[tuple[Name, Name], Count] = field(default_factory=dict)
    matrix: Mapping[tuple[Id, Name], Counts] = field(default_factory=dict)
    comms: Mapping[Id, Name] = field(default_factory=dict)
    unattributed: Count = 0
    latency: Mapping[Name, Histogram] | None = None
    sample_every: Annotated[int, Between(1, 1 << 32)] = 1
    missed: Count = 0
    estimated: Mapping[Name, Estimates] = field(default_factory=dict)
    estimated_errnos: Mapping[tuple[Name, Name], Estimate] = field(default_factory=dict)
    estimated_matrix: Mapping[tuple[Id, Name], Estimates] = field(default_factory=dict)
    estimated_processes: Mapping[Id, Estimates] = field(default_factory=dict)
    estimated_total: Estimates = NONE_ESTIMATED

    def counts_as(self, before: SyscallSample) -> bool:
        """Not where durations begin or end, or are of fewer calls."""
        timed, was_timed = self.latency is not None, before.latency is not None
        return timed == was_timed and self.sample_every == before.sample_every
