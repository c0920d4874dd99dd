# SPDX-License-Identifier: Apache-2.0
"""The axis of graphs is time: what was not counted, or not told, leaves a gap as long as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from probes.core.frame import Frame, Host
from probes.core.sample import EMPTY, Counts, Sample
from probes.execs.sample import ExecSample
from probes.syscalls.sample import SyscallSample
from tests.unit.pmc_feed import Feed
from tui.export.graphs import INNER, LEFT, chart, heatmap, spans
from tui.panes.base import Pane
from tui.panes.execs import ExecPane
from tui.panes.rates import OverTime, mean
from tui.panes.syscalls import SyscallPane
from tui.shared.styled_lines import line_text


def frame(mono: float, interval: float = 1.0, samples: Mapping[str, Sample] = EMPTY) -> Frame:
    return Frame(
        time=1.7e9 + mono, mono=mono, interval=interval, host=Host("web-3"), samples=samples
    )


def calls(tick: int) -> SyscallSample:
    return SyscallSample(state="on", counted=float(tick), calls={"read": Counts(100 * tick, 0)})


def execs(tick: int) -> ExecSample:
    return ExecSample(state="on", counted=float(tick), execs=100 * tick)


def feed(pane: Pane, samples: Sequence[tuple[float, Sample]]) -> list[float | None]:
    """What a pane's graph holds after these Samples at these moments."""
    last: Frame | None = None
    for mono, sample in samples:
        now = frame(mono, samples={pane.name: sample})
        pane.update(last, now)
        last = now
    return list(pane.history.values)


@pytest.mark.parametrize(("pane", "made"), [(SyscallPane, calls), (ExecPane, execs)])
def test_a_probe_that_was_off_for_ten_seconds_leaves_a_gap_of_ten_seconds(
    pane: type[Pane], made: Any
) -> None:
    off = type(made(0))
    shown = pane()
    found = feed(
        shown,
        [
            *[(tick, made(tick)) for tick in range(4)],
            *[(tick, off()) for tick in range(4, 14)],
            *[(tick, made(tick)) for tick in range(14, 17)],
        ],
    )
    assert found == [None, 100, 100, 100, *[None] * 10, *found[14:]]
    assert found[-2:] == [100, 100]
    drawn = [line_text(line) for line in shown.lines(60, 20)[:2]]
    assert drawn[1].endswith(f"{drawn[1][-1] * 3}{' ' * 10}{drawn[1][-1] * 3}")


def test_frames_that_did_not_come_leave_a_gap_unless_counting_went_on() -> None:
    went_on = [(0, calls(0)), (1, calls(1)), (5, calls(5)), (6, calls(6))]
    assert feed(SyscallPane(), went_on) == [None, *[100] * 6]
    again = SyscallSample(state="on", generation=1, counted=1.0, calls={"read": Counts(100, 0)})
    assert feed(SyscallPane(), [(0, calls(0)), (1, calls(1)), (5, again)]) == [
        None, 100, None, None, None, 100,
    ]  # fmt: skip


def test_counters_have_gaps_too() -> None:
    feed = Feed()
    feed(4)
    feed(10, type(feed.fake.sample(1))())
    feed(3)
    values = feed.pane.past.of(None, 0)
    # The first after the gap has none before it to be compared with.
    assert [value is None for value in values] == [False] * 3 + [True] * 11 + [False] * 2


def test_another_interval_keeps_the_axis_one_of_time() -> None:
    past: OverTime[float] = OverTime(8, mean)
    for tick in range(1, 7):
        past.add(frame(tick), float(tick), 1.0)
    past.add(frame(8, 2.0), 9.0, 2.0)
    assert list(past.values) == [1.5, 3.5, 5.5, 9.0]
    past.add(frame(9, 1.0), 7.0, 1.0)
    assert list(past.values) == [1.5, 3.5, 3.5, 5.5, 5.5, 9.0, 9.0, 7.0]
    past.add(frame(1e6), 3.0, 1.0)
    assert list(past.values) == [None] * 7 + [3.0]


def test_exported_graphs_place_intervals_by_time() -> None:
    series = {"time": [1.0, 2.0, 12.0, 14.0], "seconds": [1.0, 1.0, 1.0, 2.0]}
    places = spans(series["time"], series["seconds"])
    assert places.starts == pytest.approx([0, 1 / 14, 11 / 14, 12 / 14])
    assert places.ends == pytest.approx([1 / 14, 2 / 14, 12 / 14, 1])
    drawn = chart("x", series, [("a", "line1", [1.0, 1.0, None, 1.0])])
    assert drawn is not None
    assert [hit.x for hit in drawn.hits] == [round(LEFT + INNER * at, 1) for at in places.starts]
    heat = {**series, "targets": {"t": [[[40, 1]], [], [[40, 1]], []]}}
    map_ = heatmap("t", "ns", heat)
    assert map_ is not None
    assert [(spot.x, spot.width) for spot in map_.spots] == [("0", "0.286"), ("3.143", "0.286")]


def test_a_clock_that_was_set_back_moves_nothing_back() -> None:
    places = spans([10.0, 11.0, 5.0, 6.0], [1.0] * 4)
    assert places.starts == pytest.approx([0, 0.25, 0.5, 0.75])
