# SPDX-License-Identifier: Apache-2.0
"""Sampling and the budget on a real kernel: what is given up, what stays exact, what comes back."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest

from probes.budget import policy
from probes.budget.policy import SAMPLING
from probes.core import kernel
from probes.core.delta import count_delta, histogram_delta
from probes.core.frame import Filters
from probes.core.sample import Counts
from probes.core.syscall_names import name_of
from probes.execs.probe import ExecProbe
from probes.execs.sample import ExecSample
from probes.latency.sample import LatencySample
from probes.syscalls.probe import TIMED
from probes.syscalls.sample import SyscallSample
from probes.syscalls.view import syscall_view
from tests.kernel.harness import PATHS, Live, Work, eventually
from tests.kernel.timing import STEP, rank, sleeps_asked_for

pytestmark = pytest.mark.kernel

ARCH = kernel.arch() or ""
TURNS = [name_of(number, False, ARCH) for number in (500, 501)]
SAMPLED = {"syscalls": {"latency": True, "sample_every": 16}}


def settled(live: Live) -> SyscallSample:
    return cast(SyscallSample, live.settled().samples["syscalls"])


def test_one_in_sixteen_is_timed_whatever_the_program_repeats(calls: Path) -> None:
    n = 160_000
    with (
        Work(calls, "turns", "10", "turns") as first,
        Work(calls, "turns", str(n), "turns") as work,
        Live("syscalls", options=SAMPLED, filters=Filters(comm="turns")) as live,
    ):
        # What is made for the first time is timed from the next poll on.
        first.work()
        before = settled(live)
        work.work()
        after = settled(live)
    assert after.sample_every == 16
    counts = count_delta(before.calls, after.calls)
    assert before.latency is not None
    assert after.latency is not None
    for name in TURNS:
        # Counts are of all calls, whatever is timed.
        assert counts[name] == Counts(n, n)
        timed = histogram_delta(before.latency.get(name), after.latency[name]).n
        # Gaps of every 16th would time one of the two never, and the other twice as often.
        assert timed == pytest.approx(n / 16, rel=0.1)
    assert after.missed == before.missed
    view = syscall_view(before, after, 1)
    (row,) = [row for row in view.calls if row.name == TURNS[0]]
    assert row.total is not None
    assert row.p50 is not None
    assert row.total / n > row.p50 / 4


def test_sampled_durations_agree_with_the_programs_own_clock(calls: Path) -> None:
    options = {"syscalls": {"latency": True, "sample_every": 4}}
    with (
        Work(calls, "sleeps", "1200") as work,
        Live("syscalls", options=options, filters=Filters(comm="calls")) as live,
    ):
        before = settled(live)
        p50, _, _, total = work.work()
        after = settled(live)
    view = syscall_view(before, after, 1)
    (row,) = [row for row in view.calls if row.name == "clock_nanosleep"]
    assert row.count == 1200
    asked = sleeps_asked_for(1200)
    assert row.p50 is not None
    assert row.total is not None
    # One sleep in four stands for all: the total is an estimate.
    assert rank(asked, 0.5) * (1 - STEP) <= row.p50 <= p50 * (1 + 2 * STEP)
    assert sum(asked) * 0.9 <= row.total <= total * 1.1


def test_no_duration_is_left_over_from_another_filter(calls: Path) -> None:
    """A call that was sampled, but did not pass the filter, has left its start."""
    options = {"syscalls": {"latency": True, "sample_every": 2}}
    nobody = Filters(comm="nobody at all")
    with (
        Work(calls, "until", "100", "left") as work,
        Live("syscalls", options=options, filters=nobody) as live,
    ):
        work.go()
        time.sleep(0.5)
        begun = time.monotonic_ns()
        live.source.set_filters(Filters(comm="left"))
        live.wait("it is counted", lambda f: f.samples["syscalls"].calls.get("getppid"))  # type: ignore[attr-defined]
        after = settled(live)
        passed = time.monotonic_ns() - begun
        work.work()
    assert after.latency is not None
    histogram = after.latency["getppid"]
    assert histogram.n > 100
    assert histogram.total < passed


def test_the_sampling_changes_while_it_runs(calls: Path) -> None:
    with Live("syscalls", options=SAMPLED) as live, Work(calls, "until", "1000") as work:
        work.go()
        for every in (64, 1, 4):
            live.source.set_option("syscalls", "sample_every", every)
            live.wait(
                f"one in {every} is timed",
                lambda frame, every=every: (  # type: ignore[misc]
                    cast(SyscallSample, frame.samples["syscalls"]).sample_every == every
                ),
            )
        (made,) = work.work()
        after = settled(live)
    assert after.matrix[work.pid, "getppid"].n == made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A governor for which seconds are long."""
    monkeypatch.setattr(policy, "WAIT", 1.0)
    monkeypatch.setattr(policy, "TRIAL", 2.0)
    monkeypatch.setattr(policy, "LASTED", 0.0)
    monkeypatch.setattr(policy, "SETTLE", 1.5)


