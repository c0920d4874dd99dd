# SPDX-License-Identifier: Apache-2.0
"""How much bursts slow programs: by what their threads do, on made-up threads and real ones."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping

import pytest

from probes.budget.burst_slowdown import CallerSlowdown
from probes.budget.burst_sums import BurstSums
from probes.budget.slowdown import (
    NOT_SLOWED,
    UNKNOWN,
    Slowdown,
    Thread,
    Threads,
    read_threads,
    slowdown,
    together,
)
from probes.ipc.messages import BurstReport

MS = 1_000_000
HALF = 5e6, 100.0
"""Calls a second, and ns of each, that take half of a CPU."""


def test_a_thread_that_never_sleeps_is_slowed_by_what_tracing_takes() -> None:
    slowed = slowdown(*HALF, [Thread(1.0, 0.0)], 0.0)
    assert slowed.factor == pytest.approx(2.0)
    # Only what a call costs is uncertain: by a fifth of the half, of the other half.
    assert slowed.error == pytest.approx(2 * 0.2)


def test_who_shares_a_cpu_spends_its_own_part_of_it() -> None:
    """It makes a third of the calls in a third of the time: it is slowed just as much."""
    alone = slowdown(*HALF, [Thread(1.0, 0.0)], 0.0)
    shared = slowdown(HALF[0] / 3, HALF[1], [Thread(1 / 3, 2 / 3)], 0.0)
    assert shared.factor == pytest.approx(alone.factor)
    assert shared.error == pytest.approx(alone.error)


def test_of_a_thread_that_sleeps_nobody_knows() -> None:
    # 0.3 of a CPU for its calls, a tenth for tracing them.
    slowed = slowdown(1e6, 100.0, [Thread(0.4, 0.0)], 0.0)
    assert slowed.factor == pytest.approx((1 + 1 / 0.9) / 2)
    # Both ends are well within 95 %.
    assert slowed.error >= (1 / 0.9 - 1) / 2


def test_bursts_see_the_time_within_as_it_was() -> None:
    """Attached for a quarter of the time, there are twice as many calls in three quarters only."""
    assert slowdown(*HALF, [Thread(1.0, 0.0)], 0.25).factor == pytest.approx(1.75)


def test_threads_have_their_parts_of_the_calls() -> None:
    two = [Thread(1.0, 0.0), Thread(1.0, 0.0)]
    assert slowdown(2 * HALF[0], HALF[1], two, 0.0).factor == pytest.approx(2.0)
    # A second thread that does nothing has none of them.
    one = [Thread(1.0, 0.0), Thread(1e-9, 0.0)]
    assert slowdown(*HALF, one, 0.0).factor == pytest.approx(2.0)


def test_tracing_never_takes_all_of_the_time() -> None:
    assert slowdown(1e9, 1e3, [Thread(1.0, 0.0)], 0.0).factor == pytest.approx(2.5)


def test_several_together() -> None:
    assert together([]) == NOT_SLOWED
    assert together([(3, Slowdown(2.0, 0.4)), (1, NOT_SLOWED)]) == pytest.approx((1.75, 0.3))


def test_what_threads_did_between_two_readings() -> None:
    now = {1: {10: (0, 0), 11: (500 * MS, 0)}}
    threads = Threads(lambda pid: dict(now.get(pid, {})))
    threads.begin([1, 2], 10.0)
    now[1] = {10: (600 * MS, 400 * MS), 11: (500 * MS, 0), 12: (5, 5)}
    threads.begin([1], 11.0)
    found = threads.since([1, 2, 3], 12.0)
    # The one that did nothing and the new one tell nothing.
    assert found[1] == [Thread(0.3, 0.2)]
    assert (found[2], found[3]) == (UNKNOWN, UNKNOWN)


def test_the_kernel_tells_of_threads_that_run_and_sleep() -> None:
    ended = threading.Event()
    sleeper = threading.Thread(target=ended.wait)
    sleeper.start()
    try:
        before = read_threads(os.getpid())
        begun = time.thread_time()
        while time.thread_time() - begun < 0.2:
            pass
        after = read_threads(os.getpid())
    finally:
        ended.set()
        sleeper.join()
    if not before:
        pytest.skip("this kernel tells nothing of threads (CONFIG_SCHED_INFO)")
    own, other = threading.get_native_id(), sleeper.native_id
    assert after[own][0] - before[own][0] >= 190 * MS
    assert other is not None
    assert after[other][0] - before[other][0] < 50 * MS
    assert read_threads(1 << 30) == {}


def bursts_of(rates: Mapping[int, float]) -> tuple[CallerSlowdown, BurstSums]:
    """Five bursts of 10 ms in 200 ms, of processes that make so many calls a second in them.

    The second never sleeps.
    """
    time_now, ran = [0.0], {1: 0.3, 2: 1.0}

    def read(pid: int) -> dict[int, tuple[int, int]]:
        return {pid: (int(ran.get(pid, 0.0) * time_now[0] * 1e9), 0)}

    sums = BurstSums("calls", "errnos", "matrix", "processes", "total")
    sums.pause(0.0)
    slow = CallerSlowdown(Threads(read), lambda: time_now[0])
    for number in range(5):
        since = number * 200 * MS
        times = (since, since, since + 10 * MS, since + 200 * MS)
        report = BurstReport(1, None, number, "burst", *times, price=100)
        made = {pid: (round(rate / 100), 0) for pid, rate in rates.items()}
        time_now[0] += 0.2
        slow.add(report, made)
        whole = sum(n for n, _ in made.values())
        sums.add(report, {
            "calls": {"read": (whole, 0)},
            "matrix": {(pid, "read"): n for pid, n in made.items()},
            "processes": made,
            "total": {0: (whole, 0)},
        })  # fmt: skip
    return slow, sums


def test_a_process_that_bursts_saw_at_work_more_often_is_slowed_as_usual() -> None:
    """What one call takes of its time on a CPU is known from the spans before."""
    slow = CallerSlowdown()
    for _ in range(20):
        usual = slow._usual({1: (1e6, 0.25), 2: (500.0, 0.0)})
    assert usual == pytest.approx({1: 1e6, 2: 500.0})
    more = slow._usual({1: (4e6, 0.25)})
    assert 1e6 < more[1] < 2e6
    # It goes with the time that it has now; whoever is gone is forgotten.
    assert slow._usual({1: (1e6, 0.5)})[1] > more[1]
    assert slow._usual({2: (7.0, 0.0)}) == {2: 7.0}


def test_each_process_is_corrected_by_what_it_does() -> None:
    slow, sums = bursts_of({1: 100_000.0, 2: 5_000_000.0})
    slow.close(sums)
    known = {name: table.known for name, table in sums.tables.items()}
    sleeps, works = known["processes"][1], known["processes"][2]
    # 100,000 calls cost 1 % of a CPU: between none and 1 % are added.
    assert sleeps.n == pytest.approx(100_000 * 1.005, rel=0.002)
    assert works.n == pytest.approx(5_000_000 * (1 + 0.95), rel=0.001)
    assert known["matrix"][2, "read"].n == works.n
    assert known["calls"]["read"].n == pytest.approx(sleeps.n + works.n, abs=2)
    assert known["total"][0].n == pytest.approx(sleeps.n + works.n, abs=2)
