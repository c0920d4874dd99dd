# SPDX-License-Identifier: Apache-2.0
"""What the screen looks like, and how little of it is painted again."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from probes.core.frame import Filters
from probes.core.sample import Sample
from tests.pilot.conftest import Run, screen, shown
from tests.pilot.fake import FakeSource, failed
from tests.pilot.snapshot import assert_snapshot
from tui.app.app import ProbetopApp

SIZES = [(80, 24), (120, 40), (200, 60)]


@pytest.mark.parametrize(("columns", "rows"), SIZES)
async def test_the_default_view(run: Run, columns: int, rows: int) -> None:
    async with run(columns, rows, ticks=60) as (app, _, _):
        assert all(len(line) <= columns for line in screen(app))
        assert_snapshot(app, f"default-{columns}x{rows}")


@pytest.mark.parametrize(("columns", "rows"), SIZES)
async def test_latency_drilled_into(run: Run, columns: int, rows: int) -> None:
    source = FakeSource()
    source.latency = True
    source.lost = 42
    async with run(columns, rows, 10, source) as (app, pilot, _):
        await pilot.press("down", "enter", "tab", "down", "enter")
        await pilot.pause()
        assert_snapshot(app, f"drilled-{columns}x{rows}")


async def test_failed_and_starting(run: Run) -> None:
    source = FakeSource()
    source.states = {"syscalls": failed(Sample()), "execs": Sample(state="starting")}
    async with run(80, 24, 2, source) as (app, _, _):
        assert "failed" in shown(app, "syscalls")
        assert "EPERM" in shown(app, "syscalls")
        assert "starting" in shown(app, "execs")
        assert_snapshot(app, "failed-80x24")


async def test_help(run: Run) -> None:
    async with run(80, 24) as (app, pilot, _):
        await pilot.press("question_mark")
        await pilot.pause()
        assert_snapshot(app, "help-80x24")


async def test_ascii(run: Run) -> None:
    async with run(80, 24, ascii=True) as (app, _, _):
        text = "\n".join(screen(app))
        assert text.isascii()
        assert "= 1 System calls =" in text
        assert_snapshot(app, "ascii-80x24")


@pytest.mark.parametrize("live", [True, False])
async def test_data_that_is_not_live_is_marked(run: Run, live: bool) -> None:
    source = FakeSource("incident.ptrec")
    source.live = live
    async with run(120, 40, 2, source) as (app, _, _):
        assert ("incident.ptrec" in screen(app)[0]) is not live


async def test_no_color_sends_no_colour(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with run() as (app, pilot, _):
        await pilot.press("slash", "x", "escape")
        strips = app.dashboard._compositor.render_strips()
        styles = {segment.style for strip in strips for segment in strip if segment.style}
        assert styles
        for style in styles:
            assert style.color is None or style.color.is_default
            assert style.bgcolor is None or style.bgcolor.is_default


async def test_an_unchanged_frame_paints_the_clock_and_the_graphs_only(run: Run) -> None:
    source = FakeSource()
    async with run(80, 24, 3, source) as (app, pilot, _):
        still = source.frame().samples
        source.states = dict(still)
        for _ in range(20):
            source.push()
            await pilot.pause()
        before = painted(app)
        source.push()
        await pilot.pause()
        # At 80x24 there is no room for graphs; of the clock, seconds and perhaps minutes move.
        spent = {name: count - before[name] for name, count in painted(app).items()}
        assert spent["pane-syscalls"] == 0
        assert 1 <= spent["header"] <= 8
        assert spent["footer"] == 0


async def test_a_changed_frame_paints_less_than_half_of_the_cells(run: Run) -> None:
    async with run(120, 40, 60) as (app, pilot, source):
        before = sum(painted(app).values())
        for _ in range(10):
            source.push()
            await pilot.pause()
        per_tick = (sum(painted(app).values()) - before) / 10
        assert 0 < per_tick < 120 * 40 / 2


async def test_bytes_of_a_tick_are_the_same_each_time_and_few(run: Run) -> None:
    sizes: list[list[int]] = []
    for _ in range(2):
        async with run(120, 40, 20) as (app, _, source):
            sizes.append([await tick_bytes(app, source) for _ in range(10)])
    assert sizes[0] == sizes[1]
    assert 100 < sum(sizes[0]) / 10 < 5000


async def tick_bytes(app: ProbetopApp, source: FakeSource) -> int:
    """Shows one Frame, and measures what the terminal would get for it."""
    app.controllers.drawing.show(source.frame())
    compositor = app.dashboard._compositor
    compositor.update_widgets({app.dashboard.header, app.dashboard.footer, *app.dashboard.panes})
    update = compositor.render_partial_update()
    assert update is not None
    text = update.render_segments(app.console)
    assert not re.search("\x1b\\[[0-9;]*[34]8;2;", text), "no colours that not all terminals have"
    return len(text.encode())


def painted(app: ProbetopApp) -> dict[str, int]:
    """Cells repainted so far, by widget."""
    widgets = [app.dashboard.header, *app.dashboard.panes, app.dashboard.footer]
    return {widget.id or "": widget.painted for widget in widgets}


def test_textual_is_slowed_down_before_it_is_imported() -> None:
    code = (
        "import tui.app.app; from textual import constants as c; "
        "print(c.MAX_FPS, c.TEXTUAL_ANIMATIONS)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["15", "none"]


async def test_the_header_keeps_whatever_fits(run: Run) -> None:
    source = FakeSource()
    source.filters = Filters(cgroup="/system.slice/shop.service")
    async with run(80, 24, 2, source) as (app, _, _):
        head = screen(app)[0]
        assert "only cgroup=/system" in head
        # What the probes cost matters more than the host, but there is no room for it.
        assert "%cpu" not in head
        assert "web-3" in head
