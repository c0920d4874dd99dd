# SPDX-License-Identifier: Apache-2.0
"""Is the truth within the intervals that bursts tell?

    sudo ./run.sh bench truth [--intervals 200] [--only LOAD] [--on MS]

Three processes make system calls and note how many they have made, about each millisecond. The
probe is attached in bursts, of lengths as the budget chooses them for such loads. Each second's
estimate is compared with what the processes say that they made in exactly the time that it
stands for.
"""

from __future__ import annotations

import argparse
import mmap
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, cast

from bench.measure import BenchError, compiled
from bench.tables import NONE, Table, as_text
from probes.broker import server as broker
from probes.core.estimates import duty_of, errors_of, estimates_delta, factor, known_error
from probes.core.frame import Frame
from probes.core.sample import Estimates
from probes.live.source import LiveSource
from probes.probe import Probe
from probes.syscalls.probe import SyscallProbe
from probes.syscalls.sample import SyscallSample

CALL = "getppid"
PROCESSES = 3
PERIOD = 192
"""Milliseconds in which there is one burst."""
DEADLINE = 60.0
"""Seconds until something that should have come is overdue."""
GOAL = 0.9
"""The least share of known intervals that must contain the true rate."""


class Load(NamedTuple):
    """Calls a second of all processes (0: as many as they can), when, and ms of each burst."""

    kind: str
    rate: int
    on: int


LOADS = {
    "0.1 million/s": Load("steady", 100_000, 48),
    "1 million/s": Load("steady", 1_000_000, 12),
    "3 million/s": Load("steady", 3_000_000, 12),
    "flat out": Load("steady", 0, 3),
    "on and off at random": Load("random", 3_000_000, 12),
    "0.1 s of each second": Load("second", 3_000_000, 12),
}


