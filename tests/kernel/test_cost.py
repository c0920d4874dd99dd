# SPDX-License-Identifier: Apache-2.0
"""What the probes say that they cost, and that measuring it is over when it is over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from probes.budget.meter import CostWindows
from probes.core.frame import Frame
from probes.core.sample import Cost
from probes.syscalls.sample import SyscallSample
from tests.kernel.harness import Live, Work, children_of, eventually, fdinfo_numbers
from tests.kernel.timing import Timing, targets_of

pytestmark = pytest.mark.kernel

SWITCH = Path("/proc/sys/kernel/bpf_stats_enabled")


def runs() -> int:
    """How often the kernel has counted a run of the programs that the broker holds."""
    brokers = children_of(os.getpid())
    return sum(count for pid in brokers for count in fdinfo_numbers(pid, "run_cnt"))


def test_cost_is_known_after_a_window(calls: Path) -> None:
    switch = SWITCH.read_text()
    with Live("syscalls", "execs") as live, Work(calls, "until", "100") as work:
        work.go()
        first = live.frames[0].samples["syscalls"].cost
        assert (first.ns_per_event, first.cpu_percent) == (None, None)
        frame = live.wait("it is known", lambda f: f.samples["syscalls"].cost.cpu_percent)
        cost = frame.samples["syscalls"].cost
        assert cost.ns_per_event is not None
        assert cost.cpu_percent is not None
        # The wide limits of any machine: a run is no less than a nanosecond, and not a CPU more.
        assert 1 < cost.ns_per_event < 100_000
        assert 0 < cost.cpu_percent <= 100 * (live.source.host.cpus or 1)
        assert cost.events > 0
        maps = {name: frame.samples[name].cost.map_bytes for name in ("syscalls", "execs")}
        # Rows alone are 64 bytes for each of at least 1024 on one CPU; the ring has 512 pages.
        assert (maps["syscalls"] or 0) > 64 * 1024
        assert (maps["execs"] or 0) > 512 * 4096
        work.work()
        assert SWITCH.read_text() == switch
        live.source.toggle("syscalls", False)
        off = live.wait("it is off", lambda f: f.samples["syscalls"].state == "off")
        assert off.samples["syscalls"].cost == Cost()


def test_events_are_those_that_were_counted(calls: Path) -> None:
    with Live("syscalls", "execs") as live, Work(calls, "number", "100000") as work:
        before = live.settled()
        work.work()
        after = live.settled()
        for frame in (before, after):
            sample = frame.samples["syscalls"]
            assert isinstance(sample, SyscallSample)
            assert sample.cost.events == sum(n.n for n in sample.calls.values())
        more = after.samples["syscalls"].cost.events - before.samples["syscalls"].cost.events
        assert more >= 100_000


def pausing(live: Live) -> bool:
    """Whether the kernel has counted calls for a while, and no runs of programs."""
    before, events = runs(), live.syscalls().cost.events
    return runs() == before and live.syscalls().cost.events > events


def test_outside_of_windows_nothing_is_measured(calls: Path) -> None:
    """The kernel stops counting runs while calls go on; others may have it count at times."""
    with Live("syscalls") as live, Work(calls, "until", "100") as work:
        work.go()
        live.wait("a window is over", lambda f: f.samples["syscalls"].cost.cpu_percent)
        eventually("calls go on and runs are not counted", lambda: pausing(live))
        work.work()


def test_windows_come_again(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CostWindows, "EVERY", 2.0)
    monkeypatch.setattr(CostWindows, "WINDOW", 0.2)
    with Live("syscalls") as live, Work(calls, "until", "100") as work:
        work.go()
        for _ in range(2):
            before = runs()
            eventually("a window comes", lambda before=before: runs() > before)  # type: ignore[misc]
            eventually("and goes", lambda: pausing(live))
        work.work()


def test_cost_always_measures_without_a_gap(calls: Path) -> None:
    with Live("syscalls", cost_always=True) as live, Work(calls, "until", "100") as work:
        work.go()
        live.wait("it is known", lambda f: f.samples["syscalls"].cost.cpu_percent)
        for _ in range(5):
            before = runs()
            live.settled()
            assert runs() > before
        work.work()


def test_targets_that_come_and_go_leave_the_share_of_a_cpu_right(
    calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every Frame it is what CPUs can give, or not known; what was counted stays counted."""
    monkeypatch.setattr(CostWindows, "EVERY", 0.5)
    monkeypatch.setattr(CostWindows, "WINDOW", 0.2)
    most = 100 * (os.cpu_count() or 1)
    storm = "syscall:getppid"

    def known(frame: Frame) -> bool:
        return frame.samples["latency"].cost.cpu_percent is not None

    def judge(frame: Frame, present: bool) -> bool:
        return known(frame) and (storm in targets_of(frame)) is present

    with Timing("runq") as live, Work(calls, "until", "100") as work:
        work.go()
        live.wait("runq is measured", known)
        for _ in range(4):
            live.add(storm)
            live.wait("both are measured", lambda frame: judge(frame, True))
            live.remove(storm)
            live.wait("runq is measured alone", lambda frame: judge(frame, False))
        work.work()
    costs = [frame.samples["latency"].cost for frame in live.frames]
    shares = [cost.cpu_percent for cost in costs if cost.cpu_percent is not None]
    assert [share for share in shares if not 0 <= share <= most] == []
    events = [cost.events for cost in costs]
    assert events == sorted(events)
