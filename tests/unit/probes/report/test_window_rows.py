# SPDX-License-Identifier: Apache-2.0
"""Rows of a window: all processes of the time are in them, also those that ended meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.core.frame import Frame, Host
from probes.core.readings import Reading
from probes.core.sample import Counts, Histogram, Sample
from probes.latency.sample import LatencySample, Spent, Target
from probes.latency.view import latency_view
from probes.pmc.sample import CpuTimes, PmcSample, TaskTimes
from probes.pmc.view import pmc_view
from probes.recording.history import History
from probes.report import window_rows, windows
from probes.report.windows import SINCE_START, Windows
from probes.syscalls.sample import SyscallSample
from probes.syscalls.view import syscall_view

LIFE = 3
"""For how many seconds a process makes calls, one each a second; later it is forgotten."""


def calls_at(tick: int) -> SyscallSample:
    """Process 1 makes ten calls a second; one more begins each second, and lives for three."""
    matrix = {(1, "read"): Counts(10 * tick, tick)}
    for pid in range(max(2, tick - 4), tick + 2):
        matrix[pid, "getppid"] = Counts(100 * min(LIFE, tick + 2 - pid), 0)
    ever = sum([min(LIFE, tick + 2 - pid) for pid in range(2, tick + 2)])
    calls = {"read": Counts(10 * tick, tick), "getppid": Counts(100 * ever, 0)}
    comms = {pid: f"p{pid}" for pid, _ in matrix}
    return SyscallSample(
        state="on", since=0.0, counted=float(tick), calls=calls, matrix=matrix, comms=comms
    )


def frame(tick: int, **samples: Sample) -> Frame:
    return Frame(
        time=1.7e9 + tick, mono=float(tick), interval=1.0, host=Host("web-3"), samples=samples
    )


class Shown:
    """What a pane is shown of each Frame, in a window."""

    def __init__(self, seconds: float, probe: str = "syscalls") -> None:
        self.history = History()
        self.windows = Windows(self.history)
        self.seconds, self.probe = seconds, probe

    def take(self, new: Frame) -> tuple[Sample, Sample] | None:
        self.keep(new)
        found = self.windows.span(new, self.probe, self.seconds)
        return found and (found[0].samples[self.probe], found[1].samples[self.probe])

    def keep(self, new: Frame) -> None:
        self.history.add(new)
        self.windows.keep(new)


def views(seconds: float, ticks: int, shown: slice = slice(None)) -> Iterator[tuple[int, int, int]]:
    """At each tick that is shown: the title's calls, those of all rows, how many rows."""
    every = Shown(seconds)
    for tick in range(ticks):
        if tick not in range(ticks)[shown]:
            every.keep(frame(tick, syscalls=calls_at(tick)))
            continue
        pair = every.take(frame(tick, syscalls=calls_at(tick)))
        if pair is None:
            continue
        old, new = pair
        assert isinstance(old, SyscallSample)
        assert isinstance(new, SyscallSample)
        view = syscall_view(old, new, seconds)
        listed = sum([row.count for row in view.processes])
        assert listed + view.ended.n == view.count
        assert all(row.comm == f"p{row.pid}" for row in view.processes)
        assert sum([row.count for row in view.processes_of("getppid")]) + view.ended_of(
            next(call for call in view.calls if call.name == "getppid")
        ).n == sum([call.count for call in view.calls if call.name == "getppid"])
        yield view.count, listed, len(view.processes)


@pytest.mark.parametrize("seconds", [10.0, 60.0, SINCE_START])
@pytest.mark.parametrize(
    "shown", [slice(None), slice(0, None, 7), slice(80, None), slice(99, None)]
)
def test_rows_of_processes_that_ended_within_the_window_are_there(
    seconds: float, shown: slice
) -> None:
    *_, (title, listed, rows) = views(seconds, 100, shown)
    assert title == listed
    # One more each second, and those that were there when it began.
    assert rows == min(seconds, 99) + LIFE if seconds < 99 else 100


def test_intervals_too_many_to_decode_lack_rows_and_say_how_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(windows, "STEPS", 5)
    *_, (title, listed, _) = views(60.0, 100, slice(99, None))
    assert 0 < listed < title
    *_, (title, listed, _) = views(60.0, 200, slice(99, None))
    assert title == listed


def test_rows_that_are_too_many_are_left_out_the_smallest_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(window_rows, "ROOM", 20)
    monkeypatch.setattr(window_rows, "KEPT", 5)
    for title, listed, rows in views(60.0, 300):
        assert listed <= title
        assert rows <= 45
    assert 1010 <= listed < title


def test_targets_and_counters_have_rows_of_ended_processes_too() -> None:
    latency, pmc = Shown(10.0, "latency"), Shown(10.0, "pmc")
    for tick in range(40):
        pids = range(max(1, tick - 4), tick + 1)
        spent = {("runq", pid): Spent(5, 50) for pid in pids}
        target = Target(spec="runq", state="on", histogram=Histogram({10: 5 * tick}, 5 * tick, 1))
        first = latency.take(
            frame(
                tick,
                latency=LatencySample(
                    state="on", since=0.0, targets={"runq": target}, processes=spent
                ),
            )
        )
        second = pmc.take(
            frame(
                tick,
                pmc=PmcSample(
                    state="on",
                    since=0.0,
                    events=("cycles",),
                    tasks={pid: TaskTimes(7, 1, 0, None) for pid in pids},
                    readings={(pid, "cycles"): Reading(3, 7, 7) for pid in pids},
                    cpus={0: CpuTimes(7 * tick, 0, tick, None)},
                    cpu_readings={(0, "cycles"): Reading(3 * tick, 7 * tick, 7 * tick)},
                ),
            )
        )
    assert first is not None
    assert second is not None
    targets = latency_view(*first, 10.0)  # type: ignore[arg-type]
    assert len(targets.behind("runq")) == 10
    assert targets.unlisted(targets.targets[0]) == 0
    counters = pmc_view(*second, 10.0)  # type: ignore[arg-type]
    assert len(counters.processes) == 10
    assert sum([row.clock for row in counters.processes]) == counters.machine.clock == 70
    assert {row.count("cycles") for row in counters.processes} == {3}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.integers(1, 6), st.integers(1, 5), max_size=4), min_size=4, max_size=30
    ),
    st.sampled_from([2.0, 3.0, 7.0, SINCE_START]),
)
def test_whatever_comes_and_goes_rows_are_the_sum_of_the_intervals(
    ticks: list[dict[int, int]], seconds: float
) -> None:
    shown = Shown(seconds)
    matrix: dict[tuple[int, str], Counts] = {}
    added: list[dict[int, int]] = []
    total = 0
    for tick, more in enumerate(ticks):
        # Who makes no calls is forgotten, and begins at zero if it comes back.
        before, matrix = matrix, {}
        for pid, n in more.items():
            old = before.get((pid, "read"), Counts(0, 0)).n
            matrix[pid, "read"] = Counts(old + n, 0)
        added.append(more)
        total += sum(more.values())
        sample = SyscallSample(
            state="on", since=0.0, calls={"read": Counts(total, 0)}, matrix=matrix
        )
        pair = shown.take(frame(tick, syscalls=sample))
        if pair is None:
            continue
        view = syscall_view(*pair, seconds)  # type: ignore[arg-type]
        wanted: dict[int, int] = {}
        for interval in added[1:][-int(min(seconds, 1000)) :]:
            for pid, n in interval.items():
                wanted[pid] = wanted.get(pid, 0) + n
        assert {row.pid: row.count for row in view.processes} == wanted
        assert view.ended.n == 0