@pytest.mark.usefixtures("impatient")
def test_a_storm_of_calls_on_all_cpus_is_given_up_and_comes_back(calls: Path) -> None:
    options = {"syscalls": {"latency": True}}
    with ExitStack() as stack:
        storms = [
            stack.enter_context(Work(calls, "until", "1000", "storm"))
            for _ in range(os.cpu_count() or 1)
        ]
        # Whatever else this machine does, what was seen last is the storm.
        only = Filters(comm="storm")
        live = stack.enter_context(Live("execs", options=options, budget=5.0, filters=only))
        for storm in storms:
            storm.go()
        live.source.toggle("syscalls", True)
        words = TIMED[3].words
        frame = live.wait(
            "less is done", lambda f: f.samples["syscalls"].given_up not in (None, words)
        )
        sample = frame.samples["syscalls"]
        # It is seen in bursts, or counted, and never goes blind.
        assert sample.state == "on", sample.why
        assert frame.samples["execs"].state == "on"
        assert frame.budget is not None
        assert frame.budget.percent == 5
        for storm in storms:
            storm.work()
        assert live.frames[-1].budget is not None
        live.wait(
            "all calls are counted",
            lambda f: not (f.samples["syscalls"].given_up or "").startswith(SAMPLING),
        )
        whole = live.wait("all is as asked for", lambda f: _is_whole(f.samples["syscalls"]))
        assert whole.budget is not None
        assert whole.budget.used is not None


@pytest.mark.usefixtures("impatient")
def test_nothing_is_left_on_the_calls_of_others_in_a_storm(calls: Path) -> None:
    """To see executions fail, perf looks at every call: then it does so in bursts only."""
    with ExitStack() as stack:
        live = stack.enter_context(Live("syscalls", "execs", budget=1.0))
        storms = [
            stack.enter_context(Work(calls, "until", "1000", "storm"))
            for _ in range(os.cpu_count() or 1)
        ]
        for storm in storms:
            storm.go()
        sampling = f"{SAMPLING} failures"
        live.wait(
            "failed executions are looked for in bursts",
            lambda f: (f.samples["execs"].given_up or "").startswith(sampling),
        )
        probe = cast(ExecProbe, live.probes["execs"])
        eventually("not all are looked for", lambda: probe._failures.sampling)
        before = live.execs()
        subprocess.run(
            ["/bin/sh", "-c", "/no/such/program; true"], check=True, stderr=subprocess.DEVNULL
        )
        after = live.execs()
        assert after.execs > before.execs
        assert after.failed == before.failed
        live.wait("the bursts are told", lambda f: cast(ExecSample, f.samples["execs"]).failed_duty)
        for storm in storms:
            storm.work()
        live.wait("they are seen again", lambda f: f.samples["execs"].given_up is None)
        before = live.execs()
        subprocess.run(
            ["/bin/sh", "-c", "/no/such/program; true"], check=True, stderr=subprocess.DEVNULL
        )
        eventually("one failed", lambda: live.execs().failed > before.failed)


def _is_whole(sample: object) -> bool:
    assert isinstance(sample, SyscallSample)
    every = sample.sample_every == 1 and sample.latency is not None
    return sample.state == "on" and sample.given_up is None and every


@pytest.mark.usefixtures("impatient")
def test_a_function_that_is_called_too_often_is_counted_or_detached(
    program: Callable[[str], Path],
) -> None:
    functions = program("functions")
    paths = {**PATHS, "latency": "probes.latency.probe:LatencyProbe"}
    target = f"uprobe:{functions}:steady"
    options = {"latency": {"targets": [target, "softirq"]}}
    with (
        Work(functions, "until", "100") as work,
        Live("latency", paths=paths, options=options, budget=1.0) as live,
    ):
        work.go()
        live.wait("it is given up", lambda f: f.samples["latency"].given_up)
        # It is counted only, sampled, or detached; cheaper programs are loaded first.
        frame = live.wait(
            "it says what became of it",
            lambda f: cast(LatencySample, f.samples["latency"]).targets[target].why,
        )
        sample = cast(LatencySample, frame.samples["latency"])
        other = sample.targets["softirq"]
        assert other.state == "on"
        assert other.why is None
        assert "steady" in (sample.given_up or "")
        assert "over 1 % CPU" in (sample.given_up or "")
        # The user may insist, and is told again.
        live.source.toggle("latency", False)
        live.wait("off", lambda f: f.samples["latency"].state == "off")
        live.source.toggle("latency", True)
        live.wait("on", lambda f: f.samples["latency"].state == "on")
        live.wait("given up again", lambda f: f.samples["latency"].given_up)
        work.work()


def test_without_a_budget_nothing_is_given_up(calls: Path) -> None:
    options = {"syscalls": {"latency": True}}
    with Live("syscalls", options=options) as live, Work(calls, "until", "1000") as work:
        work.go()
        time.sleep(2)
        frame = live.frames[-1]
        assert frame.budget is None
        assert _is_whole(frame.samples["syscalls"])
        work.work()
