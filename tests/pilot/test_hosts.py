# SPDX-License-Identifier: Apache-2.0
"""Dashboards of other machines: links that break, a line for each host, one on the screen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from textual.pilot import Pilot

from probes.base import ProbeError
from probes.history import MOST_BYTES
from probes.samples import Filters, Sample
from tests.pilot.conftest import footer, screen, shown
from tests.pilot.fake import failed
from tests.pilot.fake_remote import FakeRemote
from tests.pilot.moments import painted
from tests.pilot.test_export import written
from tui.lines import line_text
from tui.remote.app import AttachedApp

SIZES = [(80, 24), (120, 40)]


@asynccontextmanager
async def attached(
    sources: Sequence[FakeRemote], columns: int = 80, rows: int = 24, ticks: int = 3
) -> AsyncIterator[tuple[AttachedApp, Pilot[int]]]:
    """The dashboard of these machines, with some Frames of each."""
    app = AttachedApp(sources)
    async with app.run_test(size=(columns, rows)) as pilot:
        await pilot.pause()
        for _ in range(ticks):
            for source in sources:
                source.push()
            await pilot.pause()
        app.look_at_links()
        yield app, pilot


def two() -> list[FakeRemote]:
    """Two machines that do not count the same."""
    return [FakeRemote("web-3"), FakeRemote("db-1", skip=7)]


def hosts(app: AttachedApp) -> str:
    """The text of the line of hosts."""
    (bar,) = app.dashboard.bars
    return line_text(bar.shown[0]).rstrip()


# -- links ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("columns", "rows"), SIZES)
async def test_the_header_tells_how_long_nothing_came(columns: int, rows: int) -> None:
    source = FakeRemote("web-3")
    async with attached([source], columns, rows) as (app, pilot):
        assert "no data" not in screen(app)[0]
        source.cut(2)
        app.look_at_links()
        await pilot.pause()
        assert "no data" not in screen(app)[0], "two seconds more than two intervals are no news"
        source.cut(12)
        app.look_at_links()
        await pilot.pause()
        assert "web-3" in screen(app)[0]
        assert "no data for 12 s: reconnecting (timed out)" in screen(app)[0]
        source.push()
        await pilot.pause()
        assert "no data" not in screen(app)[0]
        assert "lost 0" in screen(app)[0]


async def test_a_silence_on_a_link_that_is_up_is_told_without_a_reason() -> None:
    source = FakeRemote("web-3")
    async with attached([source]) as (app, pilot):
        source.cut(30)
        source.link = source.link._replace(state="live")
        app.look_at_links()
        await pilot.pause()
        assert "no data for 30 s  " in screen(app)[0]


async def test_filters_and_marks_leave_the_age_of_the_data_in_the_header() -> None:
    source = FakeRemote("web-3")
    source.filters = Filters(cgroup="/system.slice/shop.service")
    source.lost = 12
    async with attached([source]) as (app, pilot):
        await pilot.press("space")
        source.cut(7200, "a reason that is much too long for the line of a header " * 2)
        app.look_at_links()
        await pilot.pause()
        assert "PAUSED" in screen(app)[0]
        assert "no data for  2 h: reconnecting" in screen(app)[0]


async def test_a_timer_counts_the_age_and_paints_a_few_cells() -> None:
    source = FakeRemote("web-3")
    async with attached([source]) as (app, pilot):
        source.cut(12)
        app.look_at_links()
        before = cells(app)
        source.cut(15)
        app.look_at_links()
        assert cells(app)["header"] - before["header"] <= 2
        assert {**cells(app), "header": 0} == {**before, "header": 0}
        source.cut(70)
        for _ in range(40):
            await pilot.pause(0.1)
            if "no data for 7" in screen(app)[0]:
                break
        assert "no data for 7" in screen(app)[0]


async def test_what_is_connected_to_is_told_before_there_is_data() -> None:
    source = FakeRemote("web-3", "ssh://root@web-3:2222")
    async with attached([source], ticks=0) as (app, pilot):
        assert "connecting to ssh://root@web-3:2222" in screen(app)[0]
        assert "waiting for what the other machine sends" in shown(app, "syscalls")
        source.link = source.link._replace(why="connection refused")
        app.look_at_links()
        await pilot.pause()
        assert "connecting to ssh://root@web-3:2222 (connection refused)" in screen(app)[0]
        source.push()
        await pilot.pause()
        assert "connecting" not in screen(app)[0]
        assert "futex" in shown(app, "syscalls")


async def test_one_machine_has_no_line_of_hosts_and_no_key_for_others() -> None:
    async with attached([FakeRemote("web-3")]) as (app, pilot):
        assert not app.dashboard.bars
        assert "1 System calls" in screen(app)[1]
        assert "host" not in footer(app)
        await pilot.press("n", "question_mark")
        assert "previous host" not in "\n".join(screen(app))


# -- the line of hosts -------------------------------------------------------------------------


@pytest.mark.parametrize(("columns", "rows"), SIZES)
async def test_each_host_has_its_figures_in_the_line(columns: int, rows: int) -> None:
    async with attached(two(), columns, rows) as (app, pilot):
        line = screen(app)[1]
        assert line.split()[:2] == ["1", "web-3"]
        assert "2 db-1" in line
        assert line.count("k/s err") == 2
        assert line.count("load  3.1") == 2
        assert "1 System calls" in screen(app)[2]
        assert len(screen(app)) == rows
        assert "n next host" in footer(app)
        (bar,) = app.dashboard.bars
        assert [text for text, style in bar.shown[0] if style == "selected"] == ["1 web-3"]
        await pilot.press("n")
        assert [text for text, style in bar.shown[0] if style == "selected"] == ["2 db-1 "]


async def test_digits_rest_where_they_are() -> None:
    sources = two()
    async with attached(sources, 120, 24) as (app, pilot):
        places = set()
        for _ in range(10):
            for source in sources:
                source.push()
            await pilot.pause()
            app.look_at_links()
            line = hosts(app)
            places.add(tuple(at for at in range(len(line)) if line.startswith(("/s", "load"), at)))
        assert len(places) == 1


async def test_rates_are_unknown_until_there_are_two_frames_of_one_count() -> None:
    sources = two()
    async with attached(sources, 120, 24, ticks=1) as (app, pilot):
        assert "web-3     -   err     - load  3.1" in hosts(app)
        sources[0].push()
        await pilot.pause()
        assert "web-3     -   err" not in hosts(app)
        still = sources[0].frame()
        sample = replace(still.samples["syscalls"], generation=9)
        sources[0].states = {"syscalls": sample}
        sources[0].push()
        await pilot.pause()
        assert "web-3     -   err     - load  3.1" in hosts(app)


async def test_links_and_probes_that_fail_are_marked() -> None:
    sources = [*two(), FakeRemote("cache-7", "http://cache-7:9435")]
    sources[2].push = lambda ticks=1: sources[2].frame()  # type: ignore[method-assign]
    async with attached(sources, 120, 24) as (app, pilot):
        sources[0].states = {"execs": failed(Sample())}
        sources[0].push()
        await pilot.pause()
        assert "!1" in hosts(app)
        sources[0].states = {"execs": Sample(state="on", given_up="args")}
        sources[0].push()
        sources[1].cut(12)
        await pilot.pause()
        app.look_at_links()
        assert "!1" not in hosts(app)
        assert "~1" in hosts(app)
        assert "12 s old" in hosts(app)
        assert "connecting" in hosts(app)


@pytest.mark.parametrize("columns", [64, 80, 120])
async def test_of_many_hosts_the_shown_one_and_its_neighbours_are_seen(columns: int) -> None:
    sources = [FakeRemote(f"machine-{at}") for at in range(1, 13)]
    async with attached(sources, columns, 24, ticks=2) as (app, pilot):
        for at in range(12):
            line = hosts(app)
            assert len(line) <= columns
            near = [n + 1 for n in (at - 1, at, at + 1) if 0 <= n < 12]
            assert all(f"{n} machine" in line for n in near)
            if at == 6:
                assert line.startswith("<")
                assert line.endswith(">")
            await pilot.press("n")
        assert app.at == 0
        await pilot.press("N")
        assert app.at == 11


async def test_hostile_names_are_harmless_in_the_line() -> None:
    sources = [FakeRemote("\x1b]0;owned\x07"), FakeRemote("日本語ホスト")]
    async with attached(sources) as (app, _):
        assert "\\e]0;owned" in hosts(app)
        assert "日本語ホスト" in hosts(app)
        assert "\x1b" not in "".join(screen(app))


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


def tops(app: AttachedApp) -> list[list[str]]:
    """The figures and graphs of the panes, without rows: near ones may stand in another order."""
    names = [widget.entry.name for widget in app.dashboard.panes]
    return [shown(app, name).splitlines()[:4] for name in names]


async def test_each_host_has_a_history_of_its_own() -> None:
    sources = two()
    async with attached(sources, ticks=3) as (app, pilot):
        assert [feed.history.most_bytes for feed in app.feeds] == [MOST_BYTES // 2] * 2
        for _ in range(4):
            sources[1].push()
        await pilot.pause()
        assert [len(feed.history) for feed in app.feeds] == [3, 7]
        await pilot.press("n")
        assert app.history is app.feeds[1].history
        assert app.frame is not None
        assert app.frame.mono == 1000.0 + sources[1].tick


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
        assert not app.in_past
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
        assert app.frame is not None
        assert app.frame.mono == 1000.0 + sources[1].tick


async def test_no_exec_is_lost_or_told_twice_by_switching() -> None:
    sources = two()
    async with attached(sources, ticks=3) as (app, pilot):
        for _ in range(5):
            sources[1].push()
            await pilot.press("n")
            sources[0].push()
            await pilot.pause()
        for at, feed in enumerate(app.feeds):
            app.show_host(at)
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
        assert app.at == 1, "in a dialog, n is a letter"
        await pilot.press("n")
        assert app.at == 1


async def test_what_was_being_typed_is_not_meant_for_another_host() -> None:
    sources = two()
    async with attached(sources) as (app, pilot):
        await pilot.press("F", *"pid=7")
        await pilot.click("#hosts", offset=(45, 0))
        assert app.at == 1
        await pilot.press("enter")
        assert app.dashboard.footer.prompt is None
        assert sources[0].commands == sources[1].commands == []
        await pilot.click("#hosts", offset=(3, 0))
        assert app.at == 0


async def test_each_host_keeps_what_is_drilled_into_there() -> None:
    async with attached(two()) as (app, pilot):
        await pilot.press("enter")
        crumbs = app.feeds[0].panes[0].crumbs()
        assert crumbs
        await pilot.press("n")
        assert app.dashboard.panes[0].pane.crumbs() == []
        await pilot.press("n")
        assert app.dashboard.panes[0].pane.crumbs() == crumbs


async def test_a_window_and_a_slow_terminal_go_with_the_screen() -> None:
    async with attached(two(), 120, 24, ticks=14) as (app, pilot):
        await pilot.press("w", "b", "n")
        assert "over 10 s" in screen(app)[0]
        assert not app.dashboard.panes[0].pane.look.drawings


async def test_recordings_and_exports_are_of_the_shown_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sources = two()
    async with attached(sources) as (app, pilot):
        await pilot.press("n", "r", "enter")
        assert app.feeds[1].recorder.path is not None
        assert app.feeds[0].recorder.path is None
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
    app.stop_source().join()
    assert all(source.stopped for source in sources)


async def test_the_only_host_ends_the_program_with_its_sentence() -> None:
    source = FakeRemote("web-3")
    async with attached([source]) as (app, pilot):
        source.on_end("the far side is gone for good")
        await pilot.pause()
        assert (app.ended, app.return_code) == ("the far side is gone for good", 1)


# -- how little is painted -------------------------------------------------------------------------


async def test_a_frame_of_a_hidden_host_paints_its_figures_only() -> None:
    sources = two()
    async with attached(sources, 120, 40, 5) as (app, pilot):
        for _ in range(5):
            before = cells(app)
            sources[1].push()
            await pilot.pause()
            app.look_at_links()
            now = cells(app)
            assert now["hosts"] - before["hosts"] <= 16
            assert {**now, "hosts": 0} == {**before, "hosts": 0}
        before = cells(app)
        app.look_at_links()
        assert cells(app) == before


def cells(app: AttachedApp) -> dict[str, int]:
    """Cells repainted so far, by widget."""
    board = app.dashboard
    widgets = [board.header, *board.bars, *board.panes, board.footer]
    return {widget.id or "": widget.painted for widget in widgets}


async def test_a_host_that_is_still_connected_to_can_be_shown() -> None:
    sources = [FakeRemote("web-3"), FakeRemote("db-1", "ssh://db-1")]
    async with attached(sources, ticks=0) as (app, pilot):
        sources[0].push(3)
        await pilot.press("n")
        assert "connecting to ssh://db-1" in screen(app)[0]
        assert "waiting for what the other machine sends" in shown(app, "syscalls")
        assert "web-3" not in screen(app)[0]
        sources[1].push(2)
        await pilot.pause()
        assert "futex" in shown(app, "syscalls")
        assert "connecting" not in "\n".join(screen(app))


async def test_a_first_frame_of_probes_that_start_is_only_compared_with() -> None:
    source = FakeRemote("web-3", skip=50)
    async with attached([source], 120, 40, ticks=0) as (app, pilot):
        first = source.frame()
        starting = {name: replace(s, state="starting") for name, s in first.samples.items()}
        source.on_frame(replace(first, samples=starting))
        await pilot.pause()
        for _ in range(4):
            source.push()
            await pilot.pause()
        lines = shown(app, "syscalls").splitlines()
        assert "724k/s" in lines[0]
        assert lines[1].startswith("1.00M/s"), "no column of the graph holds fifty seconds' calls"
