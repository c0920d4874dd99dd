# SPDX-License-Identifier: Apache-2.0
"""The few immutable shapes that every pane, stream, recording and export is made of.

A Sample holds *cumulative* counters of one probe; a Frame holds the Samples of one tick.
Rates come from two Frames (see `probes.model`), so live, replayed and remote data are
shown by the same code. Mappings in a Sample are never changed after it was made: a reader
may keep them, and an entry that did not change is the very same object in both Samples.

The types of fields name the values that a decoder accepts, see `probes.limits`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, NamedTuple

from probes.cgroup_names import CgroupName
from probes.limits import (
    AtMost,
    Between,
    Bucket,
    Count,
    Cpu,
    Cpus,
    Id,
    Name,
    Path,
    Seconds,
    Share,
    Small,
    Total,
    Variance,
)

State = Literal["on", "off", "starting", "failed"]
EMPTY: Mapping[Any, Any] = {}


class Counts(NamedTuple):
    """Cumulative number of calls, and how many of them returned an error."""

    n: Count
    errors: Count


class Duty(NamedTuple):
    """For how long a probe was attached in bursts, cumulative; see `probes.estimates`.

    `bursts` were measured, `on` seconds in all; they stand for `seconds`. `edges` are those of the
    `on` seconds that are not certain, for attaching takes time. `freedom` are the degrees of
    freedom of the variances: bursts, less the spans that were estimated from them.
    """

    bursts: Count = 0
    on: Share = 0.0
    seconds: Share = 0.0
    edges: Share = 0.0
    freedom: Count = 0


class Estimate(NamedTuple):
    """Cumulative estimate of a count from bursts, and the estimate's variance."""

    n: Total = 0
    variance: Variance = 0


class Estimates(NamedTuple):
    """Cumulative estimates of Counts from bursts, and the variance of each of the two."""

    n: Total = 0
    errors: Total = 0
    variance: Variance = 0
    errors_variance: Variance = 0


NOT_ESTIMATED = Estimate()
NONE_ESTIMATED = Estimates()


class Histogram(NamedTuple):
    """Cumulative log-linear histogram of durations in nanoseconds.

    `buckets` maps a bucket index (see `probes.hdr`) to its cumulative count; empty buckets
    are absent. `n` is their sum, `total` the summed nanoseconds. `peaks` has the longest ones
    (see `probes.peaks`), as far as they are known: recordings of earlier versions have none.
    """

    buckets: Mapping[Bucket, Count]
    n: Total
    total: Total
    peaks: Mapping[Total, Count] = EMPTY


NO_HISTOGRAM = Histogram({}, 0, 0)


class Cost(NamedTuple):
    """What a probe costs the machine.

    `events` is the cumulative number of events its programs counted. `ns_per_event` (one
    program run) and `cpu_percent` (of one CPU, at the present rate of events) come from the
    kernel's run-time statistics, None until they ran, and hold what it takes the kernel to
    call the programs, where that was measured; `map_bytes` is kernel memory.
    """

    events: Total = 0
    ns_per_event: float | None = None
    cpu_percent: float | None = None
    map_bytes: Count | None = None


NO_COST = Cost()


