# SPDX-License-Identifier: Apache-2.0
"""The header on the budget: how much is used; what was given up is never left out."""

from __future__ import annotations

import pytest

from probes.samples import Budget, ExecSample, Frame, Host, LatencySample, SyscallSample
from tui.look import Look
from tui.widgets.header import HeaderState, header_line

FRAME = Frame(
    time=0.0,
    mono=1.0,
    interval=1.0,
    host=Host("web-3", "6.18.44", "x86_64", 2),
    budget=Budget(2.0, 0.314),
)


def text(frame: Frame, width: int = 160) -> str:
    return "".join([span for span, _ in header_line(HeaderState(frame=frame), width, Look())])


def test_used_stands_beside_the_budget() -> None:
    assert "budget 0.3/2 %" in text(FRAME)


@pytest.mark.parametrize("budget", [None, Budget(2.0, None)])
def test_nothing_is_said_where_nothing_is_known(budget: Budget | None) -> None:
    frame = Frame(time=0.0, mono=1.0, interval=1.0, host=FRAME.host, budget=budget)
    assert "budget" not in text(frame)


def test_what_was_given_up_is_in_the_narrowest_header() -> None:
    samples = {
        "syscalls": SyscallSample(state="on", given_up="timed 1 in 16"),
        "execs": ExecSample(state="on"),
        "latency": LatencySample(state="on", given_up="2 targets given up"),
    }
    frame = Frame(time=0.0, mono=1.0, interval=1.0, host=FRAME.host, samples=samples)
    assert "syscalls timed 1 in 16 +1" in text(frame, 80)
    assert "syscalls timed 1 in 16 +1" in text(frame, 60)
