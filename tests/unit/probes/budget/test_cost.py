# SPDX-License-Identifier: Apache-2.0
"""Costs from run-time statistics: windows, rates between them, and what is unknown."""

from __future__ import annotations

import random
from typing import Any, cast

import pytest

from probes.bpf.plan import Loaded
from probes.budget.meter import CallRate, CostWindows, Meter
from probes.core.sample import Cost
from probes.ipc.messages import RunStats
from probes.probe import Probe


class Told:
    """What the broker tells of the programs of unit 1, and of others."""

    def __init__(self) -> None:
        self.runs: dict[int, RunStats] = {1: RunStats(), 9: RunStats(5, 5, 5)}

    def update(self, run_cnt: int, run_time_ns: int, missed: int = 0) -> None:
        self.runs[1] = RunStats(run_cnt, run_time_ns, missed)


@pytest.fixture
def stats() -> Told:
    return Told()


def loaded(unit: int = 1, map_bytes: int | None = 1000) -> Loaded:
    return Loaded({}, {}, unit, map_bytes, notes=("a note",))


@pytest.fixture
def meter() -> Meter:
    made = Meter()
    made.adopt(loaded())
    return made


def test_unknown_until_measured(meter: Meter, stats: Told) -> None:
    assert meter.cost(1.0) == Cost(0, None, None, 1000)
    assert meter.notes == ("a note",)
    meter.begin(stats.runs, 2.0)
    assert meter.cost(2.5).ns_per_event is None
    meter.release()
    assert meter.cost(3.0) == Cost(0, None, None, None)


def test_window_gives_ns_per_run_and_share_of_a_cpu(meter: Meter, stats: Told) -> None:
    stats.update(run_cnt=10**6, run_time_ns=10**9)
    meter.cost(9.0)
    meter.begin(stats.runs, 10.0)
    stats.update(run_cnt=10**6 + 1000, run_time_ns=10**9 + 50_000)
    meter.events = 500
    meter.end(stats.runs, 10.5)
    assert meter.cost(10.5).ns_per_event == 50
    # 50 us in half a second; the rate of events since the last Frame was a third of that.
    assert meter.cost(10.5).cpu_percent == pytest.approx(100 * 50e-6 / 0.5)


def test_share_follows_the_rate_of_events(meter: Meter, stats: Told) -> None:
    meter.begin(stats.runs, 0.0)
    stats.update(run_cnt=1000, run_time_ns=10_000_000)
    meter.events = 1000
    meter.end(stats.runs, 1.0)
    meter.cost(1.0)
    meter.events = 4000
    twice = meter.cost(2.0)
    assert (twice.events, twice.ns_per_event) == (4000, 10_000)
    assert twice.cpu_percent == pytest.approx(3.0)
    assert meter.cost(3.0).cpu_percent == 0


def test_what_does_not_pass_a_filter_costs_all_the_same(meter: Meter, stats: Told) -> None:
    meter.outside, meter.usual_runs, meter.filtered = 100.0, 2.0, True
    meter.begin(stats.runs, 0.0)
    # A million calls, two runs each, of which one call was counted.
    stats.update(run_cnt=2_000_000, run_time_ns=40_000_000)
    meter.events = 1
    meter.end(stats.runs, 1.0)
    assert meter.hits() == 1e6
    assert meter.cost(1.0).cpu_percent == pytest.approx(4 + 10)
    assert meter.cost(2.0).cpu_percent == pytest.approx(4 + 10)
    assert meter.estimate(3.0) == pytest.approx(4 + 10)
    assert meter.cost(3.0).ns_per_event == pytest.approx(20 + 50)
    rate = CallRate()
    assert rate.of(meter, 4.0) == 1e6


def test_what_every_call_of_the_machine_pays_is_in_the_share(meter: Meter, stats: Told) -> None:
    meter.begin(stats.runs, 0.0)
    meter.end(stats.runs, 1.0)
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