class Budget(NamedTuple):
    """What all of this may cost, and what it does, in per cent of all CPUs; None if not known.

    One Frame in `drawing` is to be drawn, for drawing costs as well. `lifted` are the seconds for
    which nothing is given up, as somebody asked for; None while it holds.
    """

    percent: Share = 0.0
    used: float | None = None
    drawing: Annotated[int, Between(1, 1000)] = 1
    lifted: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What every probe's sample has: its state, its cost, what was lost (cumulative).

    `generation` changes when counters restart from zero, so that nobody subtracts across.
    `since` are the monotonic seconds of the first Sample with which this one may be compared:
    from then on the probe was on and counted the same things; None if that is not known.
    `given_up` says what it does without to stay within the budget, None for nothing.
    `counted` is for how many seconds its counters counted, cumulative as they are; None if that
    is not known. While it is attached in bursts none of these counts: what they saw is in `duty`
    and in the fields whose names begin with `estimated`, which are never part of the others.
    `kept_on` are the seconds for which it is not detached, though it costs more than the budget,
    for somebody has just switched it on; None where it need not be.
    """

    state: State = "off"
    why: str | None = None
    fix: str | None = None
    lost: Count = 0
    cost: Cost = NO_COST
    generation: Count = 0
    notes: Annotated[tuple[str, ...], AtMost(1000)] = ()
    since: float | None = None
    given_up: str | None = None
    counted: Share | None = None
    duty: Duty | None = None
    kept_on: Share | None = None

    def merged_after(self, older: Sample) -> Sample:
        """This sample standing for itself and for `older`, which nobody has read."""
        return self

    def with_fewer_events(self) -> Sample:
        """This sample without a part of its events, the very same if it has none."""
        return self


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

    def with_fewer_events(self) -> Sample:
        """The newer half of the events; the others are counted as dropped."""
        over = (len(self.events) + 1) // 2
        if not over:
            return self
        return replace(self, events=self.events[over:], dropped=self.dropped + over)


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

    targets: Annotated[Mapping[str, Target], AtMost(1000)] = field(default_factory=dict)
    processes: Mapping[tuple[str, Id], Spent] = field(default_factory=dict)
    comms: Mapping[Id, Name] = field(default_factory=dict)
    texts: Mapping[tuple[str, Name], Spent] = field(default_factory=dict)
    estimated_processes: Mapping[tuple[str, Id], Estimate] = field(default_factory=dict)
    estimated_texts: Mapping[tuple[str, Name], Estimate] = field(default_factory=dict)


class Reading(NamedTuple):
    """Cumulative count of one perf event as the counters gave it, never scaled.

    `enabled` is for how many nanoseconds the event was wanted, `running` for how many a
    counter really counted it: less where the kernel shares counters among events.
    """

    value: Total
    enabled: Total
    running: Total


class TaskTimes(NamedTuple):
    """What a process did with CPUs, cumulative: nanoseconds on one, switches away from it.

    `migrations` are moves to another CPU, `wait` nanoseconds runnable without a CPU (None
    where the kernel does not keep that).
    """

    clock: Total
    switches: Total
    migrations: Total
    wait: Total | None


class CpuTimes(NamedTuple):
    """What a CPU did, cumulative: nanoseconds with a process and without, switches, wait.

    `wait` is what those that got this CPU had waited for one, in ns (None: not kept).
    """

    busy: Total
    idle: Total
    switches: Total
    wait: Total | None


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

    While switches are looked at in bursts, counters of a CPU's own go on counting exactly:
    `cpu_readings` of all events but page faults. All else is estimated, by quantity (an event, or
    a name of `probes.pmc_bursts`): of processes, of CPUs, and of all CPUs together.
    """

    hardware: bool = False
    reason: str | None = None
    event_set: Name = "base"
    mode: Literal["all", "user", "kernel"] = "all"
    events: Annotated[tuple[Name, ...], AtMost(100)] = ()
    absent: Annotated[Mapping[Name, str], AtMost(1000)] = field(default_factory=dict)
    tasks: Mapping[Id, TaskTimes] = field(default_factory=dict)
    readings: Mapping[tuple[Id, Name], Reading] = field(default_factory=dict)
    cpus: Mapping[Cpu, CpuTimes] = field(default_factory=dict)
    cpu_readings: Mapping[tuple[Cpu, Name], Reading] = field(default_factory=dict)
    comms: Mapping[Id, Name] = field(default_factory=dict)
    kinds: Mapping[Cpu, Name] = field(default_factory=dict)
    sockets: Mapping[Cpu, Cpu] = field(default_factory=dict)
    unattributed: Count = 0
    estimated: Mapping[tuple[Id, Name], Estimate] = field(default_factory=dict)
    estimated_cpus: Mapping[tuple[Cpu, Name], Estimate] = field(default_factory=dict)
    estimated_machine: Mapping[Name, Estimate] = field(default_factory=dict)


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
