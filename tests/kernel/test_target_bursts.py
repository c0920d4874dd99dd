# SPDX-License-Identifier: Apache-2.0
"""Latency targets in bursts on a real kernel: the truth, what is traced, and what is left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest

from probes.budget.policy import SAMPLING
from probes.core.estimates import duty_between, factor, known_error, standard_error
from probes.core.frame import Frame
from probes.ipc.messages import BurstReport
from probes.latency.degradation import COUNTED
from probes.latency.sample import LatencySample, Target
from probes.latency.view import latency_view
from tests.kernel.burst_truth import Notes
from tests.kernel.harness import Work, eventually, held_programs, programs_of
from tests.kernel.timing import Timing

pytestmark = pytest.mark.kernel
Program = Callable[[str], Path]
QUARTER, RARE = (
    next(n for n, one in enumerate(COUNTED) if one.words.endswith(words))
    for words in ("1 s in 4", "1 s in 16")
)


class Sampled(Timing):
    """A source with one target, of which the bursts are noted."""

    def __init__(self, spec: str, **settings: Any) -> None:
        super().__init__(spec, **settings)
        self.spec = spec
        self.reports: list[BurstReport] = []
        self.probe = cast(Any, self.probes["latency"])
        take = self.probe.burst

        def burst(report: BurstReport) -> None:
            self.reports.append(report)
            take(report)

        self.probe.burst = burst

    def __enter__(self) -> Sampled:
        return self

    def put(self, level: int) -> None:
        """Have the target at a level, as the budget does."""

        def change() -> None:
            if self.probe.give_up(self.spec, level, "over 2 % CPU", "wait"):
                self.source._request("latency", self.source._slots["latency"])

        self.source._command(change)

    def bursts(self) -> list[BurstReport]:
        """Those that were made until now."""
        return [one for one in self.reports if one.kind == "burst"]

    def target(self, frame: Frame) -> Target:
        """The target in a Frame; before the probe is on there is none."""
        targets = cast(LatencySample, frame.samples["latency"]).targets
        return targets.get(self.spec, Target(spec=self.spec))


def bounds(old: Target, new: Target) -> tuple[int, float | None]:
    """What was estimated between two Frames, and how far off it may be: None for anything."""
    duty = duty_between(old.duty, new.duty)
    n = new.estimated.n - old.estimated.n
    variance = new.estimated.variance - old.estimated.variance
    error = known_error(n, standard_error(n, variance, duty), duty)
    return n, None if error is None or duty is None else factor(duty) * error


@pytest.mark.parametrize(("rate", "level"), [(20_000, QUARTER), (300_000, RARE)])
def test_steady_calls_are_within_the_interval(
    program: Program, tmp_path: Path, rate: int, level: int
) -> None:
    paths = [tmp_path / str(n) for n in range(2)]
    file = program("paced")
    with ExitStack() as stack:
        works = [stack.enter_context(Work(file, str(rate // 2), "0", path)) for path in paths]
        live = stack.enter_context(Sampled(f"uprobe:{file}:paced_call", interval=1.0))
        for work in works:
            work.go()
        notes = [Notes(path) for path in paths]
        eventually("they work", lambda: all(len(one.read()[0]) > 100 for one in notes))
        live.put(level)
        eventually("there are bursts", lambda: len(live.bursts()) >= 12)
        frames = list(live.frames)
        last = live.target(frames[-1]).duty
        told = [one.read() for one in notes]
        for work in works:
            work.go()
            work.done()
        assert last is not None
    begin = live.bursts()[0].since / 1e9
    found: list[tuple[int, float | None, float]] = []
    for old, new in pairwise(map(live.target, frames)):
        if old.duty is None or new.duty is None or old.duty.bursts == new.duty.bursts:
            continue
        ends = [begin + duty.seconds for duty in (old.duty, new.duty)]
        truth = sum(
            one.calls(ends[1], words) - one.calls(ends[0], words)
            for one, words in zip(notes, told, strict=True)
        )
        found.append((*bounds(old, new), truth))
    assert len(found) >= 8
    right = [one for one in found if one[1] is None or abs(one[0] - one[2]) <= one[1]]
    assert len(right) >= 0.8 * len(found), found
    # At a pace that leaves time for tracing, bursts do know.
    if rate < 100_000:
        assert len([one for one in found if one[1] is not None]) > len(found) / 2, found
    first = next(frame for frame in frames if live.target(frame).duty is not None)
    view = latency_view(
        cast(LatencySample, first.samples["latency"]),
        cast(LatencySample, frames[-1].samples["latency"]),
        3.0,
    )
    assert {row.pid for row in view.behind(live.spec)} == {work.pid for work in works}


def test_eight_threads_with_exceptions_run_to_their_end_while_bursts_come_and_go(
    program: Program,
) -> None:
    file = program("left")
    with Sampled(f"uprobe:{file}:throws", interval=0.2) as live:
        live.put(QUARTER)
        eventually("there are bursts", lambda: len(live.bursts()) >= 2)
        for _ in range(6):
            with Work(file, "crowd", "20000") as work:
                assert work.work() == [8 * 15_000, 8 * 5_000]
            assert work.process.returncode == 0
        first = len(live.bursts())
        eventually("bursts go on", lambda: len(live.bursts()) > first)
        assert all(one.kind in ("paused", "burst") for one in live.reports)


def test_what_is_counted_after_bursts_is_exact_and_is_in_no_estimate(
    program: Program, tmp_path: Path
) -> None:
    file = program("timed")
    with Sampled(f"uprobe:{file}:timed_call", interval=0.2) as live:
        live.put(QUARTER)
        with Work(file, "calls", "10000", tmp_path / "first") as work:
            work.go()
            live.wait("there is an estimate", lambda f: (live.target(f).duty or (0,))[0])
            work.done()
        live.put(0)
        live.wait(
            "it is attached always",
            lambda f: live.target(f).state == "on" and live.target(f).duty is None,
        )
        with Work(file, "calls", "500", tmp_path / "second") as work:
            before = live.now()[live.spec]
            work.work()
            after = live.now()[live.spec]
        assert after.histogram.n - before.histogram.n == 500
        assert (after.estimated.n, after.duty) == (0, None)
        row = latency_view(live.latency(), live.latency(), 1.0).targets[0]
        assert row.estimated == 0


def test_durations_are_of_calls_within_one_burst(program: Program, tmp_path: Path) -> None:
    """No start of one burst ever gets the end of another: nothing takes longer than a burst."""
    file = program("timed")
    with Sampled(f"uprobe:{file}:timed_call", interval=0.2) as live, ExitStack() as stack:
        live.put(RARE)
        eventually("there are bursts", lambda: len(live.bursts()) >= 1)
        works = [
            stack.enter_context(Work(file, "calls", "15000", tmp_path / str(n))) for n in range(2)
        ]
        for work in works:
            work.go()
        many = len(live.bursts())
        eventually("it was seen in many", lambda: len(live.bursts()) >= many + 5)
        frame = live.wait("a Frame", lambda f: True)
        for work in works:
            work.done()
    seen = live.target(frame).in_bursts
    longest = max(one.end - one.begin for one in live.bursts())
    assert seen.n > 0
    assert max(seen.peaks, default=0) <= longest


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_nothing_is_attached_after_the_end_of_the_broker(program: Program, number: int) -> None:
    """Whoever kills it, at whatever moment of a burst."""
    live = Sampled(f"uprobe:{program('timed')}:timed_call")
    try:
        live.put(QUARTER)
        eventually("there are bursts", lambda: len(live.bursts()) >= 1)
        time.sleep(0.3)
        os.kill(live.broker, number)
        if number == signal.SIGSTOP:
            os.kill(live.broker, signal.SIGKILL)
        assert live.ended()
        eventually("no program is held", lambda: not programs_of(os.getpid()))
    finally:
        live.close()
    eventually("nothing is left", lambda: not held_programs())


def test_a_storm_is_told_in_bursts_and_the_person_lifts_the_budget(
    program: Program, tmp_path: Path
) -> None:
    file = program("paced")
    with ExitStack() as stack:
        work = stack.enter_context(Work(file, "0", "0", tmp_path / "notes"))
        live = stack.enter_context(Sampled(f"uprobe:{file}:paced_call", interval=1.0, budget=2.0))
        work.go()
        frame = live.wait(
            "it is sampled", lambda f: SAMPLING in (f.samples["latency"].given_up or "")
        )
        assert f"paced_call {SAMPLING} 1 s in " in (frame.samples["latency"].given_up or "")
        known = live.wait("there is an estimate", lambda f: live.target(f).estimated.n)
        assert live.target(known).state == "on"
        live.source.lift_budget(1000.0)
        live.wait(
            "all is counted",
            lambda f: live.target(f).state == "on" and live.target(f).duty is None,
        )
        work.go()
        work.done()
