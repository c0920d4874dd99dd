# SPDX-License-Identifier: Apache-2.0
"""Heatmaps and histograms as text."""

from __future__ import annotations

import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.core import histogram
from probes.core.sample import Histogram
from probes.latency.sample import Target
from probes.latency.view import TargetRow
from tui.panes.heatmap import COLUMNS, Heat, Moment, ceiling, heat_lines, level
from tui.panes.histogram import histogram_lines
from tui.panes.scale import Scale
from tui.shared.styled_lines import Line, compose, line_text, line_width, to_cells
from tui.shared.theme import ASCII, Theme

PLAIN = Theme(ASCII, colour=False, plain=True)
SCALE = Scale(40, 56)
"""From 1024 to 16384 ns."""


def heat(columns: list[dict[int, int]], seconds: float = 1.0) -> Heat:
    out = Heat()
    for at, durations in enumerate(columns):
        buckets = {histogram.index(value): n for value, n in durations.items()}
        out.add(Moment(1e9 + at * seconds, seconds), {"t": buckets})
    return out


def text(lines: list[Line]) -> list[str]:
    return [line_text(line) for line in lines]


def test_a_column_an_interval_a_row_a_range_and_time_below() -> None:
    drawn = text(
        heat_lines(heat([{1100: 1000}, {}, {2200: 10, 9000: 1}]), "t", SCALE, 40, 6, PLAIN)
    )
    # Four rows of one power of two each; a thousand a second is the fullest of nine steps.
    assert [line[7:10] for line in drawn[1:5]] == ["  -", "   ", "  +", "@  "]
    assert drawn[0].endswith("  calls/s 0.1 .:-=+*#%@ 1.00k")
    assert [line[1:7].strip() for line in drawn[1:5]] == ["10us+", "|", "|", "|"]
    clock = time.strftime("%H:%M:%S", time.localtime(1e9))
    assert drawn[5].strip() == f"++{clock}".ljust(34, "-")


def test_rates_are_a_second_whatever_the_interval() -> None:
    half = heat([{1100: 10}], seconds=0.5)
    assert half.rates("t", 0, 40, 4, 4)[0] == [20.0]


@pytest.mark.parametrize(
    ("rate", "step"),
    [(0, 0), (0.01, 1), (0.1, 1), (0.4, 2), (1, 2), (100, 6), (300, 7), (500, 8), (1000, 8)],
)
def test_steps_are_half_decades_below_the_ceiling(rate: float, step: int) -> None:
    assert level(rate, 1000.0, 8) == step


@given(st.floats(0.001, 1e12), st.integers(1, 10))
def test_what_was_called_is_always_seen(rate: float, steps: int) -> None:
    assert 1 <= level(rate, ceiling([[rate]]), steps) <= steps


@given(st.floats(0.001, 1e12))
def test_the_ceiling_is_the_next_power_of_ten(rate: float) -> None:
    top = ceiling([[0.0], [rate]])
    assert rate <= top * (1 + 1e-6)
    assert top < rate * 10.001


@given(st.integers(1, 700), st.integers(1, 300))
def test_the_newest_is_in_the_window_and_most_of_the_room_is_used(ticks: int, cells: int) -> None:
    out = Heat()
    out.tick = ticks
    first, end = out.window(cells)
    assert end == ticks
    assert 0 < end - first <= min(cells, COLUMNS)
    if ticks > cells:
        assert end - first > min(cells, COLUMNS) * 3 // 4 - 1


def test_columns_keep_their_cells_until_the_room_is_full() -> None:
    starts = []
    out = Heat()
    for tick in range(1, 161):
        out.tick = tick
        starts.append(out.window(40)[0])
    # A move is by ten columns, and there are ten frames or more between two.
    assert starts[39] == 0
    assert sorted(set(starts)) == list(range(0, 121, 10))
    assert all(starts.count(start) >= 10 for start in set(starts) - {starts[-1]})


