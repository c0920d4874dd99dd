# SPDX-License-Identifier: Apache-2.0
"""Latency targets in bursts: what is estimated from them, and how far off that is."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest

from probes.budget.slowdown import Threads
from probes.core import histogram
from probes.core.estimates import factor, known_error, standard_error
from probes.core.sample import Duty, Estimate, Histogram
from probes.ipc.messages import BurstReport
from probes.latency.contract import latency_contract
from probes.latency.sample import LatencySample, Target
from probes.latency.sum import LatencySum
from probes.latency.target_bursts import FEWEST, TargetBursts
from probes.latency.view import latency_view
from probes.sums.accumulators import Tick

MS = 1_000_000
NOBODY = Threads(lambda pid: {})


def report(number: int, on: int = 100, period: int = 1000, late: int = 0) -> BurstReport:
    """A burst of `on` ms in a period, which begins where the one before ends."""
    since = number * period * MS
    begin = since + 10 * MS
    until = since + (period + late) * MS
    return BurstReport(1, 0, number, "burst", since, begin, begin + on * MS, until)


def bursts(by_text: bool = False) -> TargetBursts:
    return TargetBursts(by_text, threads=NOBODY, clock=lambda: 0.0)


def covers(one: TargetBursts, truth: float) -> bool:
    error = standard_error(one.estimated.n, one.estimated.variance, one.duty) or 0.0
    return abs(one.estimated.n - truth) <= factor(one.duty) * error


def test_bursts_stand_for_their_periods_from_the_second_on() -> None:
    one = bursts()
    one.see(7, 50, 50_000)
    one.add(report(0), 50, {}, 0.0)
    assert (one.duty.bursts, one.estimated.n) == (0, 0)
    one.see(7, 50, 50_000)
    one.see(8, 10, 10_000)
    one.add(report(1), 60, {}, 0.0)
    assert (one.duty.bursts, one.duty.seconds) == (FEWEST, 2.0)
    assert one.duty.on == pytest.approx(0.2)
    assert one.estimated.n == 1100
    assert {who: n.n for who, n in one.rows.items()} == {7: 1000, 8: 100}
    # Who was in one of two bursts only is less certain than who was in both.
    assert one.rows[8].variance * 10 > one.rows[7].variance
    assert one.duty.freedom == 1


def test_each_further_burst_is_an_estimate_of_its_own() -> None:
    one = bursts()
    seen = []
    for number in range(10):
        one.see(7, 50, 50_000)
        one.add(report(number), 50, {}, 0.0)
        seen.append(one.estimated.n)
    assert seen == [0, *range(1000, 5001, 500)]
    assert one.duty.freedom == sum(range(1, 8)) + 7 * 2
    # Nothing is ever taken back: differences of two moments have no negative part.
    assert seen == sorted(seen)


def test_a_skipped_burst_s_period_is_that_of_the_next() -> None:
    one = bursts()
    for number in (0, 1):
        one.see(7, 50, 0)
        one.add(report(number), 50, {}, 0.0)
    one.see(7, 50, 0)
    one.add(replace_since(report(3), 2000 * MS), 50, {}, 0.0)
    assert one.estimated.n == 2000
    assert one.duty.seconds == pytest.approx(4.0)


def replace_since(one: BurstReport, since: int) -> BurstReport:
    return BurstReport(1, 0, one.number, "burst", since, one.begin, one.end, one.until)


def test_intervals_have_the_truth_as_often_as_they_say() -> None:
    random = Random(1)
    found = 0
    for _ in range(200):
        one = bursts()
        for number in range(8):
            n = sum(random.random() < 0.1 for _ in range(400))
            one.see(7, n, 0)
            one.add(report(number), n, {}, 0.0)
        found += covers(one, 8 * 400)
    assert found >= 180


def test_long_calls_count_for_those_that_a_burst_cuts() -> None:
    one = bursts()
    half = histogram.index(50 * MS)
    for number in range(2):
        one.see(7, 100, 0)
        one.add(report(number), 100, {half: 100}, 0.0)
    assert one.estimated.n == pytest.approx(2 * 1000 * 2, rel=0.05)
    assert covers(one, 2000)
    assert covers(one, 4000)
    # Longer than the burst none can be: such a duration is of a clock that jumped.
    other = bursts()
    for number in range(2):
        other.see(7, 1, 0)
        other.add(report(number), 1, {histogram.index(10**12): 1}, 0.0)
    assert other.estimated.n <= 2 * 10 * 10


def test_who_may_do_nothing_but_be_traced_may_make_any_number_of_calls() -> None:
    one = bursts()
    for number in range(8):
        # 10,000 calls in 100 ms that took 9.5 us each, of which tracing is most.
        one.see(7, 10_000, 95 * MS)
        one.add(report(number), 10_000, {histogram.index(9_500): 10_000}, 2_000.0)
    error = standard_error(one.estimated.n, one.estimated.variance, one.duty)
    assert known_error(one.estimated.n, error, one.duty) is None
    # Calls that take long by themselves are as many without.
    other = bursts()
    for number in range(8):
        other.see(7, 95, 95 * MS)
        other.add(report(number), 95, {histogram.index(MS): 95}, 2_000.0)
    error = standard_error(other.estimated.n, other.estimated.variance, other.duty)
    assert known_error(other.estimated.n, error, other.duty) is not None


def test_texts_are_estimated_as_processes_are() -> None:
    one = bursts(by_text=True)
    for number in range(2):
        one.see("/etc/passwd", 5, 0)
        one.add(report(number), 5, {}, 100.0)
    assert {who: n.n for who, n in one.rows.items()} == {"/etc/passwd": 100}


def target(times: int, **more: object) -> Target:
    """A target after so many bursts, each of which saw 10 calls of 1 us and stands for 100."""
    bucket = histogram.index(1000)
    known = Target(
        spec="uprobe:a:f",
        state="on",
        mechanism="uprobe",
        duty=Duty(times, 0.1 * times, 1.0 * times, 0.0, times),
        estimated=Estimate(100 * times, 90 * times),
        in_bursts=Histogram({bucket: 10 * times}, 10 * times, 10_000 * times),
    )
    return replace(known, **more)  # type: ignore[arg-type]


def sample(times: int, **more: object) -> LatencySample:
    return LatencySample(
        state="on",
        counted=float(times),
        targets={"uprobe:a:f": target(times, **more)},
        comms={7: "a"},
        estimated_processes={("uprobe:a:f", 7): Estimate(100 * times, 90 * times)} if times else {},
    )


def test_a_row_is_what_bursts_stand_for_and_a_dash_without_any() -> None:
    view = latency_view(sample(2), sample(6), 3.0)
    (row,) = view.targets
    assert (row.count, row.estimated, row.seconds) == (400, 400, 4.0)
    assert row.error == pytest.approx(360**0.5)
    assert row.p50 == row.p99 == pytest.approx(1000, rel=0.04)
    assert (row.total, row.exact) == (400_000, False)
    assert row.spent.n == 400
    (behind,) = view.behind("uprobe:a:f")
    assert (behind.comm, behind.count, behind.estimated, behind.total) == ("a", 400, 400, None)
    assert behind.error == row.error
    assert view.unlisted(row) == 0
    (none,) = latency_view(sample(6), sample(6), 1.0).targets
    assert none.count is None
    assert none.duty is None


def test_a_stream_says_what_is_estimated() -> None:
    (one,) = latency_contract(sample(2), sample(6), 3.0)["targets"]
    assert (one["count"], one["estimated"], one["max_exact"]) == (400, 400, False)
    assert one["error"] == pytest.approx(360**0.5)
    assert one["duty"]["bursts"] == 4
    assert one["behind"] == [
        {
            "pid": 7,
            "comm": "a",
            "count": 400,
            "total": None,
            "estimated": 400,
            "error": one["error"],
        }
    ]
    (none,) = latency_contract(sample(6), sample(6), 1.0)["targets"]
    assert (none["count"], none["duty"]) == (None, None)
    exact = Target(spec="uprobe:a:f", state="on", histogram=Histogram({}, 5, 0))
    counted = LatencySample(state="on", targets={"uprobe:a:f": exact})
    (whole,) = latency_contract(None, counted, 1.0)["targets"]
    assert not {"duty", "error", "estimated"} & whole.keys()


def test_sums_keep_exact_and_estimated_calls_apart() -> None:
    bucket = histogram.index(1000)
    exact = Target(spec="uprobe:a:f", state="on", histogram=Histogram({bucket: 50}, 50, 50_000))
    counted = LatencySample(state="on", counted=1.0, targets={"uprobe:a:f": exact})
    later = [sample(n, began=1.0) for n in (0, 2, 6)]
    total, ticks = LatencySum(), []
    states = [LatencySample(state="on", counted=0.0), counted, *later, later[-1]]
    for before, after in pairwise(states):
        total.add(before, after, tick := Tick(1.0))
        ticks.append(tick)
    whole = total.sample()
    assert isinstance(whole, LatencySample)
    found = whole.targets["uprobe:a:f"]
    assert (found.histogram.n, found.in_bursts.n) == (50, 60)
    assert found.estimated == Estimate(600, 540)
    assert found.duty is not None
    assert found.duty.bursts == 6
    # Where there was no burst nothing is known, which is not nothing.
    assert [tick.counts.get("calls uprobe:a:f") for tick in ticks] == [50, None, 200, 400, None]
    assert whole.estimated_processes == {("uprobe:a:f", 7): Estimate(600, 540)}
