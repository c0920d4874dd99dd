# SPDX-License-Identifier: Apache-2.0
"""What bursts stand for: the estimator on made-up loads of which the truth is known."""

from __future__ import annotations

import random
from dataclasses import replace
from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.budget.burst_sums import BurstSums
from probes.budget.slowdown import NOT_SLOWED, UNKNOWN, Prices, slowdown
from probes.core.elapsed import counted_seconds, exact_seconds
from probes.core.estimates import (
    FEWEST,
    duty_between,
    errors_of,
    estimate_object,
    estimates_delta,
    factor,
    known_error,
    standard_error,
    student,
)
from probes.core.frame import Frame, Host
from probes.core.sample import Counts, Duty, Estimates
from probes.ipc.messages import BurstReport
from probes.recording.codec import FrameCodec
from probes.report.stream import dumps, stream_object
from probes.sums.accumulators import Tick, sum_of
from probes.syscalls.probe import SyscallProbe
from probes.syscalls.sample import SyscallSample
from probes.syscalls.view import calls_made, syscall_view

MS = 1_000_000


@pytest.mark.parametrize(
    ("freedom", "value"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (10, 2.228), (30, 2.042), (1000, 1.962)],
)
def test_students_t_is_that_of_printed_tables(freedom: int, value: float) -> None:
    assert student(freedom) == pytest.approx(value, rel=0.005)


def report(number: int, on: int = 10, period: int = 200) -> BurstReport:
    since = number * period * MS
    return BurstReport(1, None, number, "burst", since, since, since + on * MS, since + period * MS)


def burst_sums() -> BurstSums:
    sums = BurstSums("calls")
    sums.pause(0.0)
    return sums


def test_nothing_is_told_of_few_bursts() -> None:
    sums = burst_sums()
    for number in range(FEWEST - 1):
        sums.add(report(number), {"calls": {"read": (100, 1)}})
        sums.close()
    assert sums.tables["calls"].known == {}
    sums.add(report(FEWEST), {"calls": {"read": (100, 1)}})
    sums.close()
    row = sums.tables["calls"].known["read"]
    assert (row.n, row.errors) == (100 * FEWEST * 20, FEWEST * 20)
    assert sums.duty is not None
    assert sums.duty == pytest.approx((FEWEST, FEWEST * 0.01, FEWEST * 0.2, 0.0, FEWEST - 1))


def test_what_one_burst_alone_saw_is_uncertain_and_bursts_that_did_not_count() -> None:
    sums = burst_sums()
    for number in range(5):
        seen = {"often": (50, 0)} | ({"once": (1, 0)} if number == 2 else {})
        sums.add(report(number), {"calls": seen})
    sums.close()
    often, once = (sums.tables["calls"].known[name] for name in ("often", "once"))
    assert once.n == 20
    # By chance alone: one event of which each is seen with probability 1/20.
    assert once.variance >= 20 * 20 * 0.95 - 1
    assert (standard_error(once.n, once.variance, sums.duty) or 0.0) >= 19
    # No spread at all, but it was 250 of 5000 events.
    assert often.variance >= 250 * 20 * 19 - 1


@pytest.mark.parametrize("kind", ["steady", "random", "bursty"])
def test_the_interval_has_the_truth_as_often_as_it_says(kind: str) -> None:
    lot = random.Random(kind)
    covered = 0
    for _ in range(300):
        sums, truth = burst_sums(), 0.0
        for number in range(5):
            rate = {"steady": 1000, "random": lot.randrange(2000), "bursty": lot.choice((0, 3000))}
            events = [lot.random() < rate[kind] / 3000 for _ in range(600)]
            truth += sum(events)
            at = lot.randrange(570)
            sums.add(report(number), {"calls": {"x": (sum(events[at : at + 30]), 0)}})
        sums.close()
        row = sums.tables["calls"].known.get("x", Estimates())
        assert sums.duty is not None
        error = errors_of(row, sums.duty)[0] or 0.0
        covered += abs(row.n - truth) <= factor(sums.duty) * error
    assert covered >= 270


def test_programs_that_are_slowed_by_a_burst_make_the_error_larger() -> None:
    assert slowdown(0.0, 100.0, UNKNOWN, 0.0) == NOT_SLOWED
    assert slowdown(1e4, 0.0, UNKNOWN, 0.0) == NOT_SLOWED
    # Half of the time went into tracing: there were as many calls, or twice as many.
    slowed = slowdown(5e6, 100.0, UNKNOWN, 0.0)
    assert slowed.factor == pytest.approx(1.5)
    assert slowed.error > 0.28
    sums = burst_sums()
    for number in range(5):
        sums.add(report(number), {"calls": {"x": (50_000, 0)}})
    sums.close(slowed)
    row = sums.tables["calls"].known["x"]
    assert row.n == 7_500_000
    assert sums.duty is not None
    within = factor(sums.duty) * (errors_of(row, sums.duty)[0] or 0.0)
    assert row.n - within <= 5_000_000 < 10_000_000 <= row.n + within


def test_a_price_is_the_median_of_late_bursts() -> None:
    prices = Prices()
    assert prices.price() == 0
    for price in (90, 100, 5_000_000, 110, -40):
        prices.add(price)
    assert prices.price() == 100


def sample(times: int) -> SyscallSample:
    """Half a second of exact counts, then `times` seconds of bursts."""
    row = Estimates(1000 * times, 10 * times, 400 * times, 16 * times)
    duty = Duty(5 * times, 0.05 * times, 1.0 * times, 0.0, 4 * times) if times else None
    return SyscallSample(
        state="on",
        counted=0.5,
        calls={"read": Counts(70, 7)},
        matrix={(1, "read"): Counts(70, 7)},
        comms={1: "a"},
        duty=duty,
        estimated={"read": row} if times else {},
        estimated_matrix={(1, "read"): row} if times else {},
        estimated_processes={1: row} if times else {},
        estimated_total=row if times else Estimates(),
    )


