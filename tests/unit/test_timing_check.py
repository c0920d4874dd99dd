# SPDX-License-Identifier: Apache-2.0
"""What the kernel's tests of durations let pass, and what not."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.core import histogram
from probes.core.sample import Histogram
from tests.kernel.timing import assert_between

INSIDE = [20_000 + 1000 * i for i in range(100)]


def found(durations: list[int]) -> Histogram:
    buckets: dict[int, int] = {}
    for ns in durations:
        buckets[histogram.index(ns)] = buckets.get(histogram.index(ns), 0) + 1
    return Histogram(buckets, len(durations), sum(durations))


def test_a_preemption_passes_and_a_wrong_clock_does_not(tmp_path: Path) -> None:
    record = tmp_path / "record"
    # Another program had the CPU for 50 ms between the clocks of every fiftieth call.
    late = [50_000_000 if at % 50 == 0 else 0 for at in range(100)]
    rows = [(inside, inside + 3000 + more) for inside, more in zip(INSIDE, late, strict=True)]
    record.write_text("".join(f"{inside} 0 {around}\n" for inside, around in rows))
    measured = [inside + 300 + more for inside, more in zip(INSIDE, late, strict=True)]
    assert_between(found(measured), record)
    assert_between(found(INSIDE), record)
    for wrong in (
        [ns - 8000 for ns in measured],
        [round(ns * 0.9) for ns in INSIDE],
        [round(ns * 1.1) if ns < 1_000_000 else ns for ns in measured],
        measured[1:],
    ):
        with pytest.raises(AssertionError):
            assert_between(found(wrong), record)
