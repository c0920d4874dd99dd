# SPDX-License-Identifier: Apache-2.0
"""What kernel tests stand on: a live source in this process, workloads, and who holds what.

Tests wait for conditions with a generous deadline and judge counts, never times.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import re
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from probes.bpf import bpf_syscall
from probes.broker import server as broker
from probes.core.frame import Filters, Frame
from probes.execs.sample import ExecEvent, ExecSample, ExitEvent
from probes.live.source import LiveSource
from probes.syscalls.probe import SyscallProbe
from probes.syscalls.sample import SyscallSample
from tests.paths import ROOT

T = TypeVar("T")
PATHS = {"syscalls": "probes.syscalls.probe:SyscallProbe", "execs": "probes.execs.probe:ExecProbe"}
DEADLINE = 60.0
"""Seconds until a condition that should hold soon has failed: long enough on a busy machine."""


def eventually(what: str, condition: Callable[[], T], seconds: float | None = None) -> T:
    """The first true value of `condition`; fails the test when the deadline has passed.

    `seconds` is that deadline; None is DEADLINE as it is now, which guests make longer.
    """
    seconds = DEADLINE if seconds is None else seconds
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"after {seconds:g} s still not: {what}")
        time.sleep(0.02)


class Live:
    """A LiveSource of this process, which keeps its privileges, and all of its Frames."""

    def __init__(
        self,
        *on: str,
        interval: float = 0.1,
        filters: Filters | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        paths: Mapping[str, str] = PATHS,
        cost_always: bool = False,
        budget: float = 0.0,
        log: Path | None = None,
        expect_on: bool = True,
    ) -> None:
        self.broker, link = broker.fork(paths)
        classes = {name: path.partition(":") for name, path in paths.items()}
        probes = {name: getattr(_module(m), c)() for name, (m, _, c) in classes.items()}
        self.source = LiveSource(
            link, probes, interval=interval, cost_always=cost_always, budget=budget, log=log
        )
        self.probes = probes
        self.frames: list[Frame] = []
        self.ends: list[str] = []
        self._news = threading.Condition()
        for name, chosen in (options or {}).items():
            for option, value in chosen.items():
                self.source.set_option(name, option, value)
        if filters is not None:
            self.source.set_filters(filters)
        for name in on:
            self.source.toggle(name, True)
        self.source.start(self._frame, self._end)
        if on and expect_on:
            try:
                self.all_on(*on)
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop, and wait for the broker to end of itself."""
        self.source.stop()
        with suppress(ChildProcessError):
            eventually("the broker ended", lambda: os.waitpid(self.broker, os.WNOHANG)[0])

    def _frame(self, frame: Frame) -> None:
        with self._news:
            self.frames.append(frame)
            self._news.notify_all()

    def _end(self, reason: str) -> None:
        with self._news:
            self.ends.append(reason)
            self._news.notify_all()

    def wait(self, what: str, condition: Callable[[Frame], object]) -> Frame:
        """The first Frame from now on for which `condition` holds."""
        end = time.monotonic() + DEADLINE
        with self._news:
            seen = len(self.frames)
            while True:
                for frame in self.frames[seen:]:
                    if condition(frame):
                        return frame
                seen = len(self.frames)
                if self.ends:
                    raise AssertionError(f"the source ended: {self.ends}")
                if not self._news.wait(end - time.monotonic()):
                    last = self.frames[-1].samples if self.frames else "no frame"
                    raise AssertionError(f"no frame in which {what}; the last: {str(last)[:2000]}")

    def ended(self) -> str:
        """Why the source ended by itself."""
        return eventually("the source has ended", lambda: self.ends)[0]

    def all_on(self, *names: str) -> Frame:
        """Wait until these probes run."""

        def judge(frame: Frame) -> bool:
            samples = [frame.samples[name] for name in names]
            failures = [sample.why for sample in samples if sample.state == "failed"]
            assert not failures, failures
            return all(sample.state == "on" for sample in samples)

        return self.wait(f"{names} are on", judge)

    def settled(self) -> Frame:
        """A Frame that holds all that happened until now.

        A row may enter a list just after it was read, so the reading after that counts too.
        """
        now = time.monotonic()
        later: list[Frame] = []

        def third(frame: Frame) -> bool:
            if frame.mono > now:
                later.append(frame)
            return len(later) == 3

        return self.wait("everything is read", third)

    def syscalls(self) -> SyscallSample:
        """The settled counters of the system-call probe."""
        return cast(SyscallSample, self.settled().samples["syscalls"])

    def execs(self) -> ExecSample:
        """The settled counters of the exec probe."""
        return cast(ExecSample, self.settled().samples["execs"])

    def events(self) -> list[ExecEvent | ExitEvent]:
        """All events of all Frames so far."""
        return [event for sample in self.exec_samples() for event in sample.events]

    def exec_samples(self) -> list[ExecSample]:
        """The exec probe's Samples of all Frames so far."""
        samples = (frame.samples["execs"] for frame in list(self.frames))
        return [sample for sample in samples if isinstance(sample, ExecSample)]


def _module(name: str) -> Any:
    from importlib import import_module

    return import_module(name)


def end_of(process: subprocess.Popen[Any], patience: float = 0.0) -> int:
    """The status of a child that ends by itself within so many seconds; else it is killed."""
    with suppress(subprocess.TimeoutExpired):
        return process.wait(patience)
    process.kill()
    return process.wait()


