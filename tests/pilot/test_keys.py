# SPDX-License-Identifier: Apache-2.0
"""Every key does what the help says, and what goes wrong is one line."""

from __future__ import annotations

import os

import pytest
from textual import events
from textual.pilot import Pilot

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.frame import Filters
from tests.pilot.conftest import Run, footer, screen, shown
from tests.pilot.fake import FakeSource
from tui.app.start import dashboard, run_app


async def tick(pilot: Pilot[int], source: FakeSource, ticks: int = 1) -> None:
    for _ in range(ticks):
        source.push()
        await pilot.pause()


async def write(pilot: Pilot[int], text: str) -> None:
    names = {
        " ": "space",
        "=": "equals_sign",
        "/": "slash",
        "-": "minus",
        "[": "left_square_bracket",
    }
    await pilot.press(*[names.get(char, char) for char in text])


async def test_a_digit_detaches_and_attaches(run: Run) -> None:
    async with run() as (app, pilot, source):
        await pilot.press("1")
        assert source.commands == [("toggle", "syscalls", False)]
        assert "System calls: detaching" in footer(app)
        await tick(pilot, source)
        assert screen(app)[-2].startswith("─ 1 System calls ─ off: press 1")
        assert app.dashboard.in_focus.entry.name == "execs"
        await pilot.press("1")
        await tick(pilot, source)
        assert source.commands[-1] == ("toggle", "syscalls", True)
        assert "futex" in shown(app, "syscalls")


async def test_two_presses_before_a_frame_undo_each_other(run: Run) -> None:
    async with run() as (_, pilot, source):
        await pilot.press("2", "2")
        assert source.commands == [("toggle", "execs", False), ("toggle", "execs", True)]


async def test_tab_enter_and_escape(run: Run) -> None:
    async with run(80, 36) as (app, pilot, _):
        await pilot.press("down", "enter")
        assert "━ 1 System calls > read ━" in screen(app)[1]
        await pilot.press("enter", "escape")
        assert "> read ━" in screen(app)[1]
        await pilot.press("escape")
        assert ">" not in screen(app)[1]
        await pilot.press("tab")
        assert app.dashboard.in_focus.entry.name == "execs"
        await pilot.press("enter")
        assert "argv" in shown(app, "execs")
        await pilot.press("escape", "shift+tab")
        assert app.dashboard.in_focus.entry.name == "syscalls"


async def test_moving_through_a_long_table(run: Run) -> None:
    async with run(80, 33) as (app, pilot, _):
        table = app.dashboard.panes[0].pane.table  # type: ignore[attr-defined]
        for key, index in (("end", 23), ("pageup", 15), ("home", 0), ("pagedown", 8), ("up", 7)):
            await pilot.press(key)
            assert table.index == index
        assert table.current().name in shown(app, "syscalls")


async def test_zoom_and_back(run: Run) -> None:
    async with run() as (app, pilot, _):
        await pilot.press("tab", "z")
        await pilot.pause()
        text = "\n".join(screen(app))
        assert "2 Execs" in text
        assert "System calls" not in text
        await pilot.press("z")
        await pilot.pause()
        assert "System calls" in "\n".join(screen(app))


async def test_sorting(run: Run) -> None:
    async with run() as (app, pilot, _):
        await pilot.press("s")
        assert shown(app, "syscalls").splitlines()[2].split()[0] == "recvfrom"
        await pilot.press("S")
        assert "recvfrom" not in shown(app, "syscalls").splitlines()[2]


async def test_a_text_filter_acts_while_it_is_typed_and_no_letter_is_a_command(run: Run) -> None:
    async with run() as (app, pilot, source):
        await pilot.press("slash")
        await write(pilot, "qz1")
        assert footer(app) == " filter: qz1"
        assert "nothing matches /qz1" in shown(app, "syscalls")
        await pilot.press("ctrl+u")
        await write(pilot, "fut")
        assert "/fut" in screen(app)[1]
        assert "read" not in shown(app, "syscalls")
        await pilot.press("enter")
        await tick(pilot, source)
        assert "read" not in shown(app, "syscalls")
        await pilot.press("escape")
        assert "read" in shown(app, "syscalls")
        assert source.commands == []


