# SPDX-License-Identifier: Apache-2.0
"""Costs from run-time statistics: windows, rates between them, and what is unknown."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any, cast

import pytest

from probes import cost
from probes.base import Loaded, Probe
from probes.cost import CallRate, CostWindows, Meter
from probes.samples import Cost


@pytest.fixture
def stats(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What the kernel says of every program and map."""
    said = {"run_cnt": 0, "run_time_ns": 0, "recursion_misses": 0, "memlock": 4096}

    def fdinfo(fd: int) -> dict[str, str]:
        os.fstat(fd)
        return {name: str(value) for name, value in said.items()}

    monkeypatch.setattr(cost, "fdinfo", fdinfo)
    monkeypatch.setattr(cost, "memory_of", lambda fd: said["memlock"])
    return said


def loaded(programs: int = 1, maps: int = 0) -> Loaded:
    """Descriptors of nothing in particular."""
    new = [os.memfd_create("x") for _ in range(2 * programs + maps)]
    return Loaded(
        facts={},
        maps={f"m{n}": fd for n, fd in enumerate(new[2 * programs :])},
        programs={f"p{n}": fd for n, fd in enumerate(new[:programs])},
        links=new[programs : 2 * programs],
        notes=("a note",),
    )


@pytest.fixture
def meter(stats: dict[str, int]) -> Meter:
    made = Meter()
    made.adopt(loaded(), [1000, None])
    return made


def test_unknown_until_measured(meter: Meter) -> None:
    assert meter.cost(1.0) == Cost(0, None, None, 1000)
    assert meter.notes == ("a note",)
    meter.begin(2.0)
    assert meter.cost(2.5).ns_per_event is None
    meter.release()
    assert meter.cost(3.0) == Cost(0, None, None, None)


def test_window_gives_ns_per_run_and_share_of_a_cpu(meter: Meter, stats: dict[str, int]) -> None:
    stats.update(run_cnt=10**6, run_time_ns=10**9)
    meter.cost(9.0)
    meter.begin(10.0)
    stats.update(run_cnt=10**6 + 1000, run_time_ns=10**9 + 50_000)
    meter.events = 500
    meter.end(10.5)
    assert meter.cost(10.5).ns_per_event == 50
    # 50 us in half a second; the rate of events since the last Frame was a third of that.
    assert meter.cost(10.5).cpu_percent == pytest.approx(100 * 50e-6 / 0.5)


def test_share_follows_the_rate_of_events(meter: Meter, stats: dict[str, int]) -> None:
    meter.begin(0.0)
    stats.update(run_cnt=1000, run_time_ns=10_000_000)
    meter.events = 1000
    meter.end(1.0)
    meter.cost(1.0)
    meter.events = 4000
    twice = meter.cost(2.0)
    assert (twice.events, twice.ns_per_event) == (4000, 10_000)
    assert twice.cpu_percent == pytest.approx(3.0)
    assert meter.cost(3.0).cpu_percent == 0


def test_what_does_not_pass_a_filter_costs_all_the_same(
    meter: Meter, stats: dict[str, int]
) -> None:
    meter.outside, meter.usual_runs, meter.filtered = 100.0, 2.0, True
    meter.begin(0.0)
    # A million calls, two runs each, of which one call was counted.
    stats.update(run_cnt=2_000_000, run_time_ns=40_000_000)
    meter.events = 1
    meter.end(1.0)
    assert meter.hits() == 1e6
    assert meter.cost(1.0).cpu_percent == pytest.approx(4 + 10)
    assert meter.cost(2.0).cpu_percent == pytest.approx(4 + 10)
    assert meter.estimate(3.0) == pytest.approx(4 + 10)
    assert meter.cost(3.0).ns_per_event == pytest.approx(20 + 50)
    rate = CallRate()
    assert rate.of(meter, 4.0) == 1e6


def test_what_every_call_of_the_machine_pays_is_in_the_share(
    meter: Meter, stats: dict[str, int]
) -> None:
    meter.begin(0.0)
    meter.end(1.0)
    meter.per_call = 30.0
    assert meter.cost(1.0).cpu_percent == 0
    counting, rate = Meter(), CallRate()
    rate.tell([meter], counting, 1.0)
    assert meter.calls is None
    counting.events = 500_000
    rate.tell([meter], counting, 1.5)
    assert meter.cost(2.0).cpu_percent == pytest.approx(100 * 30e-9 * 1e6)
    # While nobody counts them, nobody knows; what was given up goes by the last that was known.
    rate.tell([meter], None, 3.0)
    assert meter.calls is None
    assert rate.of(None, 3.0) == 1e6