class Notes:
    """The cumulative calls of a process and their times, from its own notes in shared memory."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)

    def read(self) -> tuple[Sequence[int], Sequence[int]]:
        """Monotonic ns, and the calls at each."""
        (count,) = struct.unpack_from("=Q", self._memory)
        words = struct.unpack_from(f"={2 * count}Q", self._memory, 16)
        return words[::2], words[1::2]

    def end(self) -> None:
        """Tell the process to end."""
        struct.pack_into("=Q", self._memory, 8, 1)


def calls_until(at: float, notes: tuple[Sequence[int], Sequence[int]]) -> float:
    """Calls until a moment in monotonic seconds, by the straight line between two notes."""
    times, counts = notes
    ns = at * 1e9
    n = bisect_left(times, ns)
    if n == 0:
        return 0.0
    if n == len(times):
        return float(counts[-1])
    part = (ns - times[n - 1]) / (times[n] - times[n - 1])
    return counts[n - 1] + part * (counts[n] - counts[n - 1])


class Judged(NamedTuple):
    """One interval: what was estimated, its interval of confidence, and the truth, in calls.

    `within` is None where the interval says that it cannot know.
    """

    estimate: int
    within: float | None
    truth: float

    @property
    def covers(self) -> bool:
        """True if the interval contains the true rate."""
        return self.within is not None and abs(self.estimate - self.truth) <= self.within


class Watched:
    """A source of this process, and all of its Frames."""

    def __init__(self) -> None:
        number, link = broker.fork({"syscalls": "probes.syscalls.probe:SyscallProbe"})
        self._broker = number
        self.probe: Probe = SyscallProbe()
        self.source = LiveSource(link, {"syscalls": self.probe}, interval=1.0)
        self.frames: list[Frame] = []
        self._news = threading.Condition()
        self.source.toggle("syscalls", True)
        self.source.start(self._frame, lambda reason: None)

    def _frame(self, frame: Frame) -> None:
        with self._news:
            self.frames.append(frame)
            self._news.notify_all()

    def wait(self, condition: Callable[[], object], seconds: float = DEADLINE) -> None:
        """Until it holds after a Frame; raises BenchError."""
        with self._news:
            if not self._news.wait_for(condition, seconds):
                raise BenchError("the probe tells nothing")

    def close(self) -> None:
        """Detach everything."""
        self.source.stop()
        os.waitpid(self._broker, 0)


@contextmanager
def working(program: Path, load: Load) -> Iterator[list[tuple[int, Notes]]]:
    """The processes of a load, by their ids."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found: list[tuple[int, Notes]] = []
        for number in range(PROCESSES):
            path = folder / str(number)
            command = [str(program), load.kind, str(load.rate // PROCESSES), str(path)]
            process = stack.enter_context(subprocess.Popen(command))
            stack.callback(process.kill)
            end = time.monotonic() + DEADLINE
            while not path.exists() or not path.stat().st_size:
                if time.monotonic() > end:
                    raise BenchError("the load does not start")
                time.sleep(0.01)
            found.append((process.pid, Notes(path)))
        yield found
        for _, notes in found:
            notes.end()


def judged(program: Path, load: Load, intervals: int) -> list[list[Judged]]:
    """Intervals of a second: first those of all processes together, then of each."""
    with working(program, load) as processes:
        watched = Watched()
        try:
            frames, since = _frames(watched, load, intervals)
        finally:
            watched.close()
        told = [notes.read() for _, notes in processes]
    pids = [pid for pid, _ in processes]
    out: list[list[Judged]] = [[] for _ in range(PROCESSES + 1)]
    for old, new in pairwise(frames):
        for judgements, one in zip(out, judge(old, new, since, pids, told), strict=False):
            judgements.append(one)
    return out


def _frames(watched: Watched, load: Load, intervals: int) -> tuple[list[Frame], float]:
    """The Frames of a load in bursts, and the monotonic second in which those began."""
    probe = cast(SyscallProbe, watched.probe)
    watched.wait(lambda: probe.totals.count)
    time.sleep(1.0)
    watched.source._command(lambda: probe.meter.attach_in(probe._unit, None, load.on, PERIOD))
    bursts = probe.totals.bursts
    watched.wait(lambda: bursts.duty is not None and bursts.duty.bursts)
    since = cast(float, bursts._paused)
    begin = len(watched.frames)
    watched.wait(lambda: len(watched.frames) > begin + intervals + 1, 4.0 * intervals + DEADLINE)
    return watched.frames[begin:], since


def judge(
    old: Frame,
    new: Frame,
    since: float,
    pids: Sequence[int],
    notes: Sequence[tuple[Sequence[int], Sequence[int]]],
) -> list[Judged]:
    """All together, then each; nothing where nothing was estimated."""
    before, after = (cast(SyscallSample, frame.samples["syscalls"]) for frame in (old, new))
    duty = duty_of(before, after)
    if duty is None or after.duty is None:
        return []
    end = since + after.duty.seconds
    truths = [calls_until(end, one) - calls_until(end - duty.seconds, one) for one in notes]
    by_call = estimates_delta(before.estimated, after.estimated).get(CALL, Estimates())
    matrix = estimates_delta(before.estimated_matrix, after.estimated_matrix)
    rows = [by_call, *(matrix.get((pid, CALL), Estimates()) for pid in pids)]
    out = []
    for row, truth in zip(rows, [sum(truths), *truths], strict=True):
        error = known_error(row.n, errors_of(row, duty)[0], duty)
        within = None if error is None else factor(duty) * error
        out.append(Judged(row.n, within, truth))
    return out


def row_of(name: str, who: str, found: Sequence[Judged]) -> Sequence[str]:
    """Coverage of the intervals that are told, their median width, and how far off they are."""
    told = [one for one in found if one.within is not None]
    if not told:
        return (name, who, "0", str(len(found)), NONE, NONE, NONE)
    covered = sum(one.covers for one in told)
    width = median(2 * cast(float, one.within) / one.estimate for one in told)
    off = median(one.estimate / max(1.0, one.truth) - 1 for one in told)
    unknown = len(found) - len(told)
    share = f"{covered} ({100 * covered / len(told):.1f} %)"
    return (
        name,
        who,
        str(len(told)),
        str(unknown),
        share,
        f"{100 * off:+.1f}",
        f"{100 * width:.0f}",
    )


def table_of(program: Path, loads: dict[str, Load], intervals: int) -> Table:
    """Each load: all processes together, and one of them."""
    rows: list[Sequence[str]] = []
    for name, load in loads.items():
        print(f"  {name}, {load.on} ms in {PERIOD}", file=sys.stderr, flush=True)
        whole, one, *_ = judged(program, load, intervals)
        rows += [row_of(name, "all", whole), row_of(name, "one process", one)]
    title = f"Intervals of a second told from bursts, {intervals} of each load"
    head = ("load", "of", "told", "cannot know", "have the truth", "% off", "% wide")
    return title, head, rows


def main() -> int:
    """Prints the table; 1 if fewer intervals than GOAL have the truth."""
    parser = argparse.ArgumentParser(prog="probetop bench truth", description=__doc__)
    parser.add_argument("--intervals", type=int, default=200)
    parser.add_argument("--only", choices=LOADS, action="append")
    parser.add_argument("--on", type=int, help="milliseconds of each burst")
    args: Any = parser.parse_args()
    loads = {name: LOADS[name] for name in args.only or LOADS}
    if args.on:
        loads = {name: load._replace(on=args.on) for name, load in loads.items()}
    with tempfile.TemporaryDirectory(prefix="probetop-bench-") as name:
        program = compiled(Path(name), "rates")["rates"]
        table = table_of(program, loads, args.intervals)
    print(as_text(table), flush=True)
    shares = [float(row[4].split("(")[1].split()[0]) for row in table[2] if row[4] != NONE]
    return int(min(shares, default=100.0) < 100 * GOAL)


if __name__ == "__main__":
    sys.exit(main())
