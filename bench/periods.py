# SPDX-License-Identifier: Apache-2.0
"""A load that comes and goes while probetop is there or not, seen from outside only.

What is seen is what the load itself says that it got done, ten times a second, and when which
object of `probetop stream` arrived. Objects are decoded when the period is over, so that decoding
takes nothing from the load.
"""

from __future__ import annotations

import bisect
import json
import mmap
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from bench.measure import ROOT, BenchError, compiled

WAIT, WORK, END = 0, 1, 2
LINE = 64
"""Bytes between the words of the file that a load counts in."""
STEP = 0.1
"""Seconds between two looks at what the load got done."""
DEADLINE = 60.0
"""Seconds until something that should have come is overdue."""
Object = Mapping[str, Any]
"""One object of the stream."""


class Kind(NamedTuple):
    """A load: its name, what it is in words, and whether an object of the stream shows it."""

    name: str
    text: str
    shown: Callable[[Object], bool]
    functions: tuple[str, ...] = ()


def _listed(found: Object, probe: str, table: str, **where: object) -> bool:
    """Whether a row with these values has a count in this interval."""
    rows = found["probes"].get(probe, {}).get(table) or ()
    return any(
        all(row.get(name) == value for name, value in where.items())
        and any(row.get(name) for name in ("count", "context_switches"))
        for row in rows
    )


def _started(found: Object) -> bool:
    events = found["probes"].get("execs", {}).get("events") or ()
    return any(event.get("comm") == "idle" for event in events)


def kinds(program: Path) -> tuple[Kind, ...]:
    """All loads; `program` is the compiled load."""
    spec = f"uprobe:{program}:work"
    return (
        Kind("calls", "system calls", lambda o: _listed(o, "syscalls", "rows", syscall="getppid")),
        Kind("switches", "context switches", lambda o: _listed(o, "pmc", "processes", comm="load")),
        Kind("programs", "programs", _started),
        Kind(
            "function",
            "a traced function",
            lambda o: _listed(o, "latency", "targets", spec=spec),
            (spec,),
        ),
    )


class Period(NamedTuple):
    """What a load got done: `times` are seconds from its begin, `done` the sum until then.

    `objects` are those of the stream that came meanwhile, with the second in which they did.
    """

    times: list[float]
    done: list[float]
    objects: list[tuple[float, bytes]]

    @property
    def length(self) -> float:
        """Seconds."""
        return self.times[-1]

    def rate(self, begin: float, end: float) -> float:
        """Work a second between two moments."""
        return (self._until(end) - self._until(begin)) / (end - begin)

    def _until(self, at: float) -> float:
        i = min(max(1, bisect.bisect_left(self.times, at)), len(self.times) - 1)
        (a, b), (x, y) = self.times[i - 1 : i + 1], self.done[i - 1 : i + 1]
        return x + (y - x) * (at - a) / (b - a)

    def silence(self, shown: Callable[[Object], bool]) -> float:
        """The longest time without an object that shows the load, from its begin to its end."""
        fresh = [at for at, line in self.objects if shown(json.loads(line))]
        moments = [0.0, *fresh, self.length]
        return max(b - a for a, b in pairwise(moments))


class Load:
    """A load on every CPU, which waits until it is told to work."""

    def __init__(self, folder: Path, kind: str) -> None:
        programs = compiled(folder, "load", "idle")
        path = folder / f"{kind}.words"
        self._cpus = os.sysconf("SC_NPROCESSORS_ONLN")
        path.write_bytes(bytes(LINE * (1 + self._cpus)))
        with path.open("r+b") as file:
            self._words = mmap.mmap(file.fileno(), 0)
        command = [str(programs["load"]), kind, str(path), str(programs["idle"])]
        self.process = subprocess.Popen(command[: 4 if kind == "programs" else 3])
        end = time.monotonic() + DEADLINE
        while not self._word(LINE // 2):
            if self.process.poll() is not None or time.monotonic() > end:
                self.close()
                raise BenchError(f"the load does not start: {kind}")
            time.sleep(0.01)

    def _word(self, at: int) -> int:
        return int(struct.unpack_from("=Q", self._words, at)[0])

    def _tell(self, word: int) -> None:
        struct.pack_into("=Q", self._words, 0, word)

    def done(self) -> int:
        """What all CPUs have done since the start."""
        return sum([self._word(LINE * (1 + cpu)) for cpu in range(self._cpus)])

    def work(self, seconds: float, objects: Objects | None = None) -> Period:
        """Work for so long; a step up from nothing, and one down at the end."""
        times, done = [0.0], [0.0]
        first, begun = self.done(), time.monotonic()
        self._tell(WORK)
        try:
            while times[-1] < seconds:
                time.sleep(STEP)
                times.append(time.monotonic() - begun)
                done.append(float(self.done() - first))
        finally:
            self._tell(WAIT)
        if self.process.poll() is not None:
            raise BenchError("the load ended by itself")
        came = objects.between(begun, begun + times[-1]) if objects is not None else []
        return Period(times, done, came)

    def close(self) -> None:
        """End it."""
        self._tell(END)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Objects:
    """Reads the lines of a stream in a thread of its own, and notes when they came."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.lines: list[tuple[float, bytes]] = []
        self._process = process
        self._first = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append((time.monotonic(), line))
            self._first.set()
        self._first.set()

    def wait(self) -> None:
        """Until the first object, which is when all probes run; raises BenchError."""
        self._first.wait(DEADLINE)
        if not self.lines:
            raise BenchError("probetop stream says nothing")

    def between(self, begin: float, end: float) -> list[tuple[float, bytes]]:
        """What came in a period, with the seconds since it began."""
        return [(at - begin, line) for at, line in list(self.lines) if begin <= at <= end]

    def join(self) -> None:
        """Until all was read."""
        self._thread.join(DEADLINE)


@contextmanager
def streaming(options: Sequence[str]) -> Iterator[Objects]:
    """probetop without its screen, from its first object on. Raises BenchError."""
    command = [sys.executable, "-P", "-m", "tui.cli", "stream", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env=environment) as process:
        objects = Objects(process)
        try:
            objects.wait()
            yield objects
            if process.poll() is not None:
                raise BenchError("probetop ended while it was measured")
        finally:
            process.terminate()
            objects.join()