def test_a_view_has_both_parts_and_says_how_far_off_they_may_be() -> None:
    view = syscall_view(None, sample(1), 1.5)
    (row,) = view.calls
    assert (row.count, row.errors, row.estimated) == (1070, 17, 1000)
    assert (row.error, row.errors_error) == (20.0, 4.0)
    (process,) = view.processes
    assert (process.count, process.error) == (1070, 20.0)
    assert view.error == 20.0
    assert view.duty == Duty(5, 0.05, 1.0, 0.0, 4)
    assert counted_seconds(None, sample(1), 9.0) == 1.5
    assert exact_seconds(None, sample(1), 9.0) == 0.5
    later = syscall_view(sample(1), sample(4), 3.0)
    assert later.calls[0].count == 3000
    # Spans are independent: errors grow as the root of their number.
    assert later.calls[0].error == pytest.approx(20 * 3**0.5)
    assert calls_made(sample(1), sample(4)) == Counts(3000, 30)
    exact = syscall_view(None, sample(0), 0.5)
    assert (exact.duty, exact.error, exact.calls[0].error) == (None, None, None)


def frame(mono: float, times: int) -> Frame:
    """A Frame with it."""
    return Frame(
        time=mono, mono=mono, interval=1.0, host=Host(), samples={"syscalls": sample(times)}
    )


def test_the_stream_says_duty_and_error_only_where_there_were_bursts() -> None:
    kinds = {"syscalls": SyscallProbe}
    exact = stream_object(None, frame(1.0, 0), kinds)["probes"]["syscalls"]
    assert "duty" not in exact
    assert "error" not in exact["rows"][0]
    told = stream_object(frame(1.0, 1), frame(2.0, 2), kinds)["probes"]["syscalls"]
    assert told["duty"]["on"] == pytest.approx(0.05)
    assert (told["duty"]["seconds"], told["duty"]["bursts"]) == (1.0, 5)
    assert told["duty"]["factor"] == pytest.approx(2.776, 0.01)
    assert told["seconds"] == 1.0
    assert (told["rows"][0]["count"], told["rows"][0]["error"]) == (1000, 20.0)
    # Ten errors, with 95 % confidence within 11 of it: there may have been any number.
    assert told["processes"][0]["errors_error"] is None


def test_sums_keep_the_two_parts_apart() -> None:
    total = sum_of(SyscallSample)
    for old, new in ((None, sample(0)), (sample(0), sample(1)), (sample(1), sample(3))):
        total.add(old, new, Tick(1.0))
    whole = total.sample()
    assert isinstance(whole, SyscallSample)
    assert whole.calls == {"read": Counts(70, 7)}
    assert whole.estimated == {"read": Estimates(3000, 30, 1200, 48)}
    assert whole.estimated_total.n == 3000
    assert whole.duty == pytest.approx((15, 0.15, 3.0, 0.0, 12))
    assert total.seconds == pytest.approx(3.5)


def test_recordings_have_them_and_older_ones_have_none() -> None:
    codec = FrameCodec()
    first, second = frame(1.0, 1), frame(2.0, 2)
    assert codec.decode(codec.encode(first)) == first
    assert codec.decode(codec.encode(second, first), first) == second
    older = codec.encode(frame(1.0, 0))
    assert "duty" not in str(older)
    assert "estimated" not in str(older)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=5))
def test_differences_are_never_below_zero(steps: list[int]) -> None:
    before = {1: Estimates(5, 1, 7, 1)}
    for n in steps:
        after = {1: Estimates(n, 0, n * n, 0)}
        assert all(min(row) >= 0 for row in estimates_delta(before, after).values())
        before = after


def test_no_bursts_between_two_moments_is_none() -> None:
    assert duty_between(None, None) is None
    assert duty_between(Duty(3, 1.0, 2.0), Duty(3, 1.0, 2.0)) is None


def test_an_interval_that_begins_at_zero_tells_nothing() -> None:
    few = Duty(5, 0.05, 1.0, 0.0, 4)
    assert known_error(1000, 300.0, few) == 300.0
    assert known_error(1000, 400.0, few) is None
    assert known_error(0, 0.0, few) is None
    # Of many bursts the spread itself is known.
    assert known_error(1000, 400.0, few._replace(freedom=100)) == 400.0
    told = estimate_object(Estimates(1000, 0, 400**2, 0), few)
    assert told == {"estimated": 1000, "error": None, "errors_error": None}


def test_the_stream_says_null_where_bursts_cannot_tell() -> None:
    """One burst of five saw all of it."""
    sums = burst_sums()
    for number in range(5):
        sums.add(report(number), {"calls": {"read": (500, 1)} if number == 3 else {}})
    sums.close()
    row = sums.tables["calls"].known["read"]
    new = replace(sample(0), duty=sums.duty, estimated={"read": row}, estimated_total=row)
    at = replace(frame(2.0, 0), samples={"syscalls": new})
    told = stream_object(frame(1.0, 0), at, {"syscalls": SyscallProbe})["probes"]["syscalls"]
    (line,) = told["rows"]
    assert (line["estimated"], line["error"], line["errors_error"]) == (10_000, None, None)


def test_an_error_is_finite_whatever_a_recording_says() -> None:
    duty = Duty(bursts=9, on=5e-324, seconds=36.0, edges=1e11, freedom=9)
    error = standard_error(2**72 - 1, 2**144 - 1, duty)
    assert error is not None
    assert isfinite(factor(duty) * error)
    dumps({"error": error})
