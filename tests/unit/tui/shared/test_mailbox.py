# SPDX-License-Identifier: Apache-2.0
"""A mailbox that nobody empties for an hour holds one Frame, and counts what it had to forget."""

from __future__ import annotations

from probes.core.frame import Frame, Host
from probes.execs.sample import MAX_EVENTS, ExecEvent, ExecSample
from tui.shared.frame_mailbox import Mailbox

EACH = 100


def frame(number: int) -> Frame:
    """A Frame of so many programs."""
    events = tuple(
        ExecEvent(
            time=number + at / EACH,
            pid=number * EACH + at,
            ppid=1,
            uid=0,
            comm="true",
            parent="sh",
            args=("true",),
            truncated=False,
            ret=0,
            cgroup="/",
        )
        for at in range(EACH)
    )
    execs = ExecSample(state="on", generation=1, execs=(number + 1) * EACH, events=events)
    return Frame(
        time=number, mono=number, interval=1.0, host=Host("", "", "", 1), samples={"execs": execs}
    )


def test_an_hour_of_frames_is_one_and_bounded() -> None:
    box = Mailbox()
    news = [box.put(frame(second)) for second in range(3600)]
    assert news == [True] + [False] * 3599
    taken = box.take()
    assert taken is not None
    sample = taken.samples["execs"]
    assert isinstance(sample, ExecSample)
    assert len(sample.events) == MAX_EVENTS
    assert sample.dropped == 3600 * EACH - MAX_EVENTS
    assert sample.execs == 3600 * EACH
    assert [event.pid for event in sample.events] == list(
        range(3600 * EACH - MAX_EVENTS, 3600 * EACH)
    )
    assert box.take() is None
    assert box.put(frame(1))
