# SPDX-License-Identifier: Apache-2.0
"""Travel: how much a jump and a step feed to the panes, and what is shown at the edges."""

from __future__ import annotations

from dataclasses import replace

import pytest

from probes.core.frame import Frame
from probes.recording.history import History
from probes.recording.timeline import Cursor
from tests.unit.probes.recording.test_recording import make_frames
from tui.panes.base import Pane
from tui.sessions.timeline_player import LINGERING, STEPS, TimelinePlayer


class Listener(Pane):
    """Remembers the Frames that it was given, by their moment."""

    name = "syscalls"

    def __init__(self) -> None:
        super().__init__()
        self.ticks: list[tuple[float | None, float]] = []
        self.shows: list[tuple[float | None, float]] = []
        self.resets = 0

    def tick(self, before: Frame | None, after: Frame) -> None:
        self.ticks.append((None if before is None else before.mono, after.mono))

    def show(self, since: Frame | None, after: Frame, passed: float = 0.0) -> None:
        super().show(since, after, passed)
        self.shows.append((None if since is None else since.mono, after.mono))

    def reset(self) -> None:
        super().reset()
        self.resets += 1
        self.ticks, self.shows = [], []


def travelled(count: int) -> tuple[TimelinePlayer, Listener]:
    history, pane = History(), Listener()
    for frame in make_frames(count):
        history.add(frame)
    return TimelinePlayer(history, [pane]), pane


def pairs(first: int, last: int) -> list[tuple[float | None, float]]:
    """Each moment from 50 + `first` to 50 + `last` seconds, with the one before it."""
    return [(49.0 + at, 50.0 + at) for at in range(first, last + 1)]


def test_a_jump_feeds_what_graphs_show_and_a_few_frames_to_tables() -> None:
    player, pane = travelled(100)
    player.drawn = 20
    player.go(80)
    first = 80 - LINGERING - 1 - 20
    assert pane.ticks == [(None, 50.0 + first), *pairs(first + 1, 80)]
    assert pane.shows == pairs(80 - LINGERING, 80)
    assert player.frame is not None
    assert player.before is not None
    assert (player.number, player.frame.mono, player.before.mono) == (80, 130.0, 129.0)


def test_going_on_feeds_each_frame_once_and_shows_the_last() -> None:
    player, pane = travelled(100)
    player.go(40)
    pane.ticks, pane.shows = [], []
    player.go(41)
    player.go(45)
    assert pane.ticks == pairs(41, 45)
    assert pane.shows == [(90.0, 91.0), (94.0, 95.0)]
    assert pane.resets == 1


@pytest.mark.parametrize("number", [39, 40, 41 + STEPS])
def test_back_the_same_or_far_ahead_is_a_jump(number: int) -> None:
    player, pane = travelled(100)
    player.go(40)
    player.go(number)
    assert pane.resets == 2
    assert pane.shows[-1] == (49.0 + number, 50.0 + number)


def test_numbers_beyond_the_ends_are_the_nearest_moment_with_one_before_it() -> None:
    player, pane = travelled(10)
    player.go(-5)
    assert (player.number, player.oldest) == (1, 1)
    assert pane.shows == [(None, 50.0), (50.0, 51.0)]
    player.go(99)
    assert player.number == 9
    alone, _ = travelled(1)
    alone.go(7)
    assert (alone.number, alone.oldest) == (0, 0)
    empty, _ = travelled(0)
    with pytest.raises(LookupError):
        empty.go(0)


def test_heavy_frames_are_fewer() -> None:
    player, _ = travelled(100)
    history = player.timeline
    assert isinstance(history, History)
    for chunk in history._chunks:
        chunk.light[:] = [part + bytes(1 << 17) for part in chunk.light]
    assert player._back(80, 100, 1 << 19) == 78


def test_following_after_a_look_back_goes_on_from_what_was_shown() -> None:
    player, pane = travelled(10)
    frames = [Cursor(player.timeline).frame(number) for number in range(10)]
    player.follow(frames[8])
    player.follow(frames[9])
    assert (player.number, player.now()) == (None, 9)
    player.go(3)
    assert player.now() == 3
    player.go(9)
    later = replace(frames[9], mono=60.0)
    player.follow(later)
    assert (player.number, pane.shows[-1]) == (None, (59.0, 60.0))
    player.follow(frames[2])
    assert pane.shows == [(None, 52.0)]


def test_what_is_shown_may_be_changed_on_its_way() -> None:
    history, pane = History(), Listener()
    for frame in make_frames(10):
        history.add(frame)
    hidden = [False]

    def shown(frame: Frame) -> Frame:
        return replace(frame, samples={}) if hidden[0] else frame

    player = TimelinePlayer(history, [pane], shown)
    player.go(5)
    assert pane.state == "on"
    hidden[0] = True
    player.again()
    assert pane.state == "off"
    assert player.number == 5
