# SPDX-License-Identifier: Apache-2.0
"""Program executions in a Frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

from probes.core.cgroup_names import CgroupName
from probes.core.limits import AtMost, Count, Id, Name, Path, Small
from probes.core.sample import NOT_ESTIMATED, Duty, Estimate, Sample
from probes.core.schema import Schema
from probes.execs.schema import EXECS


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecEvent:
    """A program execution, or an attempt at one (`ret` is then minus the errno).

    `time` is Unix seconds. `args` is the argument vector, cut at 4 KiB in all
    (`truncated`); None when the kernel could not read it, or was not to (`args_hidden`). `uid`
    numeric, and `euid` the effective one, which a setuid program's differs from (None if not
    known), `cgroup` a path below the cgroup2 mount, `path` the file as it was given to execve, cut
    at 127 bytes (`path_truncated`). `started` is when the process began, in ns since boot: pids
    are used again, both together are not. None if it is not known.
    """

    time: float
    pid: Id
    ppid: Id
    uid: Id
    comm: Name
    parent: Name
    args: Annotated[tuple[str, ...], AtMost(4096)] | None
    truncated: bool
    ret: Small
    cgroup: Path | None
    path: Path | None = None
    args_hidden: bool = False
    started: Count | None = None
    euid: Id | None = None
    path_truncated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitEvent:
    """The end of a process: exit code or signal, and nanoseconds since its last exec.

    `duration` counts from the process's start where it never executed a program. `started` is
    that of ExecEvent.
    """

    time: float
    pid: Id
    comm: Name
    exit_code: Small
    signal: Small
    duration: Count | None
    started: Count | None = None


MAX_EVENTS = 20_000
"""Most events that one Sample carries; more are counted in `dropped`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecSample(Sample):
    """Program executions: cumulative counters, and the events since the sample before.

    `failed` executions are not among `execs`. `dropped` is how many of this interval's
    events are not in `events`, for they were too many to keep. `names` has, by its path, each
    cgroup of late of which a container runtime said more than the path does. `failed_duty` and
    `estimated_failed` are of failing executions, where those are looked for in bursts only: what
    a burst saw is among `events`, not in `failed`.
    """

    schema: ClassVar[Schema] = EXECS

    execs: Count = 0
    failed: Count = 0
    exits: Count = 0
    events: Annotated[tuple[ExecEvent | ExitEvent, ...], AtMost(MAX_EVENTS)] = ()
    dropped: Count = 0
    names: Annotated[Mapping[Path, CgroupName], AtMost(10_000)] = field(default_factory=dict)
    failed_duty: Duty | None = None
    estimated_failed: Estimate = NOT_ESTIMATED

    def merged_after(self, older: Sample) -> Sample:
        """Counters of the newer, events of both; what exceeds MAX_EVENTS is counted."""
        if not isinstance(older, ExecSample) or older.generation != self.generation:
            return self
        events = older.events + self.events
        over = max(0, len(events) - MAX_EVENTS)
        dropped = self.dropped + older.dropped + over
        return replace(self, events=events[over:], dropped=dropped)

    def without_events(self) -> Sample:
        """The counters alone."""
        return replace(self, events=())

    def with_fewer_events(self) -> Sample:
        """The newer half of the events; the others are counted as dropped."""
        over = (len(self.events) + 1) // 2
        if not over:
            return self
        return replace(self, events=self.events[over:], dropped=self.dropped + over)