async def test_what_is_typed_or_pasted_in_one_go_is_no_command(run: Run) -> None:
    async with run() as (app, pilot, source):
        for char in "/q1z":
            app.post_message(events.Key("slash" if char == "/" else char, char))
        await pilot.pause()
        assert footer(app) == " filter: q1z"
        app.post_message(events.Paste("2 rows"))
        await pilot.pause()
        assert footer(app) == " filter: q1z2 rows"
        await pilot.press("escape")
        app.post_message(events.Paste("q12"))
        await pilot.pause()
        for char in "?q":
            app.post_message(events.Key("question_mark" if char == "?" else char, char))
        await pilot.pause()
        assert not app.dashboard.help.display
        assert app.is_running
        assert source.commands == []


async def test_escape_in_the_prompt_clears_the_filter(run: Run) -> None:
    async with run() as (app, pilot, _):
        await pilot.press("slash", "f", "escape")
        assert "read" in shown(app, "syscalls")
        assert "enter drill" in footer(app)


async def test_kernel_filters(run: Run) -> None:
    async with run() as (app, pilot, source):
        await pilot.press("F")
        await write(pilot, "bad[red]")
        await pilot.press("enter")
        await pilot.pause()
        assert "'bad[red]' is not a filter: write pid=N" in footer(app)
        assert "count only: bad[red]" in footer(app)
        assert source.commands == []
        await pilot.press("ctrl+u")
        await write(pilot, f"pid={os.getpid()} comm=nginx")
        await pilot.press("enter")
        assert source.commands == [("set_filters", Filters(os.getpid(), "nginx"))]
        await tick(pilot, source)
        assert f"only pid={os.getpid()} comm=nginx" in screen(app)[0]
        await pilot.press("F", "ctrl+u", "enter")
        assert source.commands[-1] == ("set_filters", Filters())


async def test_p_takes_the_process_of_the_row_and_gives_it_back(run: Run) -> None:
    async with run() as (app, pilot, source):
        await pilot.press("p")
        assert "not a process" in footer(app)
        await pilot.press("v", "p")
        assert source.commands == [("set_filters", Filters(pid=811))]
        await tick(pilot, source)
        await pilot.press("p")
        assert source.commands[-1] == ("set_filters", Filters())


async def test_p_twice_before_a_frame_gives_it_back(run: Run) -> None:
    async with run() as (app, pilot, source):
        await pilot.press("v", "p", "p")
        assert [command[1] for command in source.commands] == [Filters(pid=811), Filters()]
        await pilot.press("p", "F")
        assert "count only: pid=811" in footer(app)
        await pilot.press("escape")
        source.filters = Filters()
        await tick(pilot, source)
        # The Frame shows what is counted now, whatever was wished.
        await pilot.press("p")
        assert source.commands[-1] == ("set_filters", Filters(pid=811))


async def test_p_takes_no_pid_of_the_machine_in_another_pid_namespace(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "in_initial_pid_namespace", lambda: False)
    async with run(120, 40) as (app, pilot, source):
        await pilot.press("v", "p")
        assert "rows have the machine's pids" in footer(app)
        assert source.commands == []


async def test_pause_freezes_the_screen_and_loses_no_event(run: Run) -> None:
    async with run(120, 40) as (app, pilot, source):
        await pilot.press("space")
        frozen = [line for line in screen(app) if "PAUSED" not in line]
        assert "PAUSED" in screen(app)[0]
        await tick(pilot, source, 5)
        assert [line for line in screen(app) if "PAUSED" not in line] == frozen
        await pilot.press("enter", "escape", "space")
        await pilot.pause()
        assert "PAUSED" not in screen(app)[0]
        log = app.dashboard.panes[1].pane.log  # type: ignore[attr-defined]
        assert [row.pid for row in log.rows] == list(range(8001, 8001 + source._pid))