def test_idle_window_keeps_what_an_event_costs(meter: Meter, stats: Told) -> None:
    meter.begin(stats.runs, 0.0)
    stats.update(run_cnt=10, run_time_ns=700)
    meter.events = 10
    meter.end(stats.runs, 1.0)
    meter.begin(stats.runs, 10.0)
    meter.end(stats.runs, 11.0)
    idle = meter.cost(12.0)
    assert (idle.ns_per_event, idle.cpu_percent) == (70, 0)


def test_window_without_begin_or_length_says_nothing(meter: Meter, stats: Told) -> None:
    meter.end(stats.runs, 5.0)
    meter.begin(stats.runs, 6.0)
    stats.update(run_cnt=10, run_time_ns=700)
    meter.end(stats.runs, 6.0)
    assert meter.cost(7.0) == Cost(0, None, None, 1000)


def test_units_of_a_probe_are_summed_and_only_they() -> None:
    meter = Meter()
    for unit in (1, 2, 3):
        meter.adopt(loaded(unit, None if unit == 3 else 512))
    assert meter.cost(0).map_bytes == 1024
    runs = {unit: RunStats(10, 100, 4) for unit in (1, 2, 3, 7)}
    meter.told(runs)
    assert meter.missed() == 12
    meter.begin(runs, 0.0)
    meter.events = 150
    meter.end({unit: RunStats(40, 2800, 5) for unit in (1, 2, 3, 7)}, 1.0)
    assert meter.cost(1.0).ns_per_event == 90


def test_what_a_detached_unit_missed_still_counts() -> None:
    detached: list[tuple[int, object]] = []
    meter = Meter()
    meter.detach = lambda unit, groups: detached.append((unit, groups))
    meter.adopt(loaded(1))
    meter.adopt(loaded(2))
    meter.told({1: RunStats(0, 0, 3), 2: RunStats(0, 0, 4)})
    meter.forget(1)
    assert (detached, meter.missed()) == ([(1, None)], 7)
    meter.release()
    meter.release()
    assert detached == [(1, None), (2, None)]
    assert meter.missed() == 7


def test_units_that_come_and_go_never_make_a_negative_cost(meter: Meter) -> None:
    meter.adopt(loaded(2))
    before = {1: RunStats(100, 1000), 2: RunStats(10**6, 10**9)}
    meter.begin(before, 0.0)
    meter.forget(2)
    meter.adopt(loaded(3))
    meter.events = 30
    meter.end({1: RunStats(110, 1500), 3: RunStats(20, 1000)}, 1.0)
    # Of unit 3 nobody knows yet what it takes in a whole window.
    assert meter.cost(1.0).ns_per_event == 50
    assert meter.cost(1.0).cpu_percent is None
    meter.forget(3)
    assert meter.cost(1.0).cpu_percent == pytest.approx(100 * 500e-9)


def test_what_left_is_no_part_of_the_share(meter: Meter) -> None:
    meter.adopt(loaded(2))
    meter.begin({1: RunStats(), 2: RunStats()}, 0.0)
    meter.events = 1_001_000
    runs = {1: RunStats(1000, 1_000_000), 2: RunStats(10**6, 10**9)}
    meter.end(runs, 1.0)
    assert meter.cost(1.0).cpu_percent == pytest.approx(100.1)
    meter.forget(2)
    meter.events += 1000
    assert meter.cost(2.0).cpu_percent == pytest.approx(0.1)
    # A window in which something left compares no rates of events either.
    meter.events += 1
    assert meter.cost(3.0).cpu_percent == pytest.approx(0.1)


def test_a_count_that_falls_begins_anew(meter: Meter) -> None:
    meter.begin({1: RunStats(10**6, 10**9)}, 0.0)
    meter.end({1: RunStats(10, 10_000)}, 1.0)
    assert meter.cost(1.0).ns_per_event == 1000
    assert meter.cost(1.0).cpu_percent == pytest.approx(100 * 10e-6)


