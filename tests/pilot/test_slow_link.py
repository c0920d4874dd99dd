# SPDX-License-Identifier: Apache-2.0
"""A terminal that is slow: which Frames are drawn, what is left out, and how it comes back."""

from __future__ import annotations

import time

import pytest

from tests.pilot.conftest import Run, footer, screen, shown
from tests.pilot.fake import FakeSource
from tests.pilot.snapshot import assert_snapshot
from tests.pilot.test_screen import tick_bytes
from tui.app.app import ProbetopApp
from tui.terminal.link_quality import CALM
from tui.terminal.messages import WriterIdle
from tui.terminal.writer import NO_STALL, Stall, TerminalWriter

GRAPHS = set("▁▂▃▄▅▆▇█▏▎▍▌▋▊▉")


class FakeWriter(TerminalWriter):
    """A wire that is busy when the test says so, and a clock that the test puts forward."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.busy = self.asked = False
        self.now = time.monotonic() + 1
        self.stalled = 0.0

    def ask_idle(self) -> bool:
        self.asked |= self.busy
        return not self.busy

    def stall(self) -> Stall:
        return Stall(self.now - self.stalled, self.stalled) if self.stalled else NO_STALL


def with_writer(app: ProbetopApp) -> FakeWriter:
    """The application on a wire and a clock of the test's."""
    writer = app.controllers.slow_link.writer = FakeWriter()
    app.controllers.slow_link.link.clock = lambda: writer.now
    return writer


def clock(app: ProbetopApp) -> str:
    """The time in the header."""
    return screen(app)[0].split()[-1]


def drawings(app: ProbetopApp) -> set[str]:
    """Characters of graphs and bars on the screen."""
    return GRAPHS & set("".join(screen(app)))


async def test_a_frame_waits_for_the_terminal_and_the_newest_is_drawn(run: Run) -> None:
    async with run(120, 40, 5) as (app, pilot, source):
        writer = with_writer(app)
        was = clock(app)
        writer.busy = True
        for _ in range(10):
            source.push()
            await pilot.pause()
        assert clock(app) == was
        assert writer.asked
        assert app.view.player.behind
        writer.busy = False
        app.post_message(WriterIdle())
        await pilot.pause()
        assert int(clock(app)[-2:]) == int(was[-2:]) + 10
        assert not app.view.player.behind


async def test_frames_that_are_not_drawn_are_in_the_graphs_and_lists(run: Run) -> None:
    seen: list[list[str]] = []
    for busy in (False, True):
        async with run(120, 40, 5) as (app, pilot, source):
            writer = with_writer(app)
            for at in range(8):
                writer.busy = busy and at < 7
                source.push()
                await pilot.pause()
            seen.append(screen(app))
    # Rates are of the last interval either way; only rows that went quiet age differently.
    drawn, held = ["\n".join(lines[:4]) for lines in seen]
    assert held == drawn
    assert [line[-40:] for line in seen[0][:18]] == [line[-40:] for line in seen[1][:18]]


async def test_a_terminal_that_blocks_gets_fewer_frames_without_graphs(run: Run) -> None:
    async with run(120, 40, 20) as (app, pilot, source):
        writer = with_writer(app)
        assert drawings(app)
        writer.stalled = 1.0
        source.push()
        await pilot.pause()
        writer.stalled = 0.0
        assert "slow link" in screen(app)[0]
        assert not drawings(app)
        assert "all frames" in footer(app)
        assert "recvfrom" in shown(app, "syscalls")
        was, drawn = clock(app), 0
        for _ in range(8):
            writer.now += 1
            source.push()
            await pilot.pause()
            drawn += clock(app) != was
            was = clock(app)
        assert drawn == 4
        writer.now += CALM
        for _ in range(2):
            writer.now += 1
            source.push()
            await pilot.pause()
        assert "slow link" not in screen(app)[0]
        assert drawings(app)


