# SPDX-License-Identifier: Apache-2.0
"""Other machines: what is said of links that break, a line for each, how little is painted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from probes.core.frame import Filters
from probes.core.sample import Sample
from tests.pilot.conftest import footer, screen, shown
from tests.pilot.fake import failed
from tests.pilot.fake_remote import FakeRemote, attached, cells, hosts, two

SIZES = [(80, 24), (120, 40)]


# -- links ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("columns", "rows"), SIZES)
async def test_the_header_tells_how_long_nothing_came(columns: int, rows: int) -> None:
    source = FakeRemote("web-3")
    async with attached([source], columns, rows) as (app, pilot):
        assert "no data" not in screen(app)[0]
        source.cut(2)
        app.controllers.hosts.update_links()
        await pilot.pause()
        assert "no data" not in screen(app)[0], "two seconds more than two intervals are no news"
        source.cut(12)
        app.controllers.hosts.update_links()
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
        app.controllers.hosts.update_links()
        await pilot.pause()
        assert "no data for 30 s  " in screen(app)[0]


async def test_filters_and_marks_leave_the_age_of_the_data_in_the_header() -> None:
    source = FakeRemote("web-3")
    source.filters = Filters(cgroup="/system.slice/shop.service")
    source.lost = 12
    async with attached([source]) as (app, pilot):
        await pilot.press("space")
        source.cut(7200, "a reason that is much too long for the line of a header " * 2)
        app.controllers.hosts.update_links()
        await pilot.pause()
        assert "PAUSED" in screen(app)[0]
        assert "no data for  2 h: reconnecting" in screen(app)[0]


async def test_a_timer_counts_the_age_and_paints_a_few_cells() -> None:
    source = FakeRemote("web-3")
    async with attached([source]) as (app, pilot):
        source.cut(12)
        app.controllers.hosts.update_links()
        before = cells(app)
        source.cut(15)
        app.controllers.hosts.update_links()
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
        assert "waiting for the other machine's first frame" in shown(app, "syscalls")
        source.link = source.link._replace(why="connection refused")
        app.controllers.hosts.update_links()
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
            app.controllers.hosts.update_links()
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
        app.controllers.hosts.update_links()
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
        assert app.view.at == 0
        await pilot.press("N")
        assert app.view.at == 11


async def test_hostile_names_are_harmless_in_the_line() -> None:
    sources = [FakeRemote("\x1b]0;owned\x07"), FakeRemote("日本語ホスト")]
    async with attached(sources) as (app, _):
        assert "\\e]0;owned" in hosts(app)
        assert "日本語ホスト" in hosts(app)
        assert "\x1b" not in "".join(screen(app))


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


# -- how little is painted -------------------------------------------------------------------------


async def test_a_frame_of_a_hidden_host_paints_its_figures_only() -> None:
    sources = two()
    async with attached(sources, 120, 40, 5) as (app, pilot):
        for _ in range(5):
            before = cells(app)
            sources[1].push()
            await pilot.pause()
            app.controllers.hosts.update_links()
            now = cells(app)
            assert now["hosts"] - before["hosts"] <= 16
            assert {**now, "hosts": 0} == {**before, "hosts": 0}
        before = cells(app)
        app.controllers.hosts.update_links()
        assert cells(app) == before
