# SPDX-License-Identifier: Apache-2.0
"""The header on the budget: how much is used; what was given up is never left out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from probes.core.frame import Frame, Host
from probes.core.sample import Budget
from probes.execs.sample import ExecSample
from probes.latency.sample import LatencySample
from probes.syscalls.sample import SyscallSample
from tui.shared.theme import Theme
from tui.widgets.header import HeaderState, header_line

FRAME = Frame(
    time=0.0,
    mono=1.0,
    interval=1.0,
    host=Host("web-3", "6.18.44", "x86_64", 2),
    budget=Budget(2.0, 0.314),
)


def text(frame: Frame, width: int = 160) -> str:
    return "".join([span for span, _ in header_line(HeaderState(frame=frame), width, Theme())])


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


SAMPLING = "sampling 1 s in 16: over 2 % CPU (probe 15 %)"
TARGETS, SCREEN = "latency 2 targets given up", "screen 1 frame in 2"
REDUCED = Frame(
    time=0.0,
    mono=1.0,
    interval=1.0,
    host=FRAME.host,
    samples={
        "syscalls": SyscallSample(state="on", given_up=SAMPLING),
        "latency": LatencySample(state="on", given_up="2 targets given up"),
    },
    budget=Budget(2.0, 3.1, drawing=2),
)


@pytest.mark.parametrize(
    ("width", "words"),
    [
        (180, f" syscalls {SAMPLING}, {TARGETS}, {SCREEN}   B: budget off for 60 s"),
        (140, f" syscalls sampling 1 s in 16, {TARGETS}, {SCREEN}   B: budget off for 60 s"),
        (120, f" syscalls sampling 1 s in 16, {TARGETS}, {SCREEN}   B lifts it"),
        (90, " syscalls sampling 1 s in 16 +2   B: budget off for 60 s"),
        (80, " syscalls sampling 1 s in 16 +2   B lifts it"),
        (64, " syscalls sampling 1 s in 16 +2 "),
    ],
)
def test_the_header_says_what_is_reduced_and_which_key_lifts_it(width: int, words: str) -> None:
    line = header_line(HeaderState(frame=REDUCED, lifts=True), width, Theme())
    shown = "".join([span for span, _ in line])
    assert words in shown
    assert shown.rstrip().endswith("00:00:00")
    assert len(shown.rstrip()) <= width


def test_the_key_is_named_only_where_it_lifts_something() -> None:
    def shown(frame: Frame, lifts: bool) -> str:
        state = HeaderState(frame=frame, lifts=lifts)
        return "".join([span for span, _ in header_line(state, 200, Theme())])

    assert "B:" in shown(REDUCED, True)
    assert "B:" not in shown(REDUCED, False)
    assert "B:" not in shown(FRAME, True)


def test_fewer_frames_on_the_screen_are_said_as_well() -> None:
    frame = replace(FRAME, budget=Budget(2.0, 3.1, drawing=5))
    assert "screen 1 frame in 5" in text(frame, 80)


def test_while_the_budget_is_off_the_header_says_for_how_long_and_nothing_moves() -> None:
    lines = [text(replace(REDUCED, budget=Budget(2.0, 3.1, lifted=left)), 80) for left in (41.2, 9)]
    assert " budget off for 41 s " in lines[0]
    assert " budget off for  9 s " in lines[1]
    assert [line.index(" lost 0") for line in lines] == [lines[0].index(" lost 0")] * 2
