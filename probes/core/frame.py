# SPDX-License-Identifier: Apache-2.0
"""A Frame: all probes' Samples of one tick, and of which machine they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, NamedTuple

from probes.core.limits import AtMost, Cpus, Id, Name, Seconds, Share
from probes.core.sample import Budget, Sample


class Host(NamedTuple):
    """The machine that the data is from."""

    name: str = "?"
    release: str = "?"
    arch: str = "x86_64"
    cpus: Cpus = 1


class Filters(NamedTuple):
    """What the kernel side counts; None takes everything. All given ones must hold.

    `cgroup` is a path below the cgroup2 mount and takes in what is below it.
    """

    pid: Id | None = None
    comm: Name | None = None
    uid: Id | None = None
    cgroup: str | None = None

    def describe(self) -> str:
        """The filters as a user would type them, empty when there are none."""
        return " ".join(
            f"{k}={v}" for k, v in zip(self._fields, self, strict=True) if v is not None
        )


NO_FILTERS = Filters()


class Notice(NamedTuple):
    """What became of something that is filtered by; `time` is Unix seconds.

    `kind` is "process_ended" (with `pid` and its name, `comm`), "cgroup_removed", or
    "cgroup_followed" (a cgroup was made again at that path, and is what counts), with `cgroup` and
    the `seconds` before `time` for which at most nothing was counted.
    "pid_of_namespace" says that `pid` is that of process `comm` in the pid namespace that the
    probes run in, whose rows have the machine's pids.
    """

    kind: str
    time: float
    pid: int | None = None
    comm: str | None = None
    cgroup: str | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """All probes' Samples of one tick.

    `time` is Unix seconds, `mono` monotonic seconds (rates use it), `interval` the wished
    interval in seconds, `load` the one-minute load average, `budget` what the probes may cost
    (None for any amount). `notices` tell what became of the process and the cgroup of `filters`.
    """

    time: float
    mono: float
    interval: Seconds
    host: Host
    load: Share | None = None
    filters: Filters = NO_FILTERS
    samples: Annotated[Mapping[Name, Sample], AtMost(100)] = field(default_factory=dict)
    budget: Budget | None = None
    notices: tuple[Notice, ...] = ()

    def merged_after(self, older: Frame) -> Frame:
        """This frame standing for both, so that a slow reader loses no event."""
        samples = {
            name: sample.merged_after(older.samples[name]) if name in older.samples else sample
            for name, sample in self.samples.items()
        }
        return replace(self, samples=samples)