def test_targets_that_come_late_and_go() -> None:
    out = Heat()
    for tick in range(5):
        spent = {"a": {histogram.index(1100): 1}}
        if tick in (3, 4):
            spent["b"] = {histogram.index(5000): 2}
        out.add(Moment(tick, 1.0), spent)
    assert out.rates("b", 0, 40, 16, 1) == [[0, 0, 0, 2.0, 2.0]]
    assert out.rates("b", 4, 40, 16, 1) == [[2.0]]
    assert out.extent("b") == (49, 50)
    out.add(Moment(5, 1.0), {"a": {}})
    assert out.extent("b") is None
    assert out.extent("a") == (40, 41)


def test_a_hundred_targets_over_all_columns_are_a_few_megabytes() -> None:
    out = Heat()
    buckets = {histogram.index(1000 << at // 4): 7 for at in range(64)}
    for tick in range(COLUMNS):
        out.add(Moment(tick, 1.0), {"only": buckets})
    size = sum([sys.getsizeof(column) for column in out._columns["only"]])
    assert 100 * size < 8e6


def row(durations: dict[int, int]) -> TargetRow:
    buckets = {histogram.index(value): n for value, n in durations.items()}
    n = sum(durations.values())
    p50, p90, p99 = [histogram.percentile(buckets, f) for f in (0.5, 0.9, 0.99)]
    spent = Histogram(buckets, n, sum([v * k for v, k in durations.items()]))
    return TargetRow(Target(spec="t"), n, spent, p50, p90, p99)


def test_a_histogram_with_its_percentiles() -> None:
    durations = {1100: 600, 4100: 380, 16000: 20}
    lines = histogram_lines(row(durations), SCALE, [("title", "")], 47, 8, PLAIN)
    drawn = text(lines)
    assert drawn[0] == "title"
    # The axis is 40 cells for four powers of two: 1100 ns are at a tenth of the first.
    tops = [at for at, char in enumerate(drawn[4][7:]) if char in ":|#"]
    assert tops == [0, 1, 20]
    assert drawn[5][7 + 39] == "."
    assert drawn[6] == "      +" + axis({1: "^p50", 20: "^p90", 39: "^"})
    assert drawn[7].split() == ["2us", "5us", "10us"]


def axis(marks: dict[int, str]) -> str:
    drawn = ["-"] * 40
    for cell in (9, 22, 32):
        drawn[cell] = "+"
    for cell, word in marks.items():
        drawn[cell : cell + len(word)] = word
    return "".join(drawn)


def test_percentiles_that_stand_close_have_shorter_names_or_none() -> None:
    def marks(durations: dict[int, int]) -> str:
        return text(histogram_lines(row(durations), SCALE, [], 47, 8, PLAIN))[6][7:]

    assert marks({1100: 100}) == axis({1: "^p99"})
    assert marks({1100: 60, 1400: 35, 6100: 5}) == axis({1: "^50^p90", 25: "^p99"})
    assert marks({}) == axis({})


@given(
    st.dictionaries(st.integers(1, 2**45), st.integers(1, 10**6), max_size=20),
    st.integers(20, 200),
    st.integers(5, 40),
)
def test_drawings_fit(durations: dict[int, int], width: int, height: int) -> None:
    warmth = heat([durations] * 3)
    extent = warmth.extent("t") or (0, 16)
    scale = Scale(extent[0] // 4 * 4, max(extent[1], extent[0] // 4 * 4 + 16))
    for lines in (
        heat_lines(warmth, "t", scale, width, height, Theme(many=True)),
        histogram_lines(row(durations), scale, [("x", "")], width, height, Theme()),
    ):
        assert len(lines) == height
        assert all(line_width(line) <= width for line in lines)


def test_colours_by_what_the_terminal_has() -> None:
    warmth = heat([{1100: 1000}])
    cell = {}
    for name, theme in (
        ("many", Theme(many=True)),
        ("few", Theme()),
        ("none", Theme(colour=False)),
        ("plain", PLAIN),
    ):
        line = compose(heat_lines(warmth, "t", SCALE, 40, 6, theme)[4], 40)
        cell[name] = to_cells(line)[7]
    assert cell == {
        "many": (" ", "heat8"),
        "few": ("█", "heat.red"),
        "none": ("█", ""),
        "plain": ("@", ""),
    }
    for steps in (Theme().heat, Theme(many=True).heat, PLAIN.heat):
        assert len(set(steps)) == len(steps)
    for theme in (Theme(), Theme(many=True)):
        assert all(theme.style(style) is not None for _, style in theme.heat)