async def test_the_interval_goes_in_steps(run: Run) -> None:
    async with run() as (app, pilot, source):
        await pilot.press("plus", "plus", "minus")
        assert source.commands == [("set_interval", s) for s in (2.0, 5.0, 2.0)]
        await tick(pilot, source)
        await pilot.press(*["minus"] * 6)
        assert source.commands[-1] == ("set_interval", 0.1)
        assert "it is the last step" in footer(app)


async def test_a_command_that_fails_is_one_plain_line(run: Run) -> None:
    async with run() as (app, pilot, source):
        source.errors["toggle"] = ProbeError("[bold]no\x1b[2J[/]", "a recording has no probes")
        source.errors["set_option"] = ProbeError("latency is not in this recording")
        await pilot.press("1")
        said, _, keys = footer(app).partition("  ")
        assert said == " [bold]no\\e[2J[/]: a recording has no probes"
        assert keys.strip() == "? help  q quit"
        await pilot.press("l")
        assert footer(app).startswith(" latency is not in this recording  ")
        app.controllers.announcer.hush()
        assert "enter drill" in footer(app)


async def test_help_takes_any_key(run: Run) -> None:
    async with run() as (app, pilot, _):
        await pilot.press("question_mark")
        await pilot.pause()
        assert any("any key closes" in line for line in screen(app))
        await pilot.press("q")
        await pilot.pause()
        assert not any("any key closes" in line for line in screen(app))
        assert app.is_running


async def test_the_palette_lists_and_runs_commands(run: Run) -> None:
    async with run() as (app, pilot, source):
        titles = [command.title for command in app.get_system_commands(app.screen)]
        assert "System calls: detach" in titles
        assert any("latency" in title for title in titles)
        await pilot.press("ctrl+p")
        await pilot.pause(0.2)
        await write(pilot, "Execs")
        await pilot.pause(0.5)
        await pilot.press("enter")
        await pilot.pause(0.2)
        assert source.commands == [("toggle", "execs", False)]


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
async def test_quit(run: Run, key: str) -> None:
    async with run() as (app, pilot, source):
        await pilot.press("slash") if key == "ctrl+c" else None
        await pilot.press(key)
        await pilot.pause()
        assert app._exit
        assert app.return_code == 0
        app.stop_sources().join()
        assert source.stopped


async def test_the_end_of_the_source_ends_the_program(run: Run) -> None:
    async with run() as (app, pilot, source):
        source.on_end("the broker went away")
        await pilot.pause()
        assert app.ended == "the broker went away"
        assert app.return_code == 1


async def test_a_source_that_cannot_start_says_why() -> None:
    class Broken(FakeSource):
        def start(self, on_frame: object, on_end: object) -> None:
            raise ProbeError("no privileges", "use sudo")

    app = dashboard(Broken())
    async with app.run_test() as pilot:
        await pilot.pause()
    assert app.ended == "no privileges: use sudo"


async def test_resizing_and_going_back_in_time(run: Run) -> None:
    async with run() as (app, pilot, source):
        for columns, rows in ((200, 60), (40, 8), (20, 3), (100, 30)):
            await pilot.resize_terminal(columns, rows)
            await tick(pilot, source)
            assert len(screen(app)) == rows
            assert all(len(line) <= columns for line in screen(app))
        source.tick = 0
        await tick(pilot, source)
        log = app.dashboard.panes[1].pane.log  # type: ignore[attr-defined]
        assert len({row.time for row in log.rows}) == 1


async def test_a_click_gives_the_focus_and_the_wheel_moves(run: Run) -> None:
    async with run() as (app, pilot, _):
        await pilot.click("#pane-execs")
        assert app.dashboard.in_focus.entry.name == "execs"
        assert "2 Execs" in shown(app, "execs")


def test_without_a_terminal_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(FakeSource()) == 2
    assert "needs a terminal" in capsys.readouterr().err
