# SPDX-License-Identifier: Apache-2.0
"""A replayed Frame is drawn as the live one was, cell by cell, whatever the Frames are."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probes.core.frame import Frame
from probes.recording.file import Reader
from probes.recording.history import History
from probes.recording.index import Recording
from probes.recording.timeline import Timeline
from tests.pilot.fake import FakeSource
from tests.unit import strategies as own
from tests.unit.probes.recording.test_recording import write
from tui.panes.base import Pane
from tui.registry import REGISTRY
from tui.sessions.timeline_player import LINGERING, TimelinePlayer
from tui.shared.styled_lines import Cell, compose, to_cells
from tui.shared.theme import Theme
from tui.widgets.pane import title_line

SIZES = ((80, 24), (120, 40))
Drawn = list[list[Cell]]


def new_panes() -> list[Pane]:
    return [entry.pane_class()() for entry in REGISTRY]


def drawn(panes: Sequence[Pane]) -> Drawn:
    """All cells of all panes, each of them as large as the screen."""
    out: Drawn = []
    for width, height in SIZES:
        for entry, pane in zip(REGISTRY, panes, strict=True):
            lines = [
                title_line(pane, entry, width, True, Theme()),
                *pane.lines(width, height, True),
            ]
            out += [to_cells(compose(line, width)) for line in lines]
    return out


def followed(frames: Sequence[Frame], window: float | None) -> list[Drawn]:
    """What the panes show of Frames that come one by one."""
    history, panes = History(), new_panes()
    player = TimelinePlayer(history, panes)
    player.window = window
    out = []
    for frame in frames:
        history.add(frame)
        player.follow(frame)
        out.append(drawn(panes))
    return out


def stepped(timeline: Timeline, window: float | None) -> list[Drawn]:
    """What they show while somebody goes through a Timeline, from its second Frame on."""
    panes = new_panes()
    player = TimelinePlayer(timeline, panes)
    player.window = window
    out = []
    for number in range(timeline.first + 1, timeline.end):
        player.go(number)
        out.append(drawn(panes))
    return out


def jumped(timeline: Timeline, number: int, window: float | None) -> Drawn:
    """What they show after one jump."""
    panes = new_panes()
    player = TimelinePlayer(timeline, panes)
    player.window = window
    player.go(number)
    return drawn(panes)


def compare(frames: list[Frame], window: float | None) -> None:
    live = followed(frames, window)
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "a.ptrec", frames)
        with Reader(path) as reader:
            decoded = list(reader)
        recording = Recording(path)
        history = History()
        for frame in frames:
            history.add(frame)
        assert decoded == frames
        assert followed(decoded, window) == live
        # Rows of nearly equal rates stand as they stood: a jump knows that of a few Frames.
        for timeline in (recording, history):
            assert stepped(timeline, window) == live[1:]
            assert jumped(timeline, len(frames) - 1, window) == live[-1]
        recording.close()


def in_order(frames: Sequence[Frame]) -> list[Frame]:
    """The same Frames a second apart."""
    return [replace(f, mono=50.0 + at, time=1.7e9 + at) for at, f in enumerate(frames)]


windows = st.sampled_from([None, 10.0, float("inf")])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(own.frames, min_size=2, max_size=4), windows)
def test_any_frames_are_drawn_alike(frames: list[Frame], window: float | None) -> None:
    compare(in_order(frames), window)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 40), st.integers(2, LINGERING + 1), st.booleans(), windows)
def test_a_machines_frames_are_drawn_alike(
    start: int, many: int, latency: bool, window: float | None
) -> None:
    source = FakeSource()
    source.tick, source.latency = start, latency
    compare([source.frame() for _ in range(many)], window)
