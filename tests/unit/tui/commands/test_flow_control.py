# SPDX-License-Identifier: Apache-2.0
"""A link of so many bytes a second: what is on its way stays little, and nothing goes uncounted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from probes.core.frame import Frame, Host
from probes.execs.sample import MAX_EVENTS, ExecEvent, ExecSample
from tui.commands.flow_control import AHEAD, LEAST, FlowControl

EVENT = ExecEvent(
    time=0.0, pid=1, ppid=1, uid=0, comm="a", parent="b", args=("a",), truncated=False, ret=0,
    cgroup="/",
)  # fmt: skip
BLANK = Frame(time=0.0, mono=0.0, interval=1.0, host=Host())


def frame(events: int, since: int = 0) -> Frame:
    sample = ExecSample(state="on", execs=since + events, events=(EVENT,) * events)
    return replace(BLANK, samples={"execs": sample})


def execs(shown: Frame) -> ExecSample:
    sample = shown.samples["execs"]
    assert isinstance(sample, ExecSample)
    return sample


class Slow:
    """A far side that executes `rate` programs a second, behind a link of `speed` events."""

    def __init__(self, rate: int, speed: float) -> None:
        self.now = 0.0
        self.flow = FlowControl(lambda: self.now)
        self.rate, self.speed = rate, speed
        self.sent: list[ExecSample] = []
        self.took: list[float] = []
        self._waiting = self._done = 0

    def go(self, frames: int) -> None:
        for _ in range(frames):
            count = int(self.rate * (self.now + 1 - self._done))
            self._waiting, self._done = count, int(self.now + 1)
            self.now = max(self.now, float(self._done))
            sample = execs(self.flow.fit(frame(self._waiting)))
            self.sent.append(sample)
            took = 0.2 + len(sample.events) / self.speed
            self.now += took
            self.took.append(took)
            self.flow.arrived(len(self.sent))


def test_a_link_that_takes_all_gets_all() -> None:
    link = Slow(100, 10_000)
    link.go(20)
    assert link.flow.most == MAX_EVENTS
    assert sum(sample.dropped for sample in link.sent) == 0


@pytest.mark.parametrize("speed", [30.0, 100.0, 300.0])
def test_frames_of_a_slow_link_do_not_get_later_and_later(speed: float) -> None:
    link = Slow(1000, speed)
    link.go(60)
    assert max(link.took[20:]) < 2 * AHEAD
    dropped = sum(sample.dropped for sample in link.sent)
    kept = sum(len(sample.events) for sample in link.sent)
    assert dropped > 0
    assert kept > 60 * LEAST / 2


def test_what_is_left_out_is_counted_and_the_newest_stay() -> None:
    flow = FlowControl()
    flow.most = 3
    first, last = replace(EVENT, pid=7), replace(EVENT, pid=8)
    sample = ExecSample(state="on", events=(first, EVENT, EVENT, last), dropped=2)
    shown = execs(flow.fit(replace(BLANK, samples={"execs": sample})))
    assert shown.events == (EVENT, EVENT, last)
    assert shown.dropped == 3


def test_a_link_that_was_slow_gets_all_again() -> None:
    link = Slow(1000, 50.0)
    link.go(20)
    assert link.flow.most < 200
    link.speed = 100_000.0
    link.go(40)
    assert link.sent[-1].dropped == 0


def test_an_end_that_says_nothing_is_not_waited_for() -> None:
    now = [0.0]
    flow = FlowControl(lambda: now[0])
    flow.fit(frame(1))
    now[0] = 100.0
    full = [flow.full]
    for frames in (0, 1):
        flow.arrived(frames)
        full.append(flow.full)
    assert full == [False, True, False]


@pytest.mark.parametrize("frames", [-1, 3, 1 << 70])
def test_what_cannot_have_arrived(frames: int) -> None:
    flow = FlowControl()
    flow.fit(frame(1))
    with pytest.raises(ValueError, match=str(frames)):
        flow.arrived(frames)
