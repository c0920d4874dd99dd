# SPDX-License-Identifier: Apache-2.0
"""The PMC pane on the screen."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.pilot import Pilot

from probes.core.errors import ProbeError
from probes.recording.file import Writer
from probes.recording.replay import ReplaySource
from tests.pilot.conftest import Run, footer, screen, shown
from tests.pilot.fake import PROCESSES, FakeSource
from tests.pilot.fake_pmc import FakePmc
from tests.pilot.snapshot import assert_snapshot
from tests.pilot.test_keys import tick, write
from tui.app.app import ProbetopApp

SIZES = [(80, 24), (120, 40), (200, 60)]


async def focus(app: ProbetopApp, pilot: Pilot[int], *keys: str) -> None:
    names = [widget.entry.name for widget in app.dashboard.panes]
    app.dashboard.set_pane(names.index("pmc"))
    await pilot.press(*keys)
    await pilot.pause()


def source_with(cpus: int = 8, sockets: int = 1, **fields: object) -> FakeSource:
    source = FakeSource()
    source.counters = FakePmc(PROCESSES, cpus, sockets)
    for name, value in fields.items():
        setattr(source.counters, name, value)
    return source


@pytest.mark.parametrize(("columns", "rows"), SIZES)
async def test_four_panes_with_the_counters_in_focus(run: Run, columns: int, rows: int) -> None:
    async with run(columns, rows, ticks=70) as (app, pilot, _):
        await focus(app, pilot)
        assert all(len(line) <= columns for line in screen(app))
        assert "postgres" in shown(app, "pmc")
        assert_snapshot(app, f"pmc-{columns}x{rows}")


@pytest.mark.parametrize(("columns", "rows"), SIZES)
async def test_the_pane_on_the_whole_screen(run: Run, columns: int, rows: int) -> None:
    async with run(columns, rows, ticks=110) as (app, pilot, _):
        await focus(app, pilot, "z", "down")
        text = "\n".join(screen(app))
        for part in ("cpu7", "nginx 1203", "per 1000 instructions", "brmiss", "wait/s"):
            assert part in text
        assert_snapshot(app, f"pmc-zoomed-{columns}x{rows}")


@pytest.mark.parametrize(("columns", "rows"), SIZES[:2])
async def test_a_machine_of_two_cpus_without_hardware_counters(
    run: Run, columns: int, rows: int
) -> None:
    source = source_with(2, hardware=False)
    async with run(columns, rows, 70, source) as (app, pilot, _):
        await focus(app, pilot, *(["z"] if columns == 80 else []))
        text = " ".join(shown(app, "pmc").split())
        assert "ENOENT" in text
        assert "no hardware counters" in text
        assert_snapshot(app, f"pmc-without-{columns}x{rows}")


@pytest.mark.parametrize(("columns", "rows"), SIZES)
async def test_256_cpus(run: Run, columns: int, rows: int) -> None:
    async with run(columns, rows, 12, source_with(256, 2)) as (app, pilot, _):
        await focus(app, pilot)
        assert ("socket 1" in shown(app, "pmc")) is (columns == 120)
        await pilot.press("z")
        await pilot.pause()
        assert "192" in shown(app, "pmc") or columns > 80
        assert_snapshot(app, f"pmc-256-{columns}x{rows}")


async def test_counters_that_are_shared(run: Run) -> None:
    source = source_with(16, share=0.62, never=frozenset(["branch-misses"]))
    async with run(80, 24, 70, source) as (app, pilot, _):
        await focus(app, pilot, "z")
        assert "ran 62.0%  1 never ran" in screen(app)[1]
        assert_snapshot(app, "pmc-shared-80x24")
        await pilot.press("enter")
        await pilot.pause()
        assert "> postgres 811" in screen(app)[1]
        assert "never ran: no counter was free" in shown(app, "pmc")
        assert_snapshot(app, "pmc-drilled-80x24")


async def test_one_process_of_a_poor_pmu(run: Run) -> None:
    absent = dict.fromkeys(("cache-misses", "branches"), "the CPU has no such counter (ENOENT)")
    async with run(120, 40, 70, source_with(absent=absent)) as (app, pilot, _):
        await focus(app, pilot, "z", "down", "enter")
        assert shown(app, "pmc").count("the CPU has no such counter (ENOENT)") == 2
        assert_snapshot(app, "pmc-drilled-120x40")
        await pilot.press("escape")
        assert "not on this machine: cache-misses, branches; enter says why" in shown(app, "pmc")


@pytest.mark.parametrize("name", ["sixteen", "mono", "ascii"])
async def test_terminals_that_have_less(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("TERM", "xterm" if name == "sixteen" else "xterm-256color")
    if name == "mono":
        monkeypatch.setenv("NO_COLOR", "1")
    source = source_with(64, share=0.62)
    async with run(80, 24, 70, source, ascii=name == "ascii") as (app, pilot, _):
        await focus(app, pilot, "z", "down")
        strips = app.dashboard._compositor.render_strips()
        styles = [segment.style for strip in strips for segment in strip if segment.style]
        colours = [c for style in styles for c in (style.color, style.bgcolor) if c is not None]
        if name == "mono":
            assert all(colour.is_default for colour in colours)
        assert all(colour.number is None or colour.number < 16 for colour in colours)
        if name == "ascii":
            assert "\n".join(screen(app)).isascii()
        assert_snapshot(app, f"pmc-{name}-80x24")


async def test_keys_change_what_is_counted(run: Run) -> None:
    async with run(120, 40) as (app, pilot, source):
        await focus(app, pilot, "g", "g", "g", "u")
        assert source.commands == [
            ("set_option", "pmc", "set", "cache"),
            ("set_option", "pmc", "set", "branch"),
            ("set_option", "pmc", "set", "stalls"),
            ("set_option", "pmc", "mode", "user"),
        ]
        await tick(pilot, source, 2)
        text = shown(app, "pmc")
        assert "stalls  user only" in text
        assert "back  front" in text
        source.errors["set_option"] = ProbeError("[red]no[/]", "this is a recording")
        await pilot.press("g")
        assert footer(app).startswith(" [red]no[/]: this is a recording")


async def test_filter_sort_and_this_process(run: Run) -> None:
    async with run(120, 40) as (app, pilot, source):
        await focus(app, pilot, "slash")
        await write(pilot, "nginx")
        await pilot.press("enter", "down", "p")
        pid = app.dashboard.in_focus.pane.selected_pid()
        assert pid in (1203, 1204)
        assert source.filters.pid == pid
        assert "postgres" not in shown(app, "pmc")
        await pilot.press("escape", "s", "s", "home")
        await pilot.pause()
        assert "▾miss/ki" in shown(app, "pmc")


async def test_help_and_palette_explain_the_counters(run: Run) -> None:
    async with run(80, 24) as (app, pilot, _):
        listed = [command.title for command in app.get_system_commands(app.screen)]
        assert any(title.startswith("PMC: next event set") for title in listed)
        await focus(app, pilot, "question_mark")
        text = " ".join(" ".join(screen(app)).replace("│", " ").split())
        assert "under 1 (yellow) and 0.5 (red) the CPU waits more than it works" in text
        assert "PMC: count user and kernel" in text
        assert_snapshot(app, "pmc-help-80x24")


async def test_a_recording_shows_the_same(run: Run, tmp_path: Path) -> None:
    source = source_with(share=0.62)
    frames = [source.frame() for _ in range(12)]
    with Writer(str(tmp_path / "x.ptrec")) as writer:
        for frame in frames:
            writer.write(frame)
    replayed = list(ReplaySource(tmp_path / "x.ptrec")._reader)
    pictures = []
    for these in (frames, replayed):
        async with run(120, 40, 1) as (app, pilot, _):
            app.dashboard.panes[3].pane.reset()
            app.view.frame = None
            for frame in these:
                app.controllers.drawing.show(frame)
            await focus(app, pilot, "z")
            pictures.append(shown(app, "pmc"))
    assert pictures[0] == pictures[1]
    assert "62.0%" in pictures[0]


async def test_an_unchanged_frame_repaints_graphs_only(run: Run) -> None:
    async with run(80, 24) as (app, pilot, source):
        await focus(app, pilot)
        source.states = dict(source.frame().samples)
        for _ in range(15):
            source.push()
            await pilot.pause()
        widget = app.dashboard.in_focus
        before = widget.painted
        source.push()
        await pilot.pause()
        assert widget.painted == before