async def test_the_key_turns_it_on_and_off(run: Run) -> None:
    async with run(120, 40, 20) as (app, pilot, _):
        with_writer(app)
        await pilot.press("b")
        await pilot.pause()
        assert "slow link: a frame every 2 s" in footer(app)
        assert not drawings(app)
        assert_snapshot(app, "slow-link-120x40")
        await pilot.press("b")
        await pilot.pause()
        assert drawings(app)
        assert "until the terminal blocks" in footer(app)


async def test_at_80x24_there_is_room_to_say_so(run: Run) -> None:
    async with run(80, 24, 20) as (app, pilot, _):
        with_writer(app)
        await pilot.press("b")
        await pilot.pause()
        assert "slow link" in screen(app)[0]
        app.controllers.announcer.hush()
        await pilot.pause()
        assert_snapshot(app, "slow-link-80x24")


@pytest.mark.parametrize("key", ["space", "left"])
async def test_pause_and_past_go_on_on_a_slow_link(run: Run, key: str) -> None:
    async with run(120, 40, 20) as (app, pilot, source):
        writer = with_writer(app)
        for _ in range(10):
            source.push()
            await pilot.pause()
        await pilot.press("b", key)
        await pilot.pause()
        word = "PAUSED" if key == "space" else "PAST"
        assert word in screen(app)[0]
        for _ in range(5):
            writer.now += 1
            source.push()
            await pilot.pause()
        assert word in screen(app)[0]
        await pilot.press("space" if key == "space" else "end")
        writer.now += 5
        source.push()
        await pilot.pause()
        assert word not in screen(app)[0]
        assert "slow link" in screen(app)[0]


async def test_what_keys_change_waits_for_the_terminal_too(run: Run) -> None:
    async with run(120, 40, 5) as (app, pilot, _):
        writer = with_writer(app)
        sent = 0

        def count(screen: object, renderable: object) -> None:
            nonlocal sent
            sent += renderable is not None

        app._display = count  # type: ignore[method-assign]
        writer.busy = True
        for _ in range(3000):
            app.dashboard._compositor._dirty_regions.add(app.size.region.shrink((0, 0, 1, 1)))
        await pilot.press("down", "down", "s")
        await pilot.pause(0.2)
        assert sent == 0
        assert app.dashboard._compositor._dirty_regions
        writer.busy = False
        app.post_message(WriterIdle())
        await pilot.pause(0.2)
        assert sent == 1
        assert not app.dashboard._compositor._dirty_regions


async def test_the_meter_is_the_first_to_go(run: Run) -> None:
    async with run(120, 40, 5) as (app, pilot, source):
        writer = with_writer(app)
        for _ in range(3):
            writer.now += 1
            writer.written += 2_700
            source.push()
            await pilot.pause()
        assert "sent  2.7 kB/s" in screen(app)[0]
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        assert "sent" not in screen(app)[0]


async def test_a_slow_link_needs_half_of_the_bytes_and_no_tick_many(run: Run) -> None:
    sizes: dict[bool, list[int]] = {}
    for slow in (False, True):
        source = FakeSource()
        source.latency = True
        async with run(120, 40, 60, source) as (app, pilot, _):
            with_writer(app)
            if slow:
                await pilot.press("b")
                await pilot.pause()
            sizes[slow] = [await tick_bytes(app, source) for _ in range(20)]
    assert max(sizes[False]) < 6000
    # Of every two Frames one is drawn.
    assert sum(sizes[True]) / 2 < sum(sizes[False]) / 2


async def test_what_a_pause_holds_is_drawn(run: Run) -> None:
    """The last Frame that a slow link put off: else the next repaint would show another."""
    async with run(120, 40, 5) as (app, pilot, source):
        await pilot.press("b")
        for _ in range(3):
            source.push()
            await pilot.pause()
        await pilot.press("space")
        await pilot.pause()
        held = screen(app)
        assert not app.view.player.behind
        app.dashboard.repaint()
        await pilot.pause()
        assert screen(app) == held
