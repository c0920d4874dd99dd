# SPDX-License-Identifier: Apache-2.0
"""What the workload `timed` says of its calls, and whether a probe agrees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from probes.core import histogram
from probes.core.sample import Histogram
from tests.kernel.timing import rank

Program = Callable[[str], Path]
CALLS = 2000


class Spans(NamedTuple):
    """Durations of its calls, ascending ns: of what they do, and from before to after them."""

    inside: list[int]
    around: list[int]


def spans(record: Path) -> Spans:
    """What it has written."""
    lines = [line.split() for line in record.read_text().splitlines()]
    return Spans(*(sorted(int(line[i]) for line in lines) for i in (0, 1)))


def assert_between(found: Histogram, truth: Spans) -> None:
    """No call missing, none too many, and percentiles within 4 % of the workload's own.

    A probe's clock is read within its traps, which are part of what is around the call; they
    are long where traps are emulated, so what is right lies between inside and around. An
    interrupt between two clocks makes another order: of 500 calls one may have another rank.
    """
    assert (found.n, len(truth.inside)) == (CALLS, CALLS)
    for fraction in (0.5, 0.9, 0.99):
        value = histogram.percentile(found.buckets, fraction)
        inside = rank(truth.inside, fraction - 0.002)
        around = rank(truth.around, fraction + 0.002)
        print(f"p{fraction * 100:g}: {value} ns, the workload: {inside} to {around}")
        assert value is not None
        assert inside * 0.96 <= value <= around * 1.04
    assert sum(truth.inside) * 0.96 <= found.total <= sum(truth.around) * 1.04
