# SPDX-License-Identifier: Apache-2.0
"""Replaying: the recorded Frames, in order, with keys that work as far as they can."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from probes.core.errors import ProbeError
from probes.core.frame import NO_FILTERS, Frame
from probes.execs.sample import ExecSample
from probes.recording.replay import ReplaySource
from probes.syscalls.sample import SyscallSample
from tests.unit.probes.recording.test_recording import make_frames, write

WAIT = 20.0
"""Seconds until a test that waits for a thread gives up."""


class Screen:
    """Takes Frames as the dashboard does, and lets a test wait for them."""

    def __init__(self, wanted: int) -> None:
        self.frames: list[Frame] = []
        self.end: list[str] = []
        self.wanted = wanted
        self.enough = threading.Event()
        self.ended = threading.Event()

    def on_frame(self, frame: Frame) -> None:
        self.frames.append(frame)
        if len(self.frames) >= self.wanted:
            self.enough.set()

    def on_end(self, why: str) -> None:
        self.end.append(why)
        self.ended.set()


@contextmanager
def playing(source: ReplaySource, screen: Screen, seconds: float = 0.02) -> Iterator[None]:
    source.set_interval(seconds)
    source.start(screen.on_frame, screen.on_end)
    try:
        yield
    finally:
        source.stop()


def test_plays_every_frame_as_recorded_and_says_that_it_ended(tmp_path: Path) -> None:
    frames = make_frames(5)
    source = ReplaySource(write(tmp_path / "a.ptrec", frames))
    screen = Screen(5)
    assert source.live is False
    assert source.title == "replay of a.ptrec"
    with playing(source, screen):
        assert screen.ended.wait(WAIT)
    assert screen.frames == frames
    assert screen.end == ["The recording ends after 5 frames."]


def test_loop_goes_on_with_another_generation_and_rising_mono(tmp_path: Path) -> None:
    frames = make_frames(3)
    screen = Screen(7)
    with playing(ReplaySource(write(tmp_path / "a", frames), loop=True), screen):
        assert screen.enough.wait(WAIT)
    shown = screen.frames[:7]
    assert [f.time for f in shown] == [f.time for f in [*frames, *frames, frames[0]]]
    assert [f.mono - 50 for f in shown] == [0, 1, 2, 3, 4, 5, 6]
    assert [f.samples["syscalls"].generation for f in shown] == [0, 0, 0, 1, 1, 1, 2]
    assert screen.end == []


def test_a_hidden_probe_is_off_and_comes_back_without_a_jump(tmp_path: Path) -> None:
    source = ReplaySource(write(tmp_path / "a", make_frames(6)), loop=True)
    screen = Screen(2)
    source.toggle("execs", False)
    with playing(source, screen):
        assert screen.enough.wait(WAIT)
        source.toggle("execs", True)
        screen.enough.clear()
        screen.wanted = len(screen.frames) + 2
        assert screen.enough.wait(WAIT)
    hidden, shown = screen.frames[0].samples["execs"], screen.frames[-1].samples["execs"]
    assert isinstance(hidden, ExecSample)
    assert isinstance(shown, ExecSample)
    assert (hidden.state, hidden.events, hidden.execs) == ("off", (), 0)
    assert (shown.state, len(shown.events)) == ("on", 1)
    other = screen.frames[0].samples["syscalls"]
    assert isinstance(other, SyscallSample)
    assert other.state == "on"


COMMANDS: list[tuple[str, tuple[object, ...]]] = [
    ("set_option", ("syscalls", "latency", True)),
    ("set_filters", (NO_FILTERS,)),
    ("set_interval", (0,)),
    ("set_interval", (float("nan"),)),
    ("toggle", ("pmc", True)),
]


@pytest.mark.parametrize(("command", "arguments"), COMMANDS)
def test_what_is_past_cannot_be_changed(
    tmp_path: Path, command: str, arguments: tuple[object, ...]
) -> None:
    source = ReplaySource(write(tmp_path / "a", make_frames(2)))
    with pytest.raises(ProbeError) as caught:
        getattr(source, command)(*arguments)
    assert caught.value.fix
    source.stop()


def test_stop_ends_a_long_wait_and_nothing_follows(tmp_path: Path) -> None:
    source = ReplaySource(write(tmp_path / "a", make_frames(3)))
    screen = Screen(1)
    with playing(source, screen, 3600.0):
        assert screen.enough.wait(WAIT)
    assert len(screen.frames) == 1
    assert screen.end == []
    assert not any(thread.name == "replay" for thread in threading.enumerate())


def test_stop_before_start_and_twice(tmp_path: Path) -> None:
    source = ReplaySource(write(tmp_path / "a", make_frames(1)))
    source.stop()
    source.stop()


def test_damage_is_said_at_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a", make_frames(4))
    path.write_bytes(path.read_bytes()[:-3])
    screen = Screen(3)
    with playing(ReplaySource(path), screen):
        assert screen.ended.wait(WAIT)
    assert len(screen.frames) == 3
    assert "after 3 frames; the recording is damaged in 1 place" in screen.end[0]


def test_a_recording_without_frames_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a", [])
    with pytest.raises(ProbeError, match="the recording is empty"):
        ReplaySource(path)
    path.write_bytes(path.read_bytes() + b"\xf5PTK damaged")
    with pytest.raises(ProbeError, match="damaged in 1 place: 12 bytes"):
        ReplaySource(path)
