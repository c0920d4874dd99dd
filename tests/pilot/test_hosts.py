# SPDX-License-Identifier: Apache-2.0
"""Several machines: which of them is shown, whose keys and histories are whose, what ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.core.errors import ProbeError
from probes.core.frame import Filters
from probes.recording.history import MOST_BYTES
from tests.pilot.conftest import footer, screen, shown
from tests.pilot.fake_remote import FakeRemote, attached, hosts, two
from tests.pilot.moments import painted
from tests.pilot.test_export import written
from tui.app.app import ProbetopApp

# -- switching -----------------------------------------------------------------------------------


async def test_the_other_host_looks_as_if_it_had_been_shown_all_the_time() -> None:
    sources = two()
    async with attached(sources, 120, 40, 12) as (app, pilot):
        first = painted(app)
        await pilot.press("n")
        assert "db-1" in screen(app)[0]
        second = [tops(app), shown(app, "execs")]
        await pilot.press("N")
        assert painted(app) == first
        assert tops(app) != second[0]
    async with attached(two()[::-1], 120, 40, 12) as (app, _):
        assert [tops(app), shown(app, "execs")] == second


def tops(app: ProbetopApp) -> list[list[str]]:
    """The figures and graphs of the panes, without rows: near ones may stand in another order."""
    names = [widget.entry.name for widget in app.dashboard.panes]
    return [shown(app, name).splitlines()[:4] for name in names]


async def test_what_only_the_other_machine_knows_is_asked_there() -> None:
    sources = two()
    async with attached(sources, 120, 40) as (app, pilot):
        await pilot.press("F", *"pid=4000000 user=4242", "enter")
        assert sources[0].commands[-1] == ("set_filters", Filters(pid=4000000, uid=4242))
        await pilot.press("F", "ctrl+u", *"user=root", "enter")
        assert "id -u USER" in footer(app)
        await pilot.press("escape", "tab", "z")
        await pilot.pause()
        assert "root" not in shown(app, "execs"), "who that is here says nothing of there"
        assert "user" in shown(app, "execs")


async def test_each_host_has_a_history_of_its_own() -> None:
    sources = two()
    async with attached(sources, ticks=3) as (app, pilot):
        assert [feed.history.most_bytes for feed in app.view.sessions] == [MOST_BYTES // 2] * 2
        for _ in range(4):
            sources[1].push()
        await pilot.pause()
        assert [len(feed.history) for feed in app.view.sessions] == [3, 7]
        await pilot.press("n")
        assert app.view.session.history is app.view.sessions[1].history
        assert app.view.frame is not None
        assert app.view.frame.mono == 1000.0 + sources[1].tick


async def test_switching_leaves_the_past() -> None:
    sources = two()
    async with attached(sources, ticks=8) as (app, pilot):
        now = painted(app)
        await pilot.press("left", "left", "n")
        assert "PAST" not in screen(app)[0]
        assert "db-1" in screen(app)[0]
        await pilot.press("left")
        assert "PAST" in screen(app)[0]
        await pilot.press("n")
        assert not app.view.in_past
        assert painted(app) == now
        sources[0].push()
        await pilot.pause()
        assert painted(app) != now


async def test_what_is_paused_stays_paused_at_the_newest_of_the_other_host() -> None:
    sources = two()
    async with attached(sources, ticks=3) as (app, pilot):
        await pilot.press("space", "n")
        assert "PAUSED" in screen(app)[0]
        assert "db-1" in screen(app)[0]
        held = painted(app)
        sources[1].push()
        await pilot.pause()
        assert painted(app) == held
        await pilot.press("space")
        assert "PAUSED" not in screen(app)[0]
        assert app.view.frame is not None
        assert app.view.frame.mono == 1000.0 + sources[1].tick


async def test_no_exec_is_lost_or_told_twice_by_switching() -> None:
    sources = two()
    async with attached(sources, ticks=3) as (app, pilot):
        for _ in range(5):
            sources[1].push()
            await pilot.press("n")
            sources[0].push()
            await pilot.pause()
        for at, feed in enumerate(app.view.sessions):
            app.controllers.hosts.show(at)
            log = feed.panes[1].log  # type: ignore[attr-defined]
            pids = [row.pid for row in log.rows]
            assert len(pids) == len(set(pids))
            assert pids[-1] == 8000 + sources[at]._pid


async def test_commands_go_to_the_shown_host_only() -> None:
    sources = two()
    async with attached(sources) as (app, pilot):
        await pilot.press("n", "2", "plus", "F", *"pid=7", "enter")
        assert sources[0].commands == []
        assert [command[0] for command in sources[1].commands] == [
            "toggle",
            "set_interval",
            "set_filters",
        ]
        await pilot.press("f", *"vfs")
        await pilot.pause(0.3)
        assert sources[0].queries == []
        assert sources[1].queries[-1] == "vfs"
        assert app.view.at == 1, "in a dialog, n is a letter"
        await pilot.press("n")
        assert app.view.at == 1


async def test_what_was_being_typed_is_not_meant_for_another_host() -> None:
    sources = two()
    async with attached(sources) as (app, pilot):
        await pilot.press("F", *"pid=7")
        await pilot.click("#hosts", offset=(45, 0))
        assert app.view.at == 1
        await pilot.press("enter")
        assert app.dashboard.footer.prompt is None
        assert sources[0].commands == sources[1].commands == []
        await pilot.click("#hosts", offset=(3, 0))
        assert app.view.at == 0


async def test_each_host_keeps_what_is_drilled_into_there() -> None:
    async with attached(two()) as (app, pilot):
        await pilot.press("enter")
        crumbs = app.view.sessions[0].panes[0].crumbs()
        assert crumbs
        await pilot.press("n")
        assert app.dashboard.panes[0].pane.crumbs() == []
        await pilot.press("n")
        assert app.dashboard.panes[0].pane.crumbs() == crumbs


async def test_a_window_and_a_slow_terminal_go_with_the_screen() -> None:
    async with attached(two(), 120, 24, ticks=14) as (app, pilot):
        await pilot.press("w", "b", "n")
        assert "over 10 s" in screen(app)[0]
        assert not app.dashboard.panes[0].pane.theme.drawings


async def test_recordings_and_exports_are_of_the_shown_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sources = two()
    async with attached(sources) as (app, pilot):
        await pilot.press("n", "r", "enter")
        assert app.view.sessions[1].recorder.path is not None
        assert app.view.sessions[0].recorder.path is None
        await pilot.press("n")
        assert " REC db-1 " in screen(app)[0]
        for source in sources:
            source.push()
        await pilot.press("n", "r")
        (name,) = tmp_path.glob("*.ptrec")
        assert "db-1" in name.name
        assert "1 frames" in footer(app)
        await pilot.press("e", "enter")
        await written(app)
        (page,) = tmp_path.glob("*.html")
        assert "db-1" in page.read_text()


async def test_the_help_and_the_palette_list_the_hosts() -> None:
    async with attached(two()) as (app, pilot):
        commands = {command.title for command in app.get_system_commands(app.screen)}
        assert {"Host 1: web-3", "Host 2: db-1"} <= commands
        await pilot.press("question_mark")
        text = "\n".join(screen(app))
        assert "n N next, previous host at its newest; what is paused stays paused" in text


# -- what is refused, what ends ------------------------------------------------------------------


async def test_what_is_refused_later_is_told() -> None:
    sources = two()
    async with attached(sources) as (app, pilot):
        await pilot.press("2")
        sources[0].refused("the token may only read: use a control token")
        await pilot.pause()
        assert footer(app).strip().startswith("the token may only read: use a control token")
        sources[1].refused("no such function")
        await pilot.pause()
        assert "db-1: no such function" in footer(app)
        await pilot.press("2")
        assert sources[0].commands == [("toggle", "execs", False)] * 2


async def test_a_command_without_a_link_says_why() -> None:
    sources = two()
    async with attached(sources) as (app, pilot):
        sources[0].errors["toggle"] = ProbeError("there is no link now", "wait until it is back")
        await pilot.press("2")
        assert "there is no link now" in footer(app)


async def test_a_host_that_ends_says_so_and_the_others_go_on() -> None:
    sources = two()
    async with attached(sources) as (app, pilot):
        sources[0].on_end("the far side is gone for good")
        await pilot.pause()
        assert "web-3: the far side is gone for good" in footer(app)
        assert "ended: the far side is gone for good" in screen(app)[0]
        assert "1 web-3 ended: the far side" in hosts(app)
        await pilot.press("n")
        sources[1].push()
        await pilot.pause()
        assert "db-1" in screen(app)[0]
        assert "ended" not in screen(app)[0]
        sources[1].on_end("a wrong token")
        await pilot.pause()
        assert app.ended == "web-3: the far side is gone for good; db-1: a wrong token"
        assert app.return_code == 1
    app.stop_sources().join()
    assert all(source.stopped for source in sources)


async def test_the_only_host_ends_the_program_with_its_sentence() -> None:
    source = FakeRemote("web-3")
    async with attached([source]) as (app, pilot):
        source.on_end("the far side is gone for good")
        await pilot.pause()
        assert (app.ended, app.return_code) == ("the far side is gone for good", 1)


async def test_a_host_that_is_still_connected_to_can_be_shown() -> None:
    sources = [FakeRemote("web-3"), FakeRemote("db-1", "ssh://db-1")]
    async with attached(sources, ticks=0) as (app, pilot):
        sources[0].push(3)
        await pilot.press("n")
        assert "connecting to ssh://db-1" in screen(app)[0]
        assert "waiting for the other machine's first frame" in shown(app, "syscalls")
        assert "web-3" not in screen(app)[0]
        sources[1].push(2)
        await pilot.pause()
        assert "futex" in shown(app, "syscalls")
        assert "connecting" not in "\n".join(screen(app))
