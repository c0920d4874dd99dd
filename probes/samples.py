# SPDX-License-Identifier: Apache-2.0
"""The few immutable shapes that every pane, stream, recording and export is made of.

A Sample holds *cumulative* counters of one probe; a Frame holds the Samples of one tick.
Rates come from two Frames (see `probes.model`), so live, replayed and remote data are
shown by the same code. Mappings in a Sample are never changed after it was made: a reader
may keep them, and an entry that did not change is the very same object in both Samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from probes.cgroup_names import CgroupName

State = Literal["on", "off", "starting", "failed"]
EMPTY: Mapping[Any, Any] = {}


class Counts(NamedTuple):
    """Cumulative number of calls, and how many of them returned an error."""

    n: int
    errors: int


class Histogram(NamedTuple):
    """Cumulative log-linear histogram of durations in nanoseconds.

    `buckets` maps a bucket index (see `probes.hdr`) to its cumulative count; empty buckets
    are absent. `n` is their sum, `total` the summed nanoseconds.
    """

    buckets: Mapping[int, int]
    n: int
    total: int


NO_HISTOGRAM = Histogram({}, 0, 0)


class Cost(NamedTuple):
    """What a probe costs the machine.

    `events` is the cumulative number of events its programs counted. `ns_per_event` (one
    program run) and `cpu_percent` (of one CPU, at the present rate of events) come from the
    kernel's run-time statistics, None until they ran, and hold what it takes the kernel to
    call the programs, where that was measured; `map_bytes` is kernel memory.
    """

    events: int = 0
    ns_per_event: float | None = None
    cpu_percent: float | None = None
    map_bytes: int | None = None


NO_COST = Cost()


class Budget(NamedTuple):
    """What all of this may cost, and what it does, in per cent of all CPUs; None if not known."""

    percent: float = 0.0
    used: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What every probe's sample has: its state, its cost, what was lost (cumulative).

    `generation` changes when counters restart from zero, so that nobody subtracts across.
    `since` are the monotonic seconds of the first Sample with which this one may be compared:
    from then on the probe was on and counted the same things; None if that is not known.
    `given_up` says what it does without to stay within the budget, None for nothing.
    """

    state: State = "off"
    why: str | None = None
    fix: str | None = None
    lost: int = 0
    cost: Cost = NO_COST
    generation: int = 0
    notes: tuple[str, ...] = ()
    since: float | None = None
    given_up: str | None = None

    def merged_after(self, older: Sample) -> Sample:
        """This sample standing for itself and for `older`, which nobody has read."""
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class SyscallSample(Sample):
    """System calls since the probe was switched on.

    Keys are names ("read", "compat:read" for a 32-bit call, "syscall_999" for an unknown
    number), errno names ("EAGAIN") and process ids. `unattributed` counts calls that are in
    `calls` but found no row for their process. `latency` is None while it is not measured;
    `sample_every` N says that one call in N is timed.
    """

    calls: Mapping[str, Counts] = field(default_factory=dict)
    errnos: Mapping[tuple[str, str], int] = field(default_factory=dict)
    matrix: Mapping[tuple[int, str], Counts] = field(default_factory=dict)
    comms: Mapping[int, str] = field(default_factory=dict)
    unattributed: int = 0
    latency: Mapping[str, Histogram] | None = None
    sample_every: int = 1
    missed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecEvent:
    """A program execution, or an attempt at one (`ret` is then minus the errno).

    `time` is Unix seconds. `args` is the argument vector, cut at 4 KiB in all
    (`truncated`); None when the kernel could not read it, or was not to (`args_hidden`). `uid`
    numeric, `cgroup` a path below the cgroup2 mount, `path` the file as it was given to execve.
    """

    time: float
    pid: int
    ppid: int
    uid: int
    comm: str
    parent: str
    args: tuple[str, ...] | None
    truncated: bool
    ret: int
    cgroup: str | None
    path: str | None = None
    args_hidden: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitEvent:
    """The end of a process: exit code or signal, and nanoseconds since its last exec.

    `duration` counts from the process's start where it never executed a program.
    """

    time: float
    pid: int
    comm: str
    exit_code: int
    signal: int
    duration: int | None


