# SPDX-License-Identifier: Apache-2.0
"""The judge itself: what perf counts here of a known number of instructions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.harness import Work
from tests.vm.guest_pmu.perf import PerfStat

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("bursts", [1, 100])
def test_perf_counts_what_was_done(
    program: Callable[[str], Path], tmp_path: Path, bursts: int
) -> None:
    with Work(program("counted"), "100000000", str(bursts)) as work:
        events = ["instructions:u", "instructions", "cycles", "cache-misses"]
        with PerfStat(events, tmp_path / "record", work.pid) as perf:
            (made,) = work.work()
    value = {event: count.value for event, count in perf.counts.items()}
    user, instructions, cycles, misses = (value[event] for event in events)
    assert user == pytest.approx(made, rel=0.01)
    assert instructions is not None
    assert made <= instructions
    # An instruction takes two cycles of this machine, whatever it is.
    assert cycles == pytest.approx(2 * instructions, rel=0.01)
    assert misses is None
