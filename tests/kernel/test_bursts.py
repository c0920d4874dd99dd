# SPDX-License-Identifier: Apache-2.0
"""Bursts on a real kernel: what is too dear is still told, and nothing of it is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from bench import truth
from bench.measure import compiled
from probes.budget import policy
from probes.budget.policy import QUICK_BURSTS, SAMPLING, Level, bursts
from probes.execs.probe import FAILED
from probes.pmc.bursts import SWITCHES
from probes.pmc.probe import PmcProbe
from probes.pmc.sample import PmcSample
from probes.pmc.view import pmc_view
from probes.syscalls.sample import SyscallSample
from probes.syscalls.view import syscall_view
from tests.kernel import burst_truth
from tests.kernel.harness import (
    DEADLINE,
    Live,
    Work,
    children_of,
    eventually,
    held_programs,
    is_running,
    left_in_kernel,
    program_ids,
    programs_of,
)
from tests.kernel.terminal import PROBETOP
from tests.paths import ROOT

pytestmark = pytest.mark.kernel
LEVELS = bursts(1.0, QUICK_BURSTS)


def test_a_storm_is_told_in_bursts_and_all_of_it_when_it_is_over(
    calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("WAIT", 1.0), ("LASTED", 0.0), ("HORIZON", 1.0)):
        monkeypatch.setattr(policy, name, seconds)
    with ExitStack() as stack:
        storms = [
            stack.enter_context(Work(calls, "until", "1000", "storm"))
            for _ in range(os.cpu_count() or 1)
        ]
        live = stack.enter_context(Live("syscalls", interval=1.0, budget=2.0))
        for storm in storms:
            storm.go()
        frame = live.wait(
            "it is sampled",
            lambda f: (f.samples["syscalls"].given_up or "").startswith(SAMPLING),
        )
        assert frame.samples["syscalls"].state == "on"
        said = frame.samples["syscalls"].given_up or ""
        assert "over 2 % CPU (probe " in said
        # Whoever made most calls at that moment is named.
        assert re.search(r"\(probe [0-9.]+ %, .+\)$", said), said
        before = live.wait("there is an estimate", lambda f: f.samples["syscalls"].duty)
        first = before.samples["syscalls"].duty
        assert first is not None
        after = live.wait(
            "there is another",
            lambda f: (f.samples["syscalls"].duty or first).bursts > first.bursts + 3,
        )
        old, new = (cast(SyscallSample, one.samples["syscalls"]) for one in (before, after))
        view = syscall_view(old, new, after.mono - before.mono)
        assert view.calls[0].name == "getppid"
        assert view.calls[0].error is not None
        assert view.calls[0].estimated == view.calls[0].count
        assert {row.comm for row in list(view.processes)[: len(storms)]} == {"storm"}
        # What was estimated is in no exact counter.
        exact = sum(n.n for n in new.calls.values()) - sum(n.n for n in old.calls.values())
        assert exact < view.count / 100
        assert new.counted == pytest.approx(old.counted or 0, abs=0.5)
        for storm in storms:
            storm.work()
        live.wait("all is counted", lambda f: f.samples["syscalls"].given_up is None)


def test_the_person_lifts_the_budget(calls: Path) -> None:
    with Work(calls, "until", "1000", "storm") as storm, Live("syscalls", budget=1.0) as live:
        storm.go()
        live.wait("it is sampled", lambda f: f.samples["syscalls"].given_up)
        live.source.lift_budget(1000.0)
        live.wait("all is counted", lambda f: f.samples["syscalls"].given_up is None)
        frame = live.wait("it says so", lambda f: f.budget and f.budget.lifted)
        assert frame.budget is not None
        live.source.lift_budget(0.0)
        live.wait("it is sampled again", lambda f: f.samples["syscalls"].given_up)
        storm.work()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_nothing_is_attached_after_the_end_of_the_broker(calls: Path, number: int) -> None:
    """Whoever kills it, at whatever moment of a burst."""
    live = Live("syscalls")
    try:
        probe = cast(Any, live.probes["syscalls"])
        live.source._command(lambda: probe.meter.attach_in(probe._unit, None, 50, 100))
        eventually("there are bursts", lambda: probe.totals.bursts.duty is not None)
        time.sleep(0.3)
        os.kill(live.broker, number)
        if number == signal.SIGSTOP:
            os.kill(live.broker, signal.SIGKILL)
        assert live.ended()
        eventually("no program is held", lambda: not programs_of(os.getpid()))
    finally:
        live.close()
    assert not held_programs()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_nothing_is_attached_after_the_end_of_a_stream(calls: Path, number: int) -> None:
    before = program_ids()
    command = [*PROBETOP, "stream", "-i", "0.2", "--probes", "syscalls", "--budget", "0.5"]
    # A shell that is not interactive has what it starts ignore ctrl+C.
    usual = [signal.signal(one, signal.SIG_DFL) for one in (signal.SIGINT, signal.SIGHUP)]
    try:
        stream = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    finally:
        signal.signal(signal.SIGINT, usual[0])
        signal.signal(signal.SIGHUP, usual[1])
    with stream, Work(calls, "until", "1000", "storm") as storm:
        try:
            storm.go()
            assert stream.stdout is not None
            assert any('"sampling ' in line for line in stream.stdout)
            broker, *_ = children_of(stream.pid)
            # These are for the process that has the screen, or the stream, not for its broker.
            for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(broker, ignored)
            assert any('"sampling ' in line for line in stream.stdout)
            stream.send_signal(number)
            stream.stdout.read()
            assert stream.wait(DEADLINE) == (-number if number == signal.SIGKILL else 0)
            eventually("the broker has ended", lambda: not is_running(broker))
            eventually("nothing is left", lambda: not left_in_kernel(before))
        finally:
            stream.kill()
        storm.work()


def urgent(code: str) -> subprocess.CompletedProcess[str]:
    """A process of its own that may be scheduled before others."""
    begin = "import os, time\nfrom probes.broker.burst_timer import Urgent\n"
    command = [sys.executable, "-c", begin + code]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=DEADLINE)


def test_who_ever_goes_on_before_others_is_ended() -> None:
    loop = "with Urgent():\n    while time.process_time() < 10: pass"
    assert urgent(loop).returncode == -signal.SIGXCPU


def test_to_come_before_others_is_given_back_by_who_may_not_ask_for_it_again() -> None:
    drop = "with Urgent():\n    print(os.sched_getscheduler(0) & 15)\n    os.setuid(65534)\n"
    done = urgent(drop + "print(os.sched_getscheduler(0) & 15)")
    assert done.stdout.split() == [str(os.SCHED_FIFO), str(os.SCHED_OTHER)], done


def test_a_process_in_real_time_keeps_its_policy() -> None:
    have = "os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(7))\n"
    told = "with Urgent(): print(os.sched_getscheduler(0), os.sched_getparam(0).sched_priority)"
    assert urgent(have + told).stdout.split() == [str(os.SCHED_RR), "7"]


def test_steady_calls_are_within_the_interval(tmp_path: Path) -> None:
    load = truth.LOADS["0.1 million/s"]
    whole = truth.judged(compiled(tmp_path, "rates")["rates"], load, 20)[0]
    told = [one for one in whole if one.within is not None]
    assert len(told) >= 15
    assert sum(one.covers for one in told) >= 0.8 * len(told), told


@pytest.mark.parametrize(("name", "group"), [("pmc", None), ("execs", FAILED)])
def test_nothing_of_other_probes_is_attached_after_the_end_of_the_broker(
    name: str, group: int | None
) -> None:
    live = Live(name, paths=burst_truth.WITH_PMC)
    try:
        probe = cast(Any, live.probes[name])
        live.source._command(lambda: probe.meter.attach_in(probe._unit, group, 50, 150))
        sums = probe.totals.bursts if name == "pmc" else probe._failures._bursts
        eventually("there are bursts", lambda: sums.duty is not None and sums.on)
        os.kill(live.broker, signal.SIGKILL)
        assert live.ended()
        eventually("no program is held", lambda: not programs_of(os.getpid()))
    finally:
        live.close()
    eventually("nobody holds a program", lambda: not held_programs())


def test_steady_switches_are_within_the_interval(program: Callable[[str], Path]) -> None:
    *pairs, machine = burst_truth.switches_judged(program("pingpong"), 5000, LEVELS[1], 15)
    found = [one for judgements in pairs for one in judgements]
    assert len(found) >= 20
    assert sum(one.covers for one in found) >= 0.8 * len(found), burst_truth.told(found)
    # Busy and idle time are all the time that there was, to the microsecond.
    for one in machine:
        assert one.estimate == pytest.approx(one.truth, rel=0.001)


def test_steady_failures_are_within_the_interval(program: Callable[[str], Path]) -> None:
    """More bursts than the budget asks for: the kernel has not let go of some before the next."""
    level = Level("", 0.0, 60, 250)
    found = burst_truth.failures_judged(program("failing"), 3000, level, 15)
    assert len(found) >= 5
    assert sum(one.covers for one in found) >= 0.8 * len(found), burst_truth.told(found)


def test_a_storm_of_switches_is_told_in_bursts_and_all_of_it_without_a_budget(
    program: Callable[[str], Path], tmp_path: Path
) -> None:
    with ExitStack() as stack:
        storms = [
            stack.enter_context(Work(program("pingpong"), str(cpu), "0", tmp_path / str(cpu)))
            for cpu in sorted(os.sched_getaffinity(0))
        ]
        live = stack.enter_context(
            Live("pmc", paths=burst_truth.WITH_PMC, interval=1.0, budget=0.5)
        )
        for storm in storms:
            storm.go()
        frame = live.wait(
            "it is sampled",
            lambda f: (f.samples["pmc"].given_up or "").startswith(SAMPLING),
        )
        assert frame.samples["pmc"].state == "on"
        assert "over 0.5 % CPU (probe " in (frame.samples["pmc"].given_up or "")
        before = live.wait("there is an estimate", lambda f: f.samples["pmc"].duty)
        first = before.samples["pmc"].duty
        assert first is not None
        after = live.wait(
            "there is another", lambda f: (f.samples["pmc"].duty or first).bursts > first.bursts + 3
        )
        old, new = (cast(PmcSample, one.samples["pmc"]) for one in (before, after))
        view = pmc_view(old, new, after.mono - before.mono)
        assert {row.pid for row in view.processes} >= {storm.pid for storm in storms}
        assert all(row.is_estimated(SWITCHES) for row in view.cpus)
        # What was estimated is in no exact counter.
        exact = sum(one.switches for one in new.cpus.values())
        exact -= sum(one.switches for one in old.cpus.values())
        assert exact < view.machine.switches / 100
        live.source.lift_budget(1000.0)
        probe = cast(PmcProbe, live.probes["pmc"])
        eventually("all is counted", lambda: not probe.totals.bursts.sampling)
        before, after = live.settled(), live.settled()
        old, new = (cast(PmcSample, one.samples["pmc"]) for one in (before, after))
        gained = new.tasks[storms[0].pid].switches - old.tasks[storms[0].pid].switches
        assert gained > 0
        for storm in storms:
            storm.work()
