# SPDX-License-Identifier: Apache-2.0
"""The exec probe: every program execution, also failed ones, and how processes end.

From kernel to row: `execs.bpf.c` writes events into a ring buffer; `ExecProbe.drain` turns
them into ExecEvent and ExitEvent; `probes.execs.process_log` joins the two by process id.
"""

from __future__ import annotations

import os
import signal
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any, ClassVar, cast

from msgspec import Meta, Struct

from probes.bpf.control_page import FILTER_HELPERS, FILTER_OFFSETS, Control, filter_defines
from probes.bpf.layouts import EXEC_EVENT, EXEC_STATS, EXIT_EVENT
from probes.bpf.maps import MappedArray, RingBuffer
from probes.bpf.plan import Attach, Loaded, Params, Plan
from probes.budget.attach_overhead import a_call
from probes.budget.policy import ALL_OR_NOTHING, Part
from probes.core import kernel
from probes.core.cgroup_names import CgroupName, describe
from probes.core.errors import ProbeError
from probes.core.safe_text import escaped, readable
from probes.core.sample import Sample
from probes.execs.failed_execs import LEVELS, FailedExecs, failed_object
from probes.execs.sample import MAX_EVENTS, ExecEvent, ExecSample, ExitEvent
from probes.host.cgroups import Cgroups
from probes.ipc.messages import BurstReport, CpuCount, NanosecondsOfCall, convert
from probes.probe import Probe

RING_PAGES = 512
MOST_RUNNING = 50_000
"""Most processes whose execution is remembered for the duration at their end."""

_TYPE = struct.Struct("=I")
_EXEC, _EXIT = EXEC_EVENT.struct, EXIT_EVENT.struct
_STATS = EXEC_STATS.picked("execs", "failed", "exits", "lost")
_EXECUTED, _TRUNCATED, _NO_ARGS, _HIDDEN, _PATH_TRUNCATED = 1, 1, 2, 4, 8


def _text(raw: bytes) -> str:
    return readable(raw.partition(b"\0")[0])


def split_args(raw: bytes) -> tuple[str, ...]:
    """An argument vector as the kernel keeps it: each argument with a zero behind it."""
    parts = raw.split(b"\0")
    if parts and not parts[-1]:
        parts.pop()
    return tuple([readable(part) for part in parts])


FAILED = 1
"""The group of what is attached for the sake of executions that fail."""


class _Params(Struct):
    failed: bool = True
    args: bool = True


class _Facts(Struct):
    """Possible CPUs, bytes of the ring buffer, and ns that each system call pays."""

    cpus: CpuCount
    ring: Annotated[int, Meta(gt=0, le=1 << 30)]
    per_call: NanosecondsOfCall = 0.0