class Work:
    """A workload program that is ready, and works when told to."""

    def __init__(self, *command: str | Path, **options: Any) -> None:
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        try:
            word, pid = self.stdout.readline().split()
            assert word == "ready"
        except BaseException:
            end_of(self.process)
            raise
        self.pid = int(pid)

    def go(self) -> None:
        """Let it begin (or, for one that works until told, let it end)."""
        self.stdin.write("\n")
        self.stdin.flush()

    def done(self) -> list[int]:
        """Wait until it has worked; the numbers that it says."""
        word, *numbers = self.stdout.readline().split()
        assert word == "done"
        return [int(number) for number in numbers]

    def work(self) -> list[int]:
        """Begin, and wait until it is done."""
        self.go()
        return self.done()

    def end(self) -> int:
        """Let it exit; its status."""
        self.stdin.close()
        self.stdout.close()
        return end_of(self.process, DEADLINE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            with suppress(OSError):
                self.stdin.close()
            status = end_of(self.process, DEADLINE if error is None else 0.0)
            assert status == 0 or error is not None


# Who holds which programs: the kernel's list, and what /proc tells of descriptors.

_PROG_GET_NEXT_ID = 11


def programs_of_calls() -> int:
    """How many programs the system-call probe has without durations."""
    return len(SyscallProbe.plan({}).attach)


def program_ids() -> set[int]:
    """The ids of all BPF programs in the kernel."""
    found: set[int] = set()
    at = 0
    while True:
        buffer = ctypes.create_string_buffer(struct.pack("=3I", at, 0, 0), 12)
        try:
            bpf_syscall._syscall(
                0, ctypes.c_long(_PROG_GET_NEXT_ID), buffer, ctypes.c_ulong(len(buffer))
            )
        except FileNotFoundError:
            return found
        at = struct.unpack_from("=2I", buffer)[1]
        found.add(at)


def held_programs(pid: int | None = None) -> set[int]:
    """The ids of the programs that a process holds (this one), or a child such as its broker."""
    pid = pid or os.getpid()
    return {number for one in (pid, *children_of(pid)) for number in programs_of(one)}


def running_children() -> dict[int, str]:
    """The children of this process that run, and what they were started as."""
    found = {}
    for pid in children_of(os.getpid()):
        if is_running(pid):
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                found[pid] = b" ".join(words).decode("utf-8", "replace")
    return found


def children_of(pid: int) -> list[int]:
    """The processes that the threads of a process have started."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, path.read_text().split())
    return found


def programs_of(pid: int) -> set[int]:
    """The ids of the programs that a process's own descriptors hold, or that their links run."""
    return set(fdinfo_numbers(pid, "prog_id"))


def fdinfo_numbers(pid: int, field: str) -> list[int]:
    """A field of what /proc tells of a process's descriptors, for each that has it."""
    found: list[int] = []
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fdinfo"):
            with suppress(OSError):
                text = Path(f"/proc/{pid}/fdinfo/{name}").read_text()
                found += map(int, re.findall(rf"^{field}:\s*(\d+)", text, re.M))
    return found


def held_by_others(ours: Sequence[int] = ()) -> set[int]:
    """The programs that processes other than `ours` (and this one) hold."""
    pids = {int(name) for name in os.listdir("/proc") if name.isdigit()}
    return {i for pid in pids - {os.getpid(), *ours} for i in programs_of(pid)}


def left_in_kernel(before: set[int], ours: Sequence[int] = ()) -> set[int]:
    """The programs that are new since `before` and that no process but `ours` (and this) holds."""
    return program_ids() - before - held_by_others(ours)


def open_descriptors() -> int:
    """How many descriptors this process has open, without those that nobody refers to."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


class Dashboard:
    """A process of `tests.kernel.dashboard`, its children, and the lines that it prints."""

    def __init__(self, wish: Mapping[str, Any] | None = None, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.kernel.dashboard", json.dumps(wish or {})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **environment},
        )
        self.pid = self.process.pid
        self.lines: list[dict[str, Any]] = []
        self.tree: set[int] = {self.pid}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Dashboard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(json.loads(line) for line in self.process.stdout)

    def command(self, **commands: Sequence[Any]) -> None:
        """Call a command of the source: command(toggle=("execs", False))."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(commands) + "\n")
        self.process.stdin.flush()

    def end(self) -> str:
        """Close its input and wait for its end; what it wrote to stderr."""
        assert self.process.stdin is not None
        assert self.process.stderr is not None
        with suppress(OSError):
            self.process.stdin.close()
        end_of(self.process, DEADLINE)
        self._reader.join(DEADLINE)
        return "" if self.process.stderr.closed else self.process.stderr.read()

    def line(self, what: str, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """The first line from now on for which `condition` holds."""
        seen = len(self.lines)

        def judge() -> dict[str, Any] | None:
            return next((line for line in self.lines[seen:] if condition(line)), None)

        found = eventually(f"{what}; the last line is {self.lines[-1:]}", judge)
        assert found is not None
        return found

    def states(self, **wanted: str) -> dict[str, Any]:
        """Wait until the probes are in these states."""
        return self.line(f"{wanted}", lambda line: wanted.items() <= line.get("states", {}).items())

    def broker(self) -> int | None:
        """The broker's process id."""
        return next(iter(self._children(self.pid)), None)

    def loader(self) -> int | None:
        """The loader's process id, while there is one."""
        broker = self.broker()
        return next(iter(self._children(broker)), None) if broker else None

    def _children(self, pid: int) -> list[int]:
        found: list[int] = []
        with suppress(OSError):
            text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            found = [int(word) for word in text.split()]
        self.tree.update(found)
        return found


def status_of(pid: int) -> dict[str, str]:
    """The fields of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def is_running(pid: int) -> bool:
    """Whether a process is there, and not only its unread status."""
    try:
        return status_of(pid)["State"][0] not in "ZX"
    except OSError:
        return False
