# SPDX-License-Identifier: Apache-2.0
"""What two latency Samples say about the time between them."""

from __future__ import annotations

from dataclasses import replace

from probes.core import histogram as hdr
from probes.core.sample import Histogram
from probes.latency.sample import LatencySample, Spent, Target
from probes.latency.view import latency_view


def histogram(*durations: int) -> Histogram:
    buckets: dict[int, int] = {}
    for value in durations:
        buckets[hdr.index(value)] = buckets.get(hdr.index(value), 0) + 1
    return Histogram(buckets, len(durations), sum(durations))


def sample(*targets: Target, generation: int = 1) -> LatencySample:
    return LatencySample(
        state="on", generation=generation, targets={target.spec: target for target in targets}
    )


OLD = Target(
    spec="syscall:read", mechanism="syscall", state="on", histogram=histogram(*[100] * 50), missed=3
)
NEW = replace(
    OLD,
    histogram=histogram(*[100] * 50, *[1000] * 90, *[50_000] * 9, 3_000_000),
    missed=5,
    overflow=1,
)


def test_the_percentiles_are_those_of_the_interval() -> None:
    row = latency_view(sample(OLD), sample(NEW), 2.0).targets[0]
    assert row.count == 100
    assert row.total == 90 * 1000 + 9 * 50_000 + 3_000_000
    assert row.mean == row.total / 100
    for value, wanted in (
        (row.p50, 1000),
        (row.p90, 1000),
        (row.p99, 50_000),
        (row.p999, 3_000_000),
        (row.maximum, 3_000_000),
    ):
        assert value is not None
        assert abs(value - wanted) <= 0.032 * wanted
    assert (row.missed, row.overflow) == (2, 1)


def test_an_interval_without_calls_has_no_durations() -> None:
    row = latency_view(sample(NEW), sample(NEW), 1.0).targets[0]
    assert row.count == 0
    assert (row.p50, row.p999, row.maximum, row.mean, row.total) == (None,) * 5


def test_counters_of_another_generation_are_not_subtracted() -> None:
    view = latency_view(sample(OLD), sample(NEW, generation=2), 1.0)
    assert view.targets[0].count == 150
    assert view.targets[0].missed == 5


def test_a_target_that_was_removed_and_added_again_counts_from_zero() -> None:
    again = replace(OLD, histogram=histogram(7, 7), missed=0)
    row = latency_view(sample(NEW), sample(again), 1.0).targets[0]
    assert (row.count, row.p50, row.missed) == (2, 7, 0)


def test_what_does_not_run_has_no_count_and_what_only_counts_no_durations() -> None:
    counted = Target(
        spec="tracepoint:a:b",
        state="on",
        counts_only=True,
        histogram=Histogram({}, 12, 0),
        missed=0,
    )
    broken = Target(spec="uprobe:x:y", state="failed", why="no such file")
    view = latency_view(None, sample(counted, broken, Target(spec="z")), 1.0)
    assert [row.count for row in view.targets] == [12, None, None]
    assert [row.p50 for row in view.targets] == [None] * 3
    assert view.targets[0].total is None
    assert view.count == 12


def test_the_processes_behind_a_target_longest_in_it_first() -> None:
    before = replace(sample(OLD), processes={("syscall:read", 1): Spent(10, 1000)})
    after = replace(
        sample(NEW),
        processes={
            ("syscall:read", 1): Spent(14, 1400),
            ("syscall:read", 2): Spent(1, 9000),
            ("other", 3): Spent(1, 1),
        },
        comms={1: "one"},
    )
    rows = latency_view(before, after, 1.0).behind("syscall:read")
    assert [(row.pid, row.comm, row.count, row.total, row.mean) for row in rows] == [
        (2, "?", 1, 9000, 9000.0),
        (1, "one", 4, 400, 100.0),
    ]
