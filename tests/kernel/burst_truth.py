# SPDX-License-Identifier: Apache-2.0
"""Whether the truth is within what bursts tell of it: made-up loads that note what they did."""

from __future__ import annotations

import mmap
import os
import struct
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

from probes.budget.policy import Level
from probes.core import kernel
from probes.core.estimates import duty_of, errors_of, estimates_delta, factor
from probes.core.frame import Frame
from probes.core.sample import Duty, Estimates
from probes.execs.failed_execs import failed_estimate
from probes.execs.probe import FAILED
from probes.execs.sample import ExecSample
from probes.pmc.bursts import BUSY, SWITCHES
from probes.pmc.sample import PmcSample
from probes.pmc.view import pmc_view
from probes.syscalls.sample import SyscallSample
from tests.kernel.harness import PATHS, Live, Work, eventually

CALL = "getppid"
WITH_PMC = {**PATHS, "pmc": "probes.pmc.probe:PmcProbe"}


class Notes:
    """How many calls a `paced` workload had made, and when, as it notes that itself."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def read(self) -> tuple[Sequence[int], Sequence[int]]:
        """Monotonic ns, and the calls at each."""
        (count,) = struct.unpack_from("=Q", self._memory)
        words = struct.unpack_from(f"={2 * count}Q", self._memory, 8)
        return words[::2], words[1::2]

    def calls(self, at: float, notes: tuple[Sequence[int], Sequence[int]]) -> float:
        """Calls until a moment in seconds, between two notes by the straight line."""
        times, counts = notes
        ns = at * 1e9
        n = bisect_left(times, ns)
        if n == 0:
            return 0.0
        if n == len(times):
            return float(counts[-1])
        part = (ns - times[n - 1]) / (times[n] - times[n - 1])
        return counts[n - 1] + part * (counts[n] - counts[n - 1])


def switches_judged(program: Path, rate: int, level: Level, intervals: int) -> list[list[Judged]]:
    """Intervals of a second, of a pair of processes on each of two CPUs that take turns.

    Of each pair the switches of the first process, as the kernel tells that one itself; and of
    both together the time of the machine, of which the CPUs have all there is.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory()))
        cpus = sorted(os.sched_getaffinity(0))[:2]
        works = [
            stack.enter_context(Work(program, str(cpu), str(rate), directory / str(cpu)))
            for cpu in cpus
        ]
        live = stack.enter_context(Live("pmc", paths=WITH_PMC, interval=1.0))
        for work in works:
            work.go()
        notes = [Notes(directory / str(cpu)) for cpu in cpus]
        probe = cast(Any, live.probes["pmc"])
        eventually("they work", lambda: all(len(one.read()[0]) > 100 for one in notes))
        frames, since = _frames_in_bursts(
            live, probe, None, level, lambda: probe.totals.bursts, intervals
        )
        told = [one.read() for one in notes]
        for work in works:
            work.go()
            work.done()
    out: list[list[Judged]] = [[] for _ in range(len(works) + 1)]
    for old, new in pairwise(frames):
        before, after = (cast(PmcSample, frame.samples["pmc"]) for frame in (old, new))
        view = pmc_view(before, after, 1.0)
        duty = view.duty
        if duty is None or after.duty is None:
            continue
        end = since + after.duty.seconds
        for work, one, words, judgements in zip(works, notes, told, out, strict=False):
            row = view.processes.row(work.pid)
            within = factor(duty) * (row.error(SWITCHES, duty) or 0.0)
            truth = one.calls(end, words) - one.calls(end - duty.seconds, words)
            judgements.append(Judged(row.switches, within, truth, duty))
        machine = view.machine
        whole = len(kernel.online_cpus()) * duty.seconds * 1e9
        off = factor(duty) * (machine.error(BUSY, duty) or 0.0)
        out[-1].append(Judged(machine.clock + machine.idle, off, whole, duty))
    return out


def failures_judged(program: Path, rate: int, level: Level, intervals: int) -> list[Judged]:
    """Estimates of the executions that fail, of a program that tries `rate` a second."""
    with ExitStack() as stack:
        path = Path(stack.enter_context(TemporaryDirectory())) / "notes"
        work = stack.enter_context(Work(program, str(rate), path))
        live = stack.enter_context(Live("execs", interval=1.0))
        work.go()
        notes = Notes(path)
        probe = cast(Any, live.probes["execs"])
        eventually("it works", lambda: len(notes.read()[0]) > 100)
        frames, since = _frames_in_bursts(
            live, probe, FAILED, level, lambda: probe._failures._bursts, intervals
        )
        told = notes.read()
        work.go()
        work.done()
    out = []
    for old, new in pairwise(frames):
        before, after = (cast(ExecSample, frame.samples["execs"]) for frame in (old, new))
        found = failed_estimate(before, after)
        if found is None or after.failed_duty is None:
            continue
        end = since + after.failed_duty.seconds
        truth = notes.calls(end, told) - notes.calls(end - found.duty.seconds, told)
        within = factor(found.duty) * found.error
        out.append(Judged(found.estimate.n, within, truth, found.duty))
    return out


