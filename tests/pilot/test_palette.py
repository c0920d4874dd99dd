# SPDX-License-Identifier: Apache-2.0
"""What other machines call themselves, in the palette and in a traceback: text, and no more."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from rich.console import Console
from textual.command import CommandPalette
from textual.content import Content
from textual.widget import Widget

from tests.kernel.terminal import Tty
from tests.pilot.fake_remote import FakeRemote, attached
from tui.app.app import ProbetopApp
from tui.app.start import attached_dashboard

HOSTILE = (
    "[@click=app.quit]press enter[/]",
    "[/nope][red]x",
    "x[",
    "\\[@click=app.quit]y[/]",
    "[@click=app.screenshot('precious','.')]z[/]",
    "\x1b]52;c;T1dORUQ=\x07\x1b[2J\x9b31m\u202eabc",
    "a\nb",
)


def painted(app: ProbetopApp) -> list[str]:
    """The whole screen, the palette as well, line by line."""
    return ["".join([each.text for each in row]) for row in app.screen._compositor.render_strips()]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("typed", ["", "hos"])
async def test_a_hosts_name_is_plain_text_in_the_palette(name: str, typed: str) -> None:
    sources = [FakeRemote("web-1"), FakeRemote(name, "ssh://far")]
    async with attached(sources, 120, 40) as (app, pilot):
        await pilot.press("ctrl+p", *typed)
        await pilot.pause(0.5)
        assert isinstance(app.screen, CommandPalette)
        lines = painted(app)
        at = next(row for row, line in enumerate(lines) if "Host 2: " in line)
        shown = lines[at].partition("Host 2: ")[2]
        if name.isprintable():
            assert shown.startswith(name), "all of the name is there"
        assert lines[at].isprintable()
        column = lines[at].index("Host 2: ") + len("Host 2: ") + 2
        await pilot.click(offset=(column, at))
        await pilot.pause(0.3)
        assert app.is_running
        assert app.view.at == 1, "the click chose the host"


async def test_a_click_runs_no_action_that_a_text_names(tmp_path: Path) -> None:
    ran: list[str] = []

    class Planted(Widget):
        DEFAULT_CSS = "Planted { width: 40; height: 1; dock: top; layer: top; }"

        def render(self) -> Content:
            return Content.from_markup(
                "[@click=screen.command('toggle_probe','execs')]CLICK HERE[/]"
            )

    app = attached_dashboard([FakeRemote("web-1")])
    app.dashboard.commands = {"toggle_probe": ran.append}
    async with app.run_test(size=(100, 30)) as pilot:
        await app.screen.mount(Planted())
        await pilot.pause()
        at = next(row for row, line in enumerate(painted(app)) if "CLICK HERE" in line)
        await pilot.click(offset=(painted(app)[at].index("CLICK") + 2, at))
        await pilot.pause()
    assert ran == []


async def test_actions_of_textual_that_write_files_or_press_keys_are_off(tmp_path: Path) -> None:
    async with attached([FakeRemote("web-1")]) as (app, pilot):
        await app.run_action(f"app.screenshot('precious','{tmp_path}')")
        await app.run_action("app.simulate_key('q')")
        await app.run_action("app.notify('[@click=app.quit]x[/]')")
        await app.run_action("app.pop_screen()")
        await pilot.pause(0.3)
        assert app.is_running
        assert not app._notifications
        assert os.listdir(tmp_path) == []
        await app.run_action("screen.command('zoom')")
        assert app.dashboard.zoomed, "its own actions are there"


async def test_a_traceback_has_no_control_characters_of_an_error() -> None:
    app = attached_dashboard([FakeRemote("web-1")])
    try:
        raise ValueError("\x1b]52;c;T1dORUQ=\x07 [red]x \u202e")
    except ValueError:
        app._fatal_error()
    console = Console(markup=False, highlight=False, width=200)
    with console.capture() as capture:
        console.print(app._exit_renderables[0])
    text = capture.get()
    assert "ValueError: \\e]52" in text
    assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_terminal_gets_nothing_of_a_hosts_name_but_text(name: str) -> None:
    with Tty(sys.executable, "-m", "tests.pilot.hostile_host", name, size=(120, 40)) as tty:
        tty.shows("web-1")
        tty.type("\x10")
        tty.shows("Search for commands")
        tty.type("hos")
        tty.until("only hosts are listed", lambda: "Zoom" not in "".join(tty.grid.lines()))
        tty.shows("Host 2: ")
        assert "\x1b]52" not in tty.text
        assert "\x9b" not in tty.text
        assert "\u202e" not in tty.text
        tty.type("\x1b")
        tty.until("it is closed", lambda: "Host 2: " not in "".join(tty.grid.lines()))
        tty.type("q")
        assert tty.ended() == 0