def test_events_that_fall_make_no_rate(meter: Meter, stats: Told) -> None:
    meter.events = 1000
    meter.begin(stats.runs, 0.0)
    meter.events = 2000
    stats.update(run_cnt=1000, run_time_ns=10_000_000)
    meter.end(stats.runs, 1.0)
    meter.cost(1.0)
    meter.estimate(1.0)
    meter.events = 500
    assert meter.cost(2.0).cpu_percent == pytest.approx(1.0)
    assert meter.estimate(2.0) == 0
    meter.begin(stats.runs, 2.0)
    meter.events = 100
    stats.update(run_cnt=3000, run_time_ns=30_000_000)
    meter.end(stats.runs, 3.0)
    assert meter.cost(3.0).cpu_percent == pytest.approx(2.0)


def test_a_few_events_among_many_runs_are_no_measure_of_more(meter: Meter, stats: Told) -> None:
    """What runs at every switch of tasks, and counts ten a second, does not grow with those."""
    meter.begin(stats.runs, 0.0)
    stats.update(run_cnt=100_000, run_time_ns=20_000_000)
    meter.events = 10
    meter.end(stats.runs, 1.0)
    meter.cost(1.0)
    meter.estimate(1.0)
    meter.events += 6000
    more = 2 + 5990 * 200 / 1e7
    assert meter.cost(2.0).cpu_percent == pytest.approx(more)
    assert meter.estimate(2.0) == pytest.approx(more)
    # Also where other programs have come, of which nothing is known.
    meter.adopt(loaded(2))
    meter.events += 10_000
    assert meter.estimate(3.0) == pytest.approx(10_000 * 200 / 1e7)


def test_filters_that_come_and_go_compare_no_rates(meter: Meter, stats: Told) -> None:
    meter.filtered = True
    meter.begin(stats.runs, 0.0)
    stats.update(run_cnt=10**6, run_time_ns=10**8)
    meter.end(stats.runs, 1.0)
    meter.cost(1.0)
    meter.filtered = False
    meter.events += 10**6
    assert meter.cost(2.0).cpu_percent == pytest.approx(10)


class Machine:
    """Units that count at rates of their own, each run of a program one event of 100 ns."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.meter = Meter()
        self.now, self.last = 0.0, 0
        self.rates: dict[int, int] = {}
        self.runs: dict[int, RunStats] = {}

    def come(self) -> None:
        self.last += 1
        self.rates[self.last] = self.random.choice((0, 1, 30, 10_000, 3_000_000))
        self.runs[self.last] = RunStats()
        self.meter.adopt(loaded(self.last))

    def go(self) -> None:
        unit = self.random.choice(list(self.rates))
        del self.rates[unit], self.runs[unit]
        self.meter.forget(unit)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for unit, rate in self.rates.items():
            n = round(rate * seconds)
            count = self.runs[unit].count + n
            self.runs[unit] = RunStats(count, 100 * count)
            self.meter.events += n

    @property
    def truth(self) -> float:
        return sum(self.rates.values()) * 100 / 1e7


@pytest.mark.parametrize("seed", range(40))
def test_a_changing_set_of_units_is_measured_right_or_not_at_all(seed: int) -> None:
    machine = Machine(seed)
    meter, most = machine.meter, 0.0
    for _ in range(200):
        machine.random.choice((machine.come, machine.go if machine.rates else machine.come))()
        most = max(most, machine.truth)
        if machine.random.random() < 0.5:
            meter.begin(dict(machine.runs), machine.now)
        machine.wait(machine.random.choice((0.1, 1.0)))
        if machine.random.random() < 0.5:
            (machine.come if machine.random.random() < 0.5 or not machine.rates else machine.go)()
            most = max(most, machine.truth)
            machine.wait(0.5)
        if machine.random.random() < 0.7:
            meter.end(dict(machine.runs), machine.now)
        cost = meter.cost(machine.now)
        if cost.cpu_percent is not None:
            assert cost.cpu_percent == pytest.approx(machine.truth, rel=1e-3, abs=1e-3)
        assert 0 <= meter.estimate(machine.now) <= 1.001 * most


class Recorder:
    """A probe of which only the order of calls matters."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.meter = self
        self.measuring = False

    def drain(self) -> None:
        self.calls.append("drain")

    def told(self, runs: object) -> None:
        """Nothing to take in."""

    def begin(self, runs: object, now: float) -> None:
        self.measuring = True
        self.calls.append(("begin", now))

    def end(self, runs: object, now: float) -> None:
        self.measuring = False
        self.calls.append(("end", now))


