# SPDX-License-Identifier: Apache-2.0
"""Latency targets in a Frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, NamedTuple

from probes.core.limits import AtMost, Count, Id, Name, Share, Total
from probes.core.sample import NO_HISTOGRAM, NOT_ESTIMATED, Duty, Estimate, Histogram, Sample, State
from probes.core.schema import Schema
from probes.latency.schema import LATENCY


class Spent(NamedTuple):
    """Cumulative number of calls of a process, and the nanoseconds that they took."""

    n: Total
    total: Total


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One thing whose latency is measured, as the user wrote it (`spec`).

    `mechanism` is how ("fentry", "kprobe", "uprobe", "usdt", "tracepoint", "syscall"),
    `functions` how many functions it is attached to, `counts_only` that there is no end to
    it (a single tracepoint or USDT probe): then the histogram holds no durations but `n`.
    Cumulative: `missed` calls without a duration (under way at the start, the return never
    came), `overflow` calls that found no space to note their start. `floor` is what the
    probes themselves need, in ns: an empty function shows about this much. With a `unit` of
    "" the histogram holds values of an argument or field, and `missed` those that could not
    be read or were below zero. `by_text` says that calls are told apart by a text. `file` tells
    whether the path still leads to the file that is traced: "current", "replaced" (new processes
    run another file) or "deleted"; None where that is not known, or the target is in no file.
    `began` is what `counted` of its Sample was when the target was attached. `duty` is not None
    once it was attached in bursts: `estimated` are the calls that those stand for, `in_bursts` the
    durations of the calls that began and ended within one; neither is in `histogram`. `given_up`
    says that it was detached to stay within the budget: it has not failed by itself.
    """

    spec: str
    mechanism: Name | None = None
    state: State = "starting"
    why: str | None = None
    fix: str | None = None
    functions: Count = 0
    counts_only: bool = False
    histogram: Histogram = NO_HISTOGRAM
    missed: Total = 0
    overflow: Total = 0
    floor: float | None = None
    unit: Literal["ns", ""] = "ns"
    by_text: bool = False
    file: str | None = None
    began: Share = 0.0
    duty: Duty | None = None
    estimated: Estimate = NOT_ESTIMATED
    in_bursts: Histogram = NO_HISTOGRAM
    given_up: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySample(Sample):
    """How long functions take, by target spec (in the order of adding) and by process.

    `processes` has a key (spec, process id). `comms` are the names of the processes.
    `texts` has a key (spec, text), for targets whose calls are told apart by an argument's
    text; it may be cut, to 95 bytes. `estimated_processes` and `estimated_texts` are their calls
    that bursts stand for.
    """

    schema: ClassVar[Schema] = LATENCY

    targets: Annotated[Mapping[str, Target], AtMost(1000)] = field(default_factory=dict)
    processes: Mapping[tuple[str, Id], Spent] = field(default_factory=dict)
    comms: Mapping[Id, Name] = field(default_factory=dict)
    texts: Mapping[tuple[str, Name], Spent] = field(default_factory=dict)
    estimated_processes: Mapping[tuple[str, Id], Estimate] = field(default_factory=dict)
    estimated_texts: Mapping[tuple[str, Name], Estimate] = field(default_factory=dict)

    def counts_as(self, before: LatencySample) -> bool:
        """Not where a target began anew, unless targets have seconds of their own.

        Those they have if the probe has.
        """
        return self.counted is not None or all(
            (old := before.targets.get(spec)) is not None
            and old.state == "on"
            and old.histogram.n <= new.histogram.n
            for spec, new in self.targets.items()
            if new.state == "on"
        )
