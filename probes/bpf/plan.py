# SPDX-License-Identifier: Apache-2.0
"""What the loader is asked for and what it hands over: plans, attachments and loaded probes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from probes.core.errors import ProbeError
from probes.host.traced_files import TracedFile
from probes.ipc.messages import Answer, MessageError, convert

T = TypeVar("T")


Params = Mapping[str, Any]
"""Parameters of a probe, as they travel from the dashboard to the loader: JSON values."""


Mechanism = Literal[
    "raw_tracepoint",
    "btf_tracepoint",
    "tracepoint",
    "kprobe",
    "kretprobe",
    "uprobe",
    "uretprobe",
    "fentry",
    "fexit",
    "timer",
    "edge",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attach:
    """One program of a BPF source file and the event that it is attached to.

    `target` is "sys_exit" for a raw tracepoint (a BTF tracepoint is one whose program may
    read what it is given directly), "syscalls:sys_exit_execve" for a tracepoint,
    a function of the kernel; uprobes have `path`, `offset` in the file and, for a static
    probe that is off until somebody listens, the offset of its `counter`. `patch` replaces
    64-bit constants of the program. An `optional` one that this kernel does not have is left
    out and noted; those of one `group` are attached all or none, and a failure of the group
    is noted with it. A timer goes off every `period` ns on one `cpu`.

    `keeper` is the map of perf events, and the index in it, that keeps the event attached in
    the place of a descriptor of its own. An "edge" is attached to nothing: the broker runs it on
    each CPU where a burst of the others begins and where it ends. `file` is what `path` leads to,
    and keeps it open. What is `steady` stays attached while the others are attached in bursts: few
    events reach it.
    """

    kind: Mechanism
    function: str
    target: str = ""
    optional: bool = False
    group: int | None = None
    patch: Mapping[int, int] = field(default_factory=dict)
    path: str = ""
    name: str = ""
    offset: int = 0
    counter: int = 0
    pid: int = -1
    cpu: int = 0
    period: int = 0
    keeper: tuple[str, int] | None = None
    file: TracedFile | None = field(default=None, compare=False)
    steady: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What the loader compiles, loads and attaches for one probe.

    The dashboard gets the `maps` named here, and can write to those that are `writable` as well:
    the programs trust no word of them.
    `defines` are -D macros; `offsets` gives macros that become byte offsets from the running
    kernel's BTF ({"OFF_MM": "task_struct.mm"}; with a "?" behind it -1 where there is none),
    `helpers` macros that are 1 if it has a BPF helper, `functions` macros that are what to call
    for a function of the kernel, if it has it. `facts` goes back to the dashboard;
    `calibrate` may add to them, before anything is attached: it is given the maps by name
    and a function that attaches. `gauge` tells how many ns an event takes: the loader asks
    before and after it attaches, and the difference is the fact "per_call".
    """

    source: str
    attach: Sequence[Attach]
    maps: Sequence[str]
    writable: Sequence[str] = ("control",)
    defines: Mapping[str, int] = field(default_factory=dict)
    offsets: Mapping[str, str] = field(default_factory=dict)
    helpers: Mapping[str, str] = field(default_factory=dict)
    functions: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    calibrate: Callable[[Mapping[str, int], Callable[[Attach], int]], Params] | None = None
    gauge: Callable[[], float] | None = None


@dataclass(slots=True)
class Loaded:
    """A probe that runs in the kernel, as the dashboard has it: memory to read, and a number.

    `maps` are descriptors by name. The broker holds what keeps programs attached, as `unit`; it
    detaches all of it, or some of its `groups`. `failures` says of groups that are not attached
    why, and how to mend it; `map_bytes` is the kernel memory of all maps, None if unknown.
    """

    facts: Mapping[str, Any]
    maps: dict[str, int]
    unit: int = 0
    map_bytes: int | None = None
    notes: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()
    failures: dict[int, tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, answer: Answer, fds: Sequence[int]) -> Loaded:
        """What the broker's answer tells; takes the descriptors. Raises MessageError."""
        if len(fds) != len(answer.maps):
            raise MessageError("its descriptors are not those of its maps")
        return cls(
            answer.facts,
            dict(zip(answer.maps, fds, strict=True)),
            answer.unit,
            answer.map_bytes,
            tuple(answer.notes),
            tuple(answer.groups),
            {group: (why, fix) for group, why, fix in answer.failures},
        )

    def facts_as(self, kind: type[T]) -> T:
        """What the loader told of the probe, all of it checked; raises ProbeError."""
        try:
            return convert(self.facts, kind)
        except MessageError as error:
            why = f"what the loader tells of the probe is malformed ({error})"
            raise ProbeError(why, "switch it off and on") from error

    def close(self) -> None:
        """Close the maps that nobody has taken over; what is attached stays so."""
        for fd in self.maps.values():
            os.close(fd)
        self.maps = {}
