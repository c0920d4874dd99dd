# SPDX-License-Identifier: Apache-2.0
"""The latency pane and the search dialog on the screen."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Sequence

import pytest
from textual.pilot import Pilot

from probes.core.errors import ProbeError
from probes.source import Found
from tests.pilot.conftest import Run, footer, screen, shown
from tests.pilot.fake import FakeSource
from tests.pilot.fake_latency import FOUND
from tests.pilot.snapshot import assert_snapshot
from tests.pilot.test_keys import tick, write
from tui.app.app import ProbetopApp
from tui.shared.keys import FIND

SIZES = [(80, 24), (120, 40), (200, 60)]


async def focus(app: ProbetopApp, pilot: Pilot[int], *keys: str) -> None:
    names = [widget.entry.name for widget in app.dashboard.panes]
    app.dashboard.set_pane(names.index("latency"))
    await pilot.press(*keys)
    await pilot.pause()


async def until(pilot: Pilot[int], so: Callable[[], bool]) -> None:
    """Waits for something that a timer or a thread brings about."""
    for _ in range(500):
        if so():
            return
        await pilot.pause(0.01)
    raise AssertionError("it did not come about")


def dialog(app: ProbetopApp) -> str:
    """The text of the search dialog, empty while it is closed."""
    finder = app.dashboard.finder
    return "\n".join([line.rstrip() for line in screen(app)]) if finder.display else ""


@pytest.mark.parametrize(("columns", "rows"), SIZES)
async def test_the_dashboard_with_latency(run: Run, columns: int, rows: int) -> None:
    async with run(columns, rows, ticks=90) as (app, pilot, _):
        await focus(app, pilot, "down")
        assert all(len(line) <= columns for line in screen(app))
        assert_snapshot(app, f"latency-{columns}x{rows}")


@pytest.mark.parametrize(("columns", "rows"), SIZES)
async def test_the_pane_on_the_whole_screen(run: Run, columns: int, rows: int) -> None:
    async with run(columns, rows, ticks=150) as (app, pilot, _):
        await focus(app, pilot, "z", "down")
        text = "\n".join(screen(app))
        for part in ("blockio", "calls in 1 s", "over time", "p50", "10ms"):
            assert part in text
        assert_snapshot(app, f"latency-zoomed-{columns}x{rows}")


async def test_drilled_into(run: Run) -> None:
    async with run(120, 40, ticks=60) as (app, pilot, _):
        await focus(app, pilot, "z", "enter")
        assert "3 Latency > runq" in screen(app)[1]
        assert "postgres" in shown(app, "latency")
        assert_snapshot(app, "latency-drilled-120x40")


@pytest.mark.parametrize("name", ["sixteen", "mono", "ascii"])
async def test_terminals_that_have_less(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("TERM", "xterm" if name == "sixteen" else "xterm-256color")
    if name == "mono":
        monkeypatch.setenv("NO_COLOR", "1")
    async with run(80, 24, ticks=90, ascii=name == "ascii") as (app, pilot, _):
        await focus(app, pilot, "z", "down")
        strips = app.dashboard._compositor.render_strips()
        styles = [segment.style for strip in strips for segment in strip if segment.style]
        colours = [c for style in styles for c in (style.color, style.bgcolor) if c is not None]
        if name == "mono":
            assert all(colour.is_default for colour in colours)
        assert all(colour.number is None or colour.number < 16 for colour in colours)
        if name == "ascii":
            assert "\n".join(screen(app)).isascii()
        assert_snapshot(app, f"latency-{name}-80x24")


async def test_a_tick_of_the_heatmap_is_one_column(run: Run) -> None:
    async with run(120, 40, ticks=100) as (app, pilot, source):
        await focus(app, pilot, "z", "v", "v")
        pane = app.dashboard.in_focus
        sizes = []
        for _ in range(40):
            app.controllers.drawing.show(source.frame())
            compositor = app.dashboard._compositor
            compositor.update_widgets({pane})
            update = compositor.render_partial_update()
            assert update is not None
            text = update.render_segments(app.console)
            assert not re.search("\x1b\\[[0-9;]*[34]8;2;", text), "no colours but the 256"
            sizes.append(len(text.encode()))
        # All cells move only when the room is full, or the scale of colours another.
        assert len([size for size in sizes if size > 1000]) <= 4
        assert max(sizes) > 3000


async def test_removing_a_target(run: Run) -> None:
    async with run(120, 40) as (app, pilot, source):
        await focus(app, pilot, "down", "delete")
        assert source.commands == [("set_option", "latency", "remove", "blockio")]
        assert "removing" in shown(app, "latency")
        await tick(pilot, source)
        assert "blockio" not in shown(app, "latency")
        source.errors["set_option"] = ProbeError("[red]no[/]", "this is a recording")
        await pilot.press("d")
        assert footer(app).startswith(" [red]no[/]: this is a recording")


async def test_finding_and_adding(run: Run) -> None:
    async with run(120, 40) as (app, pilot, source):
        await pilot.press("f")
        await until(pilot, lambda: "6 found" in dialog(app))
        assert source.queries == [""]
        # Keys are letters now, and the panes go on.
        await write(pilot, "qmalloc_")
        await pilot.press(*["left"] * 7, "backspace")
        await until(pilot, lambda: "1 found" in dialog(app))
        assert source.queries[-1] == "malloc_"
        assert app.is_running
        await tick(pilot, source)
        await pilot.press("enter")
        await pilot.pause()
        assert source.commands == [("set_option", "latency", "add", "uprobe:libc:malloc_trim")]
        assert dialog(app) == ""
        assert app.dashboard.in_focus.entry.name == "latency"
        await tick(pilot, source, 2)
        selected = app.dashboard.in_focus.pane.selected()  # type: ignore[attr-defined]
        assert selected.spec == "uprobe:libc:malloc_trim"


async def test_the_source_is_asked_once_for_what_is_typed_at_once(run: Run) -> None:
    async with run(120, 40) as (app, pilot, source):
        await pilot.press("f")
        app.dashboard.finder.paste("mal")
        app.dashboard.finder.paste("loc")
        await until(pilot, lambda: "2 found" in dialog(app))
        assert source.queries == ["", "malloc"]


async def test_answers_come_from_other_threads_and_late_ones_are_ignored(run: Run) -> None:
    class Slow(FakeSource):
        asked: list[tuple[str, Callable[[Sequence[Found]], None]]] = []  # noqa: RUF012

        def search(self, query: str, on_found: Callable[[Sequence[Found]], None]) -> None:
            self.asked.append((query, on_found))

    source = Slow()
    async with run(120, 40, 2, source) as (app, pilot, _):
        await pilot.press("f")
        app.dashboard.finder.paste("vfs")
        await until(pilot, lambda: len(source.asked) == 2)
        for query, on_found in reversed(source.asked):
            found = [FOUND[0] if not query else FOUND[2]]
            await asyncio.to_thread(on_found, found)
        await until(pilot, lambda: "1 found" in dialog(app))
        assert "vfs_read" in dialog(app)
        assert "libc.so" not in dialog(app)
        await pilot.press("escape")
        threading.Thread(target=source.asked[1][1], args=([FOUND[0]],)).start()
        await pilot.pause(0.05)
        assert dialog(app) == ""


async def test_what_goes_wrong_is_one_line_and_the_dialog_stays(run: Run) -> None:
    async with run(80, 24) as (app, pilot, source):
        source.errors["set_option"] = ProbeError("no symbol 'x' in [bold]libc\x1b[2J", "near: y")
        await pilot.press("f")
        app.dashboard.finder.paste("uprobe:libc:x")
        await pilot.press("enter")
        await pilot.pause()
        assert "no symbol 'x' in [bold]libc\\e[2J: near: y" in dialog(app)
        del source.errors["set_option"]
        await pilot.press("enter")
        assert source.commands[-1] == ("set_option", "latency", "add", "uprobe:libc:x")
        assert dialog(app) == ""
        source.errors["search"] = ProbeError("a recording cannot trace anything new")
        await pilot.press("f")
        await pilot.pause()
        assert "a recording cannot trace anything new" in dialog(app)
        await pilot.press("escape", "q")
        await pilot.pause()
        assert app._exit


async def test_adding_to_a_pane_that_is_off_switches_it_on(run: Run) -> None:
    async with run(80, 24) as (app, pilot, source):
        source.on["latency"] = False
        await tick(pilot, source)
        await pilot.press("f")
        app.dashboard.finder.paste("a:b")
        await pilot.press("enter")
        await pilot.pause()
        assert source.commands[-1] == ("toggle", "latency", True)


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (120, 40)])
async def test_the_dialog(run: Run, columns: int, rows: int) -> None:
    async with run(columns, rows) as (app, pilot, _):
        await pilot.press("f")
        app.dashboard.finder.paste(":")
        await until(pilot, lambda: "5 found" in dialog(app))
        assert "\\e[31mapp\\a:[red]main[/]" in dialog(app)
        assert_snapshot(app, f"finder-{columns}x{rows}")
        await pilot.resize_terminal(60, 12)
        assert "esc closes" in dialog(app)


async def test_help_and_palette_know_the_search(run: Run) -> None:
    async with run(80, 24) as (app, pilot, _):
        assert FIND in [command.title for command in app.get_system_commands(app.screen)]
        assert "f find" in footer(app)
        await pilot.press("question_mark")
        await pilot.pause()
        text = "\n".join(screen(app))
        assert FIND in text
        assert "remove the selected target" in text
