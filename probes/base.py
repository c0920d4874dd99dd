# SPDX-License-Identifier: Apache-2.0
"""What a probe is, what a source of Frames is, and how either says that it cannot go on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

from probes.messages import Answer, BurstReport, MessageError
from probes.samples import Filters, Frame, Sample

if TYPE_CHECKING:
    from probes.cost import Meter
    from probes.governor import Part

Params = Mapping[str, Any]
"""Parameters of a probe, as they travel from the dashboard to the loader: JSON values."""


class ProbeError(Exception):
    """Something cannot be done: `why` in one sentence, and how to mend it (`fix`).

    `log` holds what the tool chain printed, for the log file only.
    """

    def __init__(self, why: str, fix: str = "", log: str = "") -> None:
        super().__init__(f"{why}: {fix}" if fix else why)
        self.why = why
        self.fix = fix
        self.log = log


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


class TracedFile(Protocol):
    """A file that stays open until it is attached to, see `probes.open_file`."""

    path: str
    fd: int
    stat: os.stat_result

    @property
    def link(self) -> str:
        """The path by which the kernel finds the open file, in this process only."""

    @property
    def is_overlaid(self) -> bool:
        """Whether the file lies on overlayfs."""

    def check(self) -> None:
        """Raises ProbeError if the file was written to since it was opened."""


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

    def close(self) -> None:
        """Close the maps that nobody has taken over; what is attached stays so."""
        for fd in self.maps.values():
            os.close(fd)
        self.maps = {}


class Probe(Protocol):
    """One probe: what to load, and how its maps become Samples.

    `plan` runs in the loader, with privileges; everything else in the dashboard, without.
    `options` are the switches a user has, with their values at start.
    """

    name: ClassVar[str]
    options: ClassVar[Mapping[str, Any]]
    sample_type: ClassVar[type[Sample]]
    meter: Meter

    @staticmethod
    def plan(params: Params) -> Plan: ...

    @staticmethod
    def contract(before: Sample | None, after: Sample, seconds: float) -> dict[str, Any]:
        """The probe's own fields of a stream object, for the interval between two Samples."""

    def params(self) -> Params:
        """What to ask the loader for, now."""

    def adopt(self, loaded: Loaded) -> None:
        """Take over what was loaded, replacing what ran before without losing its counts."""

    def release(self) -> None:
        """Unmap, and have everything detached; cumulative counts stay."""

    def read(self, now: float) -> Sample:
        """The cumulative counters at this moment (`now` is monotonic seconds)."""

    def drain(self) -> None:
        """Take in what the maps hold, ahead of the next read, and set `meter.events`."""

    def wait_fds(self) -> Sequence[int]:
        """Descriptors that become readable when `drain` should be called."""

    def set_filters(self, filters: Filters, started: int | None = None) -> None:
        """Change what the kernel side counts, at once and without reloading.

        `started` is when the process of `filters` started, in ns since boot, None if unknown.
        """

    def check_option(self, option: str, value: Any) -> None:
        """Raises ProbeError for a value that the option cannot have; callable anywhere."""

    def set_option(self, option: str, value: Any) -> bool:
        """Take an option's new value; True if the loader must be asked for it."""

    def refuse(self, why: str, fix: str) -> bool:
        """What the loader was asked for failed; True if what runs already goes on."""

    def parts(self) -> Sequence[Part]:
        """What can be made cheaper, and each part's share of the cost since the last call."""

    def give_up(self, what: str, level: int, why: str, fix: str) -> bool:
        """Take a part to another level; True if the loader must be asked for it.

        `why` and `fix` are for what is detached by it.
        """

    def burst(self, report: BurstReport) -> None:
        """Take in what the programs counted until a burst's end, or a change between ways."""

    def uncounted(self, now: float) -> float:
        """For how many seconds until `now` it was attached in bursts only."""

    def given_up(self) -> str | None:
        """What is given up now, in a few words; None for nothing."""

    def last_seen(self, before: Sample | None, seconds: float) -> str:
        """What most of the events since `before` were, in a few words; "" for nothing to say."""


class Found(NamedTuple):
    """Something that can be traced here: the target `spec`, how, and a word about it.

    `cost` is what a call of it will cost more, in ns, as measured on this machine; None when
    unknown.
    """

    spec: str
    mechanism: str
    note: str = ""
    cost: float | None = None


class Source(Protocol):
    """Where Frames come from: the live kernel, a recording, another machine.

    `on_frame` is called from the source's own thread, once an interval, and must return at
    once. Commands return immediately; their effect shows in a later Frame. A command that
    this source cannot carry out raises ProbeError.
    """

    live: bool
    title: str
    lifts: bool

    def start(self, on_frame: Callable[[Frame], None], on_end: Callable[[str], None]) -> None:
        """Begin. `on_end` is called once, with one sentence, if no Frame will follow."""

    def stop(self) -> None:
        """End within 0.2 seconds, everything released."""

    def toggle(self, probe: str, on: bool) -> None:
        """Attach or truly detach a probe."""

    def set_option(self, probe: str, option: str, value: Any) -> None:
        """Change a probe's option: syscalls' latency, latency's add and remove (of a target)."""

    def set_filters(self, filters: Filters) -> None:
        """Change what is counted."""

    def set_interval(self, seconds: float) -> None:
        """Change the time between Frames."""

    def lift_budget(self, seconds: float) -> None:
        """Give up nothing for so many seconds; 0: the budget holds again."""

    def search(self, query: str, on_found: Callable[[Sequence[Found]], None]) -> None:
        """What can be traced here and fits `query`, best first; answers from another thread."""
