# SPDX-License-Identifier: Apache-2.0
"""Logarithmic axes: buckets, labels and scales that rest."""

from __future__ import annotations

from itertools import pairwise
from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.core import histogram
from tui.panes.scale import LEAST, OCTAVE, Scale, edges, quarters, settle, spread

BUCKETS = st.dictionaries(st.integers(0, histogram.BUCKETS - 1), st.integers(1, 10**9), max_size=40)
POSITIONS = st.integers(0, histogram.MAX_BITS * OCTAVE - 1)


def test_positions_are_quarters_of_a_power_of_two() -> None:
    assert edges()[histogram.index(1024)] == 40
    assert edges()[-1] == histogram.MAX_BITS * OCTAVE
    assert quarters()[histogram.index(1024)] == 40
    assert quarters()[histogram.index(2047)] == 43
    assert list(quarters()) == sorted(quarters())
    assert quarters()[-1] == histogram.MAX_BITS * OCTAVE - 1


@given(BUCKETS, POSITIONS, st.integers(LEAST, 100), st.integers(1, 200))
def test_spreading_loses_and_adds_nothing(
    buckets: dict[int, int], low: int, length: int, cells: int
) -> None:
    place = quarters()
    inside = {b: n for b, n in buckets.items() if low <= place[b] and edges()[b + 1] < low + length}
    inside = {b: n for b, n in inside.items() if edges()[b] >= low}
    counts = spread(inside, Scale(low, low + length), cells)
    assert isclose(sum(counts), sum(inside.values()), rel_tol=1e-9, abs_tol=1e-6)
    assert min(counts) >= 0


def test_a_bucket_across_cells_is_shared_out_by_length() -> None:
    # Bucket 2 holds 2 ns only, which is half of the axis' power of two from 2 to 4 ns: 0.585.
    counts = spread({2: 100}, Scale(4, 8), 4)
    assert [round(count) for count in counts] == [43, 43, 15, 0]


@pytest.mark.parametrize(
    ("scale", "cells", "gap", "labels"),
    [
        (Scale(40, 56), 40, 2, [(9, "2us"), (22, "5us"), (32, "10us")]),
        (Scale(36, 80), 60, 2, [(5, "1us"), (23, "10us"), (41, "100us"), (59, "1ms")]),
        (Scale(36, 80), 12, 0, [(1, "1us"), (4, "10us"), (8, "100us"), (11, "1ms")]),
        (Scale(140, 176), 30, 2, [(2, "1m"), (13, "10m"), (22, "1h")]),
    ],
)
def test_labels_are_round_and_stand_apart(
    scale: Scale, cells: int, gap: int, labels: list[tuple[int, str]]
) -> None:
    assert scale.labels(cells, gap) == labels


@given(POSITIONS, st.integers(LEAST, 160), st.integers(24, 200))
def test_labels_never_touch(low: int, length: int, cells: int) -> None:
    found = Scale(low, low + length).labels(cells, gap=1)
    for (cell, text), (later, _) in pairwise(found):
        assert later - cell > len(text)


@given(POSITIONS, st.integers(1, 80), POSITIONS, st.integers(1, 80))
def test_a_settled_scale_holds_what_there_is(low: int, more: int, old: int, length: int) -> None:
    before = settle(None, old, old + length)
    for scale in (settle(None, low, low + more), settle(before, low, low + more)):
        assert scale.low <= low
        assert scale.high >= low + more
        assert scale.high - scale.low >= LEAST
        assert scale.low % OCTAVE == scale.high % OCTAVE == 0


def test_a_scale_rests_while_it_can() -> None:
    first = settle(None, 40, 70)
    assert first == Scale(40, 72)
    assert settle(first, 47, 66) is first
    assert settle(first, 40, 73) == Scale(40, 76)
    assert settle(first, 56, 70) == Scale(56, 72)