class ExecProbe(Probe):
    """Program executions and process ends. Option: `args`, whether arguments are read."""

    name: ClassVar[str] = "execs"
    options: ClassVar[Mapping[str, Any]] = {"args": True}
    sample_type: ClassVar[type[Sample]] = ExecSample

    def __init__(self) -> None:
        super().__init__()
        self._cgroups = Cgroups()
        self._stats: MappedArray | None = None
        self._ring: RingBuffer | None = None
        self._events: list[ExecEvent | ExitEvent] = []
        self._dropped = 0
        self.generation = 0
        self._executed: dict[tuple[int, int], int] = {}
        self.level = 0
        self.args = True
        self._unit = 0
        self._watching = False
        self._per_call = 0.0
        self._failures = FailedExecs()
        self._parted = (0, 0, 0.0)

    @staticmethod
    def plan(params: Params) -> Plan:
        """Scheduler events for what succeeds, the two system calls for what fails."""
        # Linux 5.15 lets a program read the registers of its caller: nobody waits at the entry.
        asked = convert(params, _Params)
        registers = kernel.version() >= (5, 15, 0)
        sides = ("exit",) if registers else ("enter", "exit")
        watched = () if not asked.failed else ("execve", "execveat")
        calls = [
            Attach(
                kind="tracepoint",
                function=f"{side}_{call}",
                target=f"syscalls:sys_{side}_{call}",
                group=FAILED,
            )
            for side in sides
            for call in watched
        ]
        cpus = kernel.possible_cpus()
        return Plan(
            source="execs/execs.bpf.c",
            attach=[
                Attach(kind="raw_tracepoint", function="on_exec", target="sched_process_exec"),
                Attach(kind="raw_tracepoint", function="on_exit", target="sched_process_exit"),
                *calls,
            ],
            maps=["control", "stats", "events"],
            defines={
                **filter_defines(),
                "PT_CPUS": cpus,
                "PT_RING_PAGES": RING_PAGES,
                "PT_REGS": int(registers),
                "PT_ARGS": int(asked.args),
            },
            helpers=FILTER_HELPERS,
            offsets={
                "OFF_MM": "task_struct.mm",
                "OFF_ARG_START": "mm_struct.arg_start",
                "OFF_ARG_END": "mm_struct.arg_end",
                "OFF_REAL_PARENT": "task_struct.real_parent",
                "OFF_FILENAME": "linux_binprm.filename",
                "OFF_FILE": "linux_binprm.file",
                "OFF_DENTRY": "file.f_path.dentry",
                "OFF_DENTRY_NAME": "dentry.d_name",
                "OFF_DENTRY_PARENT": "dentry.d_parent",
                "OFF_SIGNAL": "task_struct.signal",
                "OFF_LIVE": "signal_struct.live",
                "OFF_SIGNAL_FLAGS": "signal_struct.flags",
                "OFF_GROUP_EXIT_CODE": "signal_struct.group_exit_code",
                "OFF_EXIT_CODE": "task_struct.exit_code",
                "OFF_FLAGS": "task_struct.flags",
                "OFF_START_TIME": "task_struct.start_time",
                **FILTER_OFFSETS,
            },
            facts={"cpus": cpus, "ring": RING_PAGES * os.sysconf("SC_PAGESIZE")},
            gauge=a_call,
        )

    @staticmethod
    def contract(before: Sample | None, after: Sample, seconds: float) -> dict[str, Any]:
        """`events` of a stream object, and the failures that bursts stand for, if there are any."""
        new = cast(ExecSample, after)
        events = [_event_object(event, new.names) for event in new.events]
        return {
            "events": events,
            "dropped": new.dropped,
            **failed_object(cast("ExecSample | None", before), new),
        }

    def params(self) -> Params:
        """Whether to see what fails, and arguments."""
        return {"failed": self.level < len(LEVELS) - 1, "args": self.args}

    def adopt(self, loaded: Loaded) -> None:
        """Begin to count."""
        level = self.level
        self.release()
        self.level = level
        facts, maps = loaded.facts_as(_Facts), loaded.maps
        self._unit, self._watching = loaded.unit, FAILED in loaded.groups
        self._per_call = max(self._per_call, facts.per_call)
        self._control = Control(maps.pop("control"))
        self._stats = MappedArray(maps.pop("stats"), _STATS.size, facts.cpus)
        self._ring = RingBuffer(maps.pop("events"), facts.ring)
        self._control.set_wake(facts.ring // 4 // facts.cpus)
        with suppress(ProbeError):  # a cgroup that has gone matches nothing
            self._control.set_filters(self.filters, self.started)
        self._control.enable(True)
        self.meter.adopt(loaded)
        self.meter.notes += tuple([why for why, _ in loaded.failures.values()])
        self._failures = FailedExecs()
        if not self._watching:
            self._failures.pause(time.monotonic())
        self._set_bursts()

    def release(self) -> None:
        """Let go of everything; counting starts from zero when it is switched on again."""
        self.level = 0
        if self._control is None or self._stats is None or self._ring is None:
            return
        self._control.enable(False)
        self.generation += 1
        for part in (self._control, self._stats, self._ring):
            part.close()
        self._control = self._stats = self._ring = None
        self._events, self._dropped = [], 0
        self._watching = False
        self._failures, self._parted = FailedExecs(), (0, 0, 0.0)
        self.meter.release()

    def read(self, now: float) -> ExecSample:
        """Counters until now, and the events since the last time."""
        self.drain()
        execs, _, exits, lost = self._counters()
        failures, skipped = self._failures, self.meter.skipped
        why = "the kernel had not let go of the one before yet"
        notes = (f"{skipped} bursts were left out: {why}",) if skipped else ()
        events, dropped = tuple(self._events), self._dropped
        self._events, self._dropped = [], 0
        return ExecSample(
            state="on",
            generation=self.generation,
            lost=lost + self.meter.missed(),
            cost=self.meter.cost(now),
            notes=(*self.meter.notes, *notes),
            execs=execs,
            failed=failures.counted,
            exits=exits,
            events=events,
            dropped=dropped,
            estimated_failed=failures.estimated,
            failed_duty=failures.duty,
        )

    def drain(self) -> None:
        """Turn what is in the ring buffer into events; the oldest go when they are too many."""
        if self._ring is None:
            return
        offset = time.time() - time.monotonic()
        for record in self._ring.drain():
            if _TYPE.unpack_from(record)[0] == _EXECUTED:
                self._events.append(self._exec(record, offset))
            else:
                self._events.append(self._exit(record, offset))
        over = len(self._events) - MAX_EVENTS
        if over > 0:
            del self._events[:over]
            self._dropped += over
        execs, failed, exits, _ = self._counters()
        self._failures.count(failed)
        self.meter.events = execs + failed + exits

    def wait_fds(self) -> Sequence[int]:
        """The ring buffer's descriptor."""
        return (self._ring.fd,) if self._ring else ()

    def check_option(self, option: str, value: Any) -> None:
        """Raises ProbeError unless it is `args`, and not to show what is hidden already."""
        if option != "args" or not isinstance(value, bool):
            raise ProbeError(f"execs has no option {option}={value!r}", "it has args (on or off)")
        if value and not self.args:
            why = "the arguments of programs are hidden, and stay so"
            raise ProbeError(why, "start it without --no-args")

    def parts(self) -> Sequence[Part]:
        """All of it, and what sees executions fail, which costs each system call."""
        share = self._share_of_failed()
        return (
            Part("", ALL_OR_NOTHING, 0, 1.0 - share),
            Part("failed", LEVELS, self.level, share, self._per_call),
        )

    def _share_of_failed(self) -> float:
        """Which part of the events were failures since it was asked for last."""
        execs, failed, exits, _ = self._counters()
        events, failures, share = self._parted
        whole = execs + failed + exits
        if whole != events:
            share = (failed - failures) / (whole - events)
            self._parted = (whole, failed, share)
        return share

    def give_up(self, what: str, level: int, why: str, fix: str) -> bool:
        """See failures in bursts, no more, or again; all of it is for its owner to detach."""
        if what != "failed":
            return False
        self.level = level
        if level == len(LEVELS) - 1:
            self._blind()
            return False
        self._set_bursts()
        return not self._watching

    def _blind(self) -> None:
        """See no failures any more."""
        if self._watching:
            self.meter.drop(self._unit, [FAILED])
            self._watching = False
        self.meter.per_call = 0.0
        self._failures.pause(time.monotonic())

    def _set_bursts(self) -> None:
        """Have failures looked for in bursts, or always, as the level says."""
        level = LEVELS[self.level]
        self.meter.per_call = self._per_call * level.duty if self._watching else 0.0
        if self._watching and level.on:
            self.meter.attach_in(self._unit, FAILED, level.on, level.period)
        elif self._watching and self._failures.sampling:
            self.meter.attach_in(self._unit, FAILED, 0, LEVELS[1].period)

    def burst(self, report: BurstReport) -> None:
        """What failed until now was counted until a pause, else it is a burst's."""
        if report.unit != self._unit or not self._watching:
            return
        self.drain()
        self.meter.burst(report)
        if report.kind == "paused":
            self._failures.pause(report.end / 1e9)
        elif report.kind == "burst":
            self._failures.add(report)
        elif report.kind == "steady":
            self._failures.resume(report.begin, time.monotonic())
        else:
            self.level = len(LEVELS) - 1
            self._blind()

    def uncounted(self, now: float) -> float:
        """None: what succeeds is always counted."""
        return 0.0

    def given_up(self) -> str | None:
        """What is seen in bursts only, or not at all, while it runs."""
        return LEVELS[self.level].words or None

    def set_option(self, option: str, value: Any) -> bool:
        """Hide arguments from now on, also those that were read already."""
        self.check_option(option, value)
        changed, self.args = self.args is not value, value
        if changed:
            self._events = [_hidden(event) for event in self._events]
        return changed

    def _counters(self) -> list[int]:
        totals = [0, 0, 0, 0]
        if self._stats is not None:
            for cpu in range(self._stats.entries):
                values = _STATS.unpack_from(self._stats.memory, cpu * self._stats.stride)
                totals = [total + value for total, value in zip(totals, values, strict=True)]
        return totals

    def _exec(self, record: memoryview, offset: float) -> ExecEvent:
        fields = _EXEC.unpack_from(record)
        _, pid, when, started, cgroup, ppid, uid, ret, flags, comm, parent, path, *rest = fields
        length, euid = rest
        if ret < 0:
            self._failures.saw(when)
        if ret == 0:
            if len(self._executed) >= MOST_RUNNING:
                self._executed.pop(next(iter(self._executed)))
            self._executed[pid, started] = when
        raw = bytes(record[_EXEC.size : _EXEC.size + length])
        hidden = bool(flags & _HIDDEN) or not self.args
        return ExecEvent(
            time=when / 1e9 + offset,
            pid=pid,
            ppid=ppid,
            uid=uid,
            comm=_text(comm),
            parent=_text(parent),
            args=None if hidden or flags & _NO_ARGS else split_args(raw),
            truncated=bool(flags & _TRUNCATED),
            ret=ret,
            cgroup=self._cgroups.path(cgroup, pid, ppid),
            path=_text(path) or None,
            args_hidden=hidden,
            started=started,
            euid=euid,
            path_truncated=bool(flags & _PATH_TRUNCATED),
        )

    def _exit(self, record: memoryview, offset: float) -> ExitEvent:
        _, pid, when, begun, started, code, _, comm = _EXIT.unpack_from(record)
        begun = self._executed.pop((pid, started), begun)
        return ExitEvent(
            time=when / 1e9 + offset,
            pid=pid,
            comm=_text(comm),
            exit_code=code >> 8 & 0xFF,
            signal=code & 0x7F,
            duration=max(0, when - begun),
            started=started,
        )


def _event_object(event: ExecEvent | ExitEvent, names: Mapping[str, CgroupName]) -> dict[str, Any]:
    """One event as the contract has it; text that is no UTF-8 is escaped (\\xff)."""
    if isinstance(event, ExitEvent):
        return {
            "type": "exit",
            "time": event.time,
            "pid": event.pid,
            "comm": escaped(event.comm),
            "exit_code": event.exit_code,
            "signal": event.signal,
            "signal_name": _signal_name(event.signal),
            "duration": event.duration,
            "started": event.started,
        }
    hidden = {"args_hidden": True} if event.args_hidden else {}
    return {
        "type": "exec",
        "time": event.time,
        "pid": event.pid,
        "ppid": event.ppid,
        "uid": event.uid,
        "euid": event.euid,
        "comm": escaped(event.comm),
        "parent": escaped(event.parent),
        "args": None if event.args is None else [escaped(arg) for arg in event.args],
        "truncated": event.truncated or event.path_truncated,
        "path_truncated": event.path_truncated,
        "ret": event.ret,
        "cgroup": event.cgroup,
        "path": None if event.path is None else escaped(event.path),
        "started": event.started,
        **_group_object(event.cgroup, names),
        **hidden,
    }


def _group_object(path: str | None, names: Mapping[str, CgroupName]) -> dict[str, str | None]:
    """The names of a control group: unit, pod, namespace, container and runtime."""
    fields = ("unit", "pod", "namespace", "container", "runtime")
    if path is None:
        return dict.fromkeys(fields)
    name = names.get(path) or describe(path)
    words = ((field, getattr(name, field)) for field in fields)
    return {field: None if word is None else escaped(word) for field, word in words}


def _hidden(event: ExecEvent | ExitEvent) -> ExecEvent | ExitEvent:
    """The event without arguments."""
    return replace(event, args=None, args_hidden=True) if isinstance(event, ExecEvent) else event


def _signal_name(number: int) -> str | None:
    if not number:
        return None
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