@pytest.fixture
def probe() -> Recorder:
    return Recorder()


def running(probe: Recorder) -> list[Probe]:
    return [cast(Probe, probe)]


def test_windows_are_short_and_rare(probe: Recorder) -> None:
    windows = CostWindows(always=False)
    assert windows.due([], 100.0) is None
    assert windows.due(running(probe), 100.0) == "on"
    windows.request = 1
    assert windows.due(running(probe), 100.1) is None
    windows.answered({}, running(probe), 100.2)
    assert probe.calls == ["drain", ("begin", 100.2)]
    assert windows.due(running(probe), 101.1) is None
    assert windows.due(running(probe), 101.3) == "off"
    windows.request = 2
    windows.answered({}, running(probe), 101.3)
    assert probe.calls[2:] == ["drain", ("end", 101.3)]
    assert windows.due(running(probe), 110.2) is None
    assert windows.due(running(probe), 110.4) == "on"


def test_a_window_ends_although_nothing_runs_any_more(probe: Recorder) -> None:
    windows = CostWindows(always=False)
    assert windows.due(running(probe), 1.0) == "on"
    windows.answered({}, running(probe), 1.0)
    assert windows.due([], 2.0) == "off"


def test_windows_without_end(probe: Recorder) -> None:
    windows = CostWindows(always=True)
    assert windows.due(running(probe), 0.0) == "on"
    windows.answered({}, running(probe), 0.0)
    for second in (1.0, 2.0, 3.0):
        assert windows.due(running(probe), second) == "on"
        windows.answered({}, running(probe), second)
        assert probe.calls[-3:] == ["drain", ("end", second), ("begin", second)]


def test_refused_statistics_are_asked_for_rarely(probe: Recorder) -> None:
    windows = CostWindows(always=True)
    windows.answered(None, running(probe), 50.0)
    assert probe.calls == []
    assert windows.due(running(probe), 59.0) is None
    assert windows.due(running(probe), 60.0) == "on"


def test_new_probe_is_measured_at_once(probe: Recorder) -> None:
    windows = CostWindows(always=False)
    first = Recorder()
    windows.due(running(first), 0.0)
    windows.answered({}, running(first), 0.0)
    windows.begin_soon(cast(Probe, probe), 0.9)
    assert windows.due(running(probe), 0.9) == "on"
    windows.answered({}, [*running(first), *running(probe)], 0.9)
    # The window of what was there before goes on, and a whole one begins for what is new.
    assert first.calls == ["drain", ("begin", 0.0), "drain"]
    assert probe.calls == ["drain", ("begin", 0.9)]
    assert windows.due(running(probe), 1.5) is None
    assert windows.due(running(probe), 1.9) == "off"
    windows.answered({}, running(probe), 1.9)
    assert probe.calls[-1] == ("end", 1.9)
    late = Recorder()
    windows.begin_soon(cast(Probe, late), 2.5)
    assert windows.due(running(late), 2.5) == "on"


def test_what_comes_while_a_window_ends_is_measured_at_once(probe: Recorder) -> None:
    windows = CostWindows(always=False)
    first = Recorder()
    windows.due(running(first), 0.0)
    windows.answered({}, running(first), 0.0)
    assert windows.due(running(first), 1.0) == "off"
    windows.request = 1
    windows.begin_soon(cast(Probe, probe), 1.1)
    windows.answered({}, [*running(first), *running(probe)], 1.2)
    assert windows.due(running(probe), 1.2) == "on"