def _frames_in_bursts(
    live: Live, probe: Any, group: int | None, level: Level, sums: Callable[[], Any], intervals: int
) -> tuple[list[Frame], float]:
    """So many Frames and a few more while it is attached in bursts, and since when it is."""
    live.source._command(lambda: probe.meter.attach_in(probe._unit, group, level.on, level.period))
    eventually("there are bursts", lambda: sums().sampling)
    begin = len(live.frames)
    eventually("enough", lambda: len(live.frames) > begin + intervals + 2, 4.0 * intervals + 60)
    return list(live.frames[begin:]), sums()._paused


class Judged(NamedTuple):
    """One interval: what was estimated, its interval of confidence, and the truth, in calls."""

    estimate: int
    within: float
    truth: float
    duty: Duty

    @property
    def covers(self) -> bool:
        """True if the interval contains the true rate."""
        return abs(self.estimate - self.truth) <= self.within


def judged(
    program: Path, rate: int, level: Level, intervals: int, bursty: bool = False
) -> list[list[Judged]]:
    """Intervals of a second, of three workloads of `rate` calls a second in all (0: any).

    First those of all three together, then of each.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory()))
        paths = [directory / str(n) for n in range(3)]
        works = [
            stack.enter_context(Work(program, str(rate // 3), str(int(bursty)), path))
            for path in paths
        ]
        live = stack.enter_context(Live("syscalls", interval=1.0))
        for work in works:
            work.go()
        notes = [Notes(path) for path in paths]
        probe = cast(Any, live.probes["syscalls"])
        eventually("it counts", lambda: probe.totals.count)
        bursts = probe.totals.bursts
        eventually("they work", lambda: all(len(one.read()[0]) > 100 for one in notes))
        live.source._command(
            lambda: probe.meter.attach_in(probe._unit, None, level.on, level.period)
        )
        eventually("there are bursts", lambda: bursts.sampling)
        since = bursts._paused
        begin = len(live.frames)
        eventually("enough", lambda: len(live.frames) > begin + intervals + 2, 4.0 * intervals + 60)
        frames = list(live.frames[begin:])
        told = [one.read() for one in notes]
        for work in works:
            work.go()
            work.done()
    pids = [work.pid for work in works]
    out: list[list[Judged]] = [[], [], [], []]
    for old, new in pairwise(frames):
        found = _judge(old, new, since, pids, notes, told)
        for judgements, one in zip(out, found, strict=False):
            judgements.append(one)
    return out


def _judge(
    old: Frame,
    new: Frame,
    since: float,
    pids: Sequence[int],
    notes: Sequence[Notes],
    told: Sequence[tuple[Sequence[int], Sequence[int]]],
) -> list[Judged]:
    """All together, then each; nothing where nothing was estimated."""
    before, after = (cast(SyscallSample, frame.samples["syscalls"]) for frame in (old, new))
    duty = duty_of(before, after)
    if duty is None or after.duty is None:
        return []
    end = since + after.duty.seconds
    truths = [
        one.calls(end, words) - one.calls(end - duty.seconds, words)
        for one, words in zip(notes, told, strict=True)
    ]
    by_call = estimates_delta(before.estimated, after.estimated).get(CALL, Estimates())
    matrix = estimates_delta(before.estimated_matrix, after.estimated_matrix)
    rows = [by_call, *(matrix.get((pid, CALL), Estimates()) for pid in pids)]
    out = []
    for row, truth in zip(rows, [sum(truths), *truths], strict=True):
        error = errors_of(row, duty)[0] or 0.0
        out.append(Judged(row.n, factor(duty) * error, truth, duty))
    return out


def told(judgements: Sequence[Judged]) -> str:
    """How many intervals had the truth, and how wide and how far off they were."""
    if not judgements:
        return "nothing was estimated"
    covered = sum(one.covers for one in judgements)
    width = sorted(one.within / max(1.0, one.estimate) for one in judgements)[len(judgements) // 2]
    off = sum(one.estimate for one in judgements) / sum(one.truth for one in judgements) - 1
    return f"{covered} of {len(judgements)}, half width {width:.1%}, off {off:+.2%} in all"