MAX_EVENTS = 20_000
"""Most events that one Sample carries; more are counted in `dropped`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecSample(Sample):
    """Program executions: cumulative counters, and the events since the sample before.

    `failed` executions are not among `execs`. `dropped` is how many of this interval's
    events are not in `events`, for they were too many to keep. `names` has, by its path, each
    cgroup of late of which a container runtime said more than the path does.
    """

    execs: int = 0
    failed: int = 0
    exits: int = 0
    events: tuple[ExecEvent | ExitEvent, ...] = ()
    dropped: int = 0
    names: Mapping[str, CgroupName] = field(default_factory=dict)

    def merged_after(self, older: Sample) -> Sample:
        """Counters of the newer, events of both; what exceeds MAX_EVENTS is counted."""
        if not isinstance(older, ExecSample) or older.generation != self.generation:
            return self
        events = older.events + self.events
        over = max(0, len(events) - MAX_EVENTS)
        dropped = self.dropped + older.dropped + over
        return replace(self, events=events[over:], dropped=dropped)


class Spent(NamedTuple):
    """Cumulative number of calls of a process, and the nanoseconds that they took."""

    n: int
    total: int


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
    """

    spec: str
    mechanism: str | None = None
    state: State = "starting"
    why: str | None = None
    fix: str | None = None
    functions: int = 0
    counts_only: bool = False
    histogram: Histogram = NO_HISTOGRAM
    missed: int = 0
    overflow: int = 0
    floor: float | None = None
    unit: Literal["ns", ""] = "ns"
    by_text: bool = False
    file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySample(Sample):
    """How long functions take, by target spec (in the order of adding) and by process.

    `processes` has a key (spec, process id). `comms` are the names of the processes.
    `texts` has a key (spec, text), for targets whose calls are told apart by an argument's
    text; it may be cut, to 95 bytes.
    """

    targets: Mapping[str, Target] = field(default_factory=dict)
    processes: Mapping[tuple[str, int], Spent] = field(default_factory=dict)
    comms: Mapping[int, str] = field(default_factory=dict)
    texts: Mapping[tuple[str, str], Spent] = field(default_factory=dict)


class Reading(NamedTuple):
    """Cumulative count of one perf event as the counters gave it, never scaled.

    `enabled` is for how many nanoseconds the event was wanted, `running` for how many a
    counter really counted it: less where the kernel shares counters among events.
    """

    value: int
    enabled: int
    running: int


class TaskTimes(NamedTuple):
    """What a process did with CPUs, cumulative: nanoseconds on one, switches away from it.

    `migrations` are moves to another CPU, `wait` nanoseconds runnable without a CPU (None
    where the kernel does not keep that).
    """

    clock: int
    switches: int
    migrations: int
    wait: int | None


class CpuTimes(NamedTuple):
    """What a CPU did, cumulative: nanoseconds with a process and without, switches, wait.

    `wait` is what those that got this CPU had waited for one, in ns (None: not kept).
    """

    busy: int
    idle: int
    switches: int
    wait: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PmcSample(Sample):
    """Hardware and software counters, by CPU and by process, since the probe was switched on.

    `events` are what is counted, in the order of showing, by perf's names ("cycles",
    "page-faults"); `absent` has those of the set that are not, each with why. `hardware`
    tells whether any of them is a hardware counter, `reason` why not. Keys of `readings` are
    (process id, event), of `cpu_readings` (CPU, event); process 0 is idle. A CPU's readings
    are of all that ran there, idle too, as `perf stat -C` has it. `kinds` names the PMU of a
    CPU where there are several kinds of them, `sockets` its socket. `unattributed` counts
    switches of processes that found no row.
    """

    hardware: bool = False
    reason: str | None = None
    event_set: str = "base"
    mode: Literal["all", "user", "kernel"] = "all"
    events: tuple[str, ...] = ()
    absent: Mapping[str, str] = field(default_factory=dict)
    tasks: Mapping[int, TaskTimes] = field(default_factory=dict)
    readings: Mapping[tuple[int, str], Reading] = field(default_factory=dict)
    cpus: Mapping[int, CpuTimes] = field(default_factory=dict)
    cpu_readings: Mapping[tuple[int, str], Reading] = field(default_factory=dict)
    comms: Mapping[int, str] = field(default_factory=dict)
    kinds: Mapping[int, str] = field(default_factory=dict)
    sockets: Mapping[int, int] = field(default_factory=dict)
    unattributed: int = 0


class Host(NamedTuple):
    """The machine that the data is from."""

    name: str = "?"
    release: str = "?"
    arch: str = "x86_64"
    cpus: int = 1


class Filters(NamedTuple):
    """What the kernel side counts; None takes everything. All given ones must hold.

    `cgroup` is a path below the cgroup2 mount and takes in what is below it.
    """

    pid: int | None = None
    comm: str | None = None
    uid: int | None = None
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
    "cgroup_followed" (a cgroup was made again at that path, and is what counts), with `cgroup`.
    """

    kind: str
    time: float
    pid: int | None = None
    comm: str | None = None
    cgroup: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """All probes' Samples of one tick.

    `time` is Unix seconds, `mono` monotonic seconds (rates use it), `interval` the wished
    interval in seconds, `load` the one-minute load average, `budget` what the probes may cost
    (None for any amount). `notices` tell what became of the process and the cgroup of `filters`.
    """

    time: float
    mono: float
    interval: float
    host: Host
    load: float | None = None
    filters: Filters = NO_FILTERS
    samples: Mapping[str, Sample] = field(default_factory=dict)
    budget: Budget | None = None
    notices: tuple[Notice, ...] = ()

    def merged_after(self, older: Frame) -> Frame:
        """This frame standing for both, so that a slow reader loses no event."""
        samples = {
            name: sample.merged_after(older.samples[name]) if name in older.samples else sample
            for name, sample in self.samples.items()
        }
        return replace(self, samples=samples)
