# SPDX-License-Identifier: Apache-2.0
"""How intervals told from bursts are judged by what a load says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.truth import GOAL, Judged, Notes, calls_until, judge, row_of
from probes.core.sample import Duty, Estimates
from probes.syscalls.sample import SyscallSample
from tests.unit.metrics_feed import frame

SECOND = 1_000_000_000


def test_calls_between_two_notes_are_on_a_straight_line() -> None:
    notes = ([SECOND, 2 * SECOND, 4 * SECOND], [100, 200, 800])
    assert [calls_until(at, notes) for at in (0.5, 1.5, 3.0, 9.0)] == [0, 150, 500, 800]


def test_an_interval_is_compared_with_the_calls_of_its_own_time() -> None:
    def sample(times: int) -> SyscallSample:
        row = Estimates(1000 * times, 0, 100**2 * times, 0)
        return SyscallSample(
            state="on",
            duty=Duty(5 * times, 0.06 * times, 0.96 * times, 0.0, 4 * times),
            estimated={"getppid": row},
            estimated_matrix={(7, "getppid"): row},
        )

    # A call each millisecond, from ten seconds on.
    notes = [([10 * SECOND, 20 * SECOND], [0, 10_000])]
    old, new = (frame(10.0 + n, syscalls=sample(n)) for n in (1, 2))
    both, one = judge(old, new, 10.0, [7], notes)
    assert both == one
    assert one.estimate == 1000
    assert one.truth == pytest.approx(960)
    assert one.within == pytest.approx(277.6, rel=0.01)
    assert one.covers


def test_intervals_that_tell_nothing_are_counted_apart() -> None:
    told = [Judged(100, 20.0, 110.0)] * 9 + [Judged(100, 5.0, 110.0)]
    row = row_of("load", "all", [*told, Judged(100, None, 900.0)])
    assert row == ("load", "all", "10", "1", "9 (90.0 %)", "-9.1", "40")
    assert row_of("load", "all", [Judged(0, None, 5.0)]) == ("load", "all", "0", "1", *"---")
    assert GOAL == 0.9


def test_notes_are_read_from_the_file_that_a_load_writes(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    words = [2, 0, 5, 50, 6, 60, 0, 0]
    path.write_bytes(b"".join(word.to_bytes(8, "little") for word in words))
    notes = Notes(path)
    assert notes.read() == ((5, 6), (50, 60))
    notes.end()
    assert path.read_bytes()[8] == 1
