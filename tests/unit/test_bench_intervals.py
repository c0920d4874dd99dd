# SPDX-License-Identifier: Apache-2.0
"""Medians and their intervals, and what periods with and without probetop tell."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest

from bench import budget, periods
from bench.intervals import heading, of_median
from bench.periods import Load, Period


def test_intervals_are_the_narrowest_of_the_wanted_confidence() -> None:
    # The ranks and confidences that tables of the sign test have.
    for many, rank, confidence in ((6, 1, 0.969), (9, 2, 0.961), (20, 6, 0.959), (40, 14, 0.962)):
        found = of_median(range(1, many + 1))
        assert (found.low, found.high) == (rank, many + 1 - rank)
        assert found.confidence == pytest.approx(confidence, abs=0.001)
        assert found.median == (many + 1) / 2


def test_few_values_say_how_little_their_interval_is_worth() -> None:
    assert of_median([3.0, 1.0]) == (2.0, 1.0, 3.0, 0.5)
    assert of_median([7.0]) == (7.0, 7.0, 7.0, 0.0)
    assert heading(3) == "75 % interval"
    assert heading(20) == "96 % interval"
    with pytest.raises(ValueError, match="values"):
        of_median([])


def test_the_true_median_is_within_as_often_as_is_said() -> None:
    rng = random.Random(1)
    within = 0
    for _ in range(1000):
        found = of_median([rng.expovariate(1.0) for _ in range(20)])
        within += found.low <= 0.693147 <= found.high
    assert 940 <= within <= 980


def period(*rates: float, objects: tuple[tuple[float, object], ...] = ()) -> Period:
    """A period of one second for each rate, seen ten times a second."""
    times, done = [0.0], [0.0]
    for rate in rates:
        for _ in range(10):
            times.append(round(times[-1] + 0.1, 3))
            done.append(done[-1] + rate / 10)
    return Period(times, done, [(at, json.dumps(found).encode()) for at, found in objects])


def test_what_is_lost_is_told_by_the_periods_beside() -> None:
    steady = [100.0] * 16
    dip = [*[100.0] * 5, *[50.0] * 2, *[100.0] * 9]
    found = budget.lost([period(*steady), period(*dip)], [100.0, 100.0], 3.0)
    assert found.each == pytest.approx([0.0, 100 * 1 / 13], abs=0.01)
    assert found.worst == pytest.approx(10.0, abs=0.01)
    short = budget.lost([period(*steady[:7])], [200.0], 3.0)
    assert short.each == pytest.approx([50.0])
    assert short.worst is None


def test_a_load_has_settled_when_it_gets_on_as_before() -> None:
    slow_start = period(*[20.0] * 2, *[100.0] * 8)
    at = budget.settled(slow_start, 100.0)
    assert at is not None
    # In 3 s behind it may be no more than 4 % lost: 0.15 s at a fifth of the speed.
    assert at == pytest.approx(1.9, abs=0.05)
    assert budget.settled(period(*[100.0] * 8), 100.0) == 0.0
    assert budget.settled(period(*[90.0] * 8), 100.0) is None


def test_silence_is_the_longest_time_without_an_object_that_shows_the_load() -> None:
    def found(count: int | None) -> object:
        rows = None if count is None else [{"syscall": "getppid", "count": count}]
        return {"probes": {"syscalls": {"rows": rows}}}

    (calls,) = [kind for kind in periods.kinds(Path("/load")) if kind.name == "calls"]
    objects = ((1.0, found(5)), (2.0, found(0)), (3.0, found(None)), (4.5, found(1)))
    assert period(*[1.0] * 6, objects=objects).silence(calls.shown) == 3.5
    assert period(*[1.0] * 6).silence(calls.shown) == pytest.approx(6.0)


def test_each_load_is_known_by_its_own_row() -> None:
    shown = {kind.name: kind.shown for kind in periods.kinds(Path("/load"))}
    objects = {
        "calls": {"syscalls": {"rows": [{"syscall": "getppid", "count": 1}]}},
        "switches": {"pmc": {"processes": [{"comm": "load", "context_switches": 1}]}},
        "programs": {"execs": {"events": [{"type": "exec", "comm": "idle"}]}},
        "function": {"latency": {"targets": [{"spec": "uprobe:/load:work", "count": 2.5}]}},
    }
    for name, probes in objects.items():
        for kind, sees in shown.items():
            assert sees({"probes": probes}) == (name == kind)


def test_rows_of_a_load_tell_noise_and_loss_apart() -> None:
    off = [period(*[rate] * 10) for rate in (100.0, 102.0, 100.0, 102.0)]
    on = [period(*[10.0] * 3, *[99.99] * 13) for _ in range(3)]
    nothing, ours = budget.rows_of("calls", "ours", off, on, lambda found: True)
    assert nothing[:4] == ("calls", "nothing", "0.1", "2")
    assert nothing[4:6] == ("-0.02", "-2.00 to 1.96")
    assert ours[:4] == ("calls", "ours", "0.1", "3")
    assert ours[4] == "1.00"
    assert ours[6:] == ("1.0", "2.9", "2.9", "16.0")


def test_every_load_works_only_while_it_is_told_to(tmp_path: Path) -> None:
    for kind in periods.kinds(tmp_path / "load"):
        load = Load(tmp_path, kind.name)
        try:
            worked = load.work(0.3)
            between = load.done()
            assert worked.done[-1] > 0
            again = load.work(0.2)
            assert load.done() >= between + again.done[-1]
        finally:
            load.close()
        assert load.process.returncode == 0
        found = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True)
        assert found.stdout == ""
