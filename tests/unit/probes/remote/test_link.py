# SPDX-License-Identifier: Apache-2.0
"""When the way to the terminal is slow, and that this does not swing."""

from __future__ import annotations

import pytest

from tui.terminal.link_quality import CALM, EVERY, LONGEST_CALM, PATIENCE, Link
from tui.terminal.writer import NO_STALL, Stall


class Time:
    """A link and a clock that is put forward."""

    def __init__(self) -> None:
        self.now = 0.0
        self.link = Link(lambda: self.now)

    def passes(self, seconds: float, stall: float = 0.0) -> None:
        """A second at a time; a stall of so many seconds ends at each."""
        for _ in range(round(seconds)):
            self.now += 1
            self.link.observe(Stall(self.now - stall, stall) if stall else NO_STALL)


@pytest.fixture
def time() -> Time:
    return Time()


def test_at_first_every_frame_is_drawn(time: Time) -> None:
    assert (time.link.slow, time.link.every, time.link.wait()) == (False, 0.0, 0.0)
    time.passes(100, stall=PATIENCE)
    assert not time.link.slow


def test_a_block_makes_it_slow_and_calm_ends_that(time: Time) -> None:
    time.passes(1, stall=0.3)
    assert (time.link.slow, time.link.every) == (True, EVERY[1])
    time.passes(CALM - 1)
    assert time.link.slow
    time.passes(1)
    assert not time.link.slow


def test_one_long_block_is_one_step(time: Time) -> None:
    began = time.now
    for _ in range(60):
        time.now += 1
        time.link.observe(Stall(began, time.now - began))
    assert (time.link.level, time.link.every) == (1, EVERY[1])


def test_what_blocks_when_it_is_slow_already_is_slower_and_comes_back_by_steps(time: Time) -> None:
    time.passes(1, stall=0.5)
    time.passes(5, stall=0.5)
    assert (time.link.level, time.link.every) == (2, EVERY[2])
    time.passes(CALM)
    assert time.link.level == 1
    time.passes(CALM)
    assert time.link.level == 0


def test_a_link_that_blocks_whenever_it_is_full_swings_less_and_less(time: Time) -> None:
    switches, slow = [], False
    for _ in range(3600):
        full = not time.link.slow
        time.passes(1, stall=0.4 if full else 0.0)
        if time.link.slow != slow:
            slow = time.link.slow
            switches.append(time.now)
    assert len(switches) < 40
    assert all(now - then <= 60 for then, now in zip(switches[1::2], switches[2::2], strict=False))
    assert time.link._calm == LONGEST_CALM


def test_a_block_long_after_the_last_is_no_relapse(time: Time) -> None:
    for _ in range(5):
        time.passes(1, stall=0.4)
        time.passes(CALM)
        assert not time.link.slow
        time.passes(500)


def test_the_key_goes_through_what_the_user_may_want(time: Time) -> None:
    def state() -> tuple[str, bool]:
        return time.link.mode, time.link.slow

    time.link.turn()
    assert state() == ("slow", True)
    time.passes(1000)
    assert state() == ("slow", True)
    time.link.turn()
    assert state() == ("auto", False)
    time.passes(1, stall=1.0)
    assert state() == ("auto", True)
    time.link.turn()
    assert state() == ("full", False)
    time.passes(100, stall=1.0)
    assert state() == ("full", False)
    time.link.turn()
    assert state() == ("slow", True)


def test_frames_have_their_time_apart(time: Time) -> None:
    link = time.link
    link.drew(None)
    assert link.wait() == 0.0
    link.turn()
    assert link.wait() == EVERY[1]
    time.now += 1.5
    assert link.wait() == pytest.approx(0.5)
    time.now += 5
    assert link.wait() == 0.0


def test_the_meter_is_of_the_time_since_the_last_frame(time: Time) -> None:
    def rate(written: int, seconds: float) -> float | None:
        time.now += seconds
        time.link.drew(written)
        return time.link.rate

    assert rate(1000, 0) is None
    assert rate(5000, 2) == 2000
    assert rate(5100, 0) == 2000, "drawn twice at a time: there is no rate of no time"
    assert rate(5100, 1) == 100