def test_idle_window_keeps_what_an_event_costs(meter: Meter, stats: dict[str, int]) -> None:
    meter.begin(0.0)
    stats.update(run_cnt=10, run_time_ns=700)
    meter.events = 10
    meter.end(1.0)
    meter.begin(10.0)
    meter.end(11.0)
    idle = meter.cost(12.0)
    assert (idle.ns_per_event, idle.cpu_percent) == (70, 0)


def test_window_without_begin_or_length_says_nothing(meter: Meter, stats: dict[str, int]) -> None:
    meter.end(5.0)
    meter.begin(6.0)
    stats.update(run_cnt=10, run_time_ns=700)
    meter.end(6.0)
    assert meter.cost(7.0) == Cost(0, None, None, 1000)


def test_programs_of_a_probe_are_summed(stats: dict[str, int]) -> None:
    meter = Meter()
    stats["recursion_misses"] = 4
    meter.adopt(loaded(programs=3), [])
    assert meter.missed() == 12
    meter.begin(0.0)
    stats.update(run_cnt=100, run_time_ns=9000)
    meter.events = 150
    meter.end(1.0)
    assert meter.cost(1.0).ns_per_event == 90
    meter.release()
    assert meter.missed() == 0


def test_descriptors_are_taken_over_and_closed(stats: dict[str, int]) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count()
    meter, given = Meter(), loaded(programs=2, maps=3)
    meter.adopt(given, [512])
    # Maps are there for their size only.
    assert count() == before + 4
    assert meter.cost(0).map_bytes == 512 + 3 * 4096
    given.close()
    assert count() == before + 4
    meter.release()
    meter.release()
    assert count() == before


def test_what_nobody_took_over_can_be_closed() -> None:
    before = len(os.listdir("/proc/self/fd"))
    given = loaded(programs=2, maps=2)
    given.close()
    given.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert (given.links, given.programs, given.maps) == ([], {}, {})


class Recorder:
    """A probe of which only the order of calls matters."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.meter = SimpleNamespace(
            begin=lambda now: self.calls.append(("begin", now)),
            end=lambda now: self.calls.append(("end", now)),
        )

    def drain(self) -> None:
        self.calls.append("drain")


@pytest.fixture
def probe() -> Recorder:
    return Recorder()


def running(probe: Recorder) -> list[Probe]:
    return [cast(Probe, probe)]


def test_windows_are_short_and_rare(probe: Recorder) -> None:
    windows = CostWindows(always=False)
    assert not windows.due([], 100.0)
    assert windows.due(running(probe), 100.0)
    windows.request = 1
    assert not windows.due(running(probe), 100.1)
    fd = os.memfd_create("stats")
    windows.open(fd, running(probe), 100.2)
    assert probe.calls == ["drain", ("begin", 100.2)]
    assert not windows.due(running(probe), 101.1)
    os.fstat(fd)
    assert not windows.due(running(probe), 101.3)
    assert probe.calls[2:] == ["drain", ("end", 101.3)]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert not windows.due(running(probe), 110.2)
    assert windows.due(running(probe), 110.4)


def test_windows_without_end(probe: Recorder) -> None:
    windows = CostWindows(always=True)
    fd = os.memfd_create("stats")
    windows.open(fd, running(probe), 0.0)
    for second in (1.0, 2.0, 3.0):
        assert not windows.due(running(probe), second)
        assert probe.calls[-3:] == ["drain", ("end", second), ("begin", second)]
    os.fstat(fd)
    windows.close()
    windows.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_refused_statistics_are_asked_for_rarely(probe: Recorder) -> None:
    windows = CostWindows(always=True)
    windows.open(None, running(probe), 50.0)
    assert probe.calls == []
    assert not windows.due(running(probe), 59.0)
    assert windows.due(running(probe), 60.0)


def test_new_probe_is_measured_at_once(probe: Recorder) -> None:
    windows = CostWindows(always=False)
    windows.open(os.memfd_create("stats"), [], 0.0)
    windows.begin_soon(cast(Probe, probe), 0.9)
    assert probe.calls == [("begin", 0.9)]
    assert not windows.due(running(probe), 1.5)
    assert windows._fd is not None
    windows.due(running(probe), 1.9)
    assert probe.calls[-1] == ("end", 1.9)
    late = Recorder()
    windows.begin_soon(cast(Probe, late), 2.5)
    assert late.calls == []
    assert windows.due(running(late), 2.5)
