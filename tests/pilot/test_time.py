# SPDX-License-Identifier: Apache-2.0
"""Going back in time: every moment looks as it did live, while probes go on collecting."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pilot.conftest import Run, footer, screen, shown
from tests.pilot.fake import FakeSource
from tests.pilot.moments import Moments, header, painted
from tests.pilot.test_export import written
from tui.app.app import ProbetopApp

SIZES = [(80, 24), (120, 40)]


@pytest.mark.parametrize(("columns", "rows"), SIZES)
async def test_each_moment_looks_as_it_did_live(run: Run, columns: int, rows: int) -> None:
    moments = Moments()
    async with run(columns, rows, ticks=1) as (app, pilot, source):
        await moments.live(app, pilot, source, 24)
        for tick in range(24, 17, -1):
            await pilot.press("left")
            assert moments.tick_of(app) == tick
            assert painted(app) == moments.shown[tick]
        for tick in range(19, 25):
            await pilot.press("right")
            assert moments.tick_of(app) == tick
            assert painted(app) == moments.shown[tick]
        await pilot.press("right")
        assert not app.view.in_past
        assert painted(app) == moments.shown[25]


async def test_the_header_says_which_moment_it_is_and_how_long_ago(run: Run) -> None:
    moments = Moments()
    async with run(120, 24, ticks=1) as (app, pilot, source):
        await moments.live(app, pilot, source, 24)
        assert "PAST" not in header(app)
        for key, tick, said in (
            ("left", 24, "PAST 22:13:44 -0:01"),
            ("left", 23, "PAST 22:13:43 -0:02"),
            ("comma", 13, "PAST 22:13:33 -0:12"),
            ("full_stop", 23, "PAST 22:13:43 -0:02"),
            ("shift+left", 13, "PAST 22:13:33 -0:12"),
            ("left_square_bracket", 2, "PAST 22:13:22 -0:23"),
            ("shift+right", 12, "PAST 22:13:32 -0:13"),
            ("right", 13, "PAST 22:13:33 -0:12"),
        ):
            await pilot.press(key)
            assert said in header(app)
            # The past's own clock stands in the mark alone.
            assert header(app).count("22:13:") == 1
            assert painted(app) == moments.shown[tick]
        assert "kept 0:24" in header(app)
        await pilot.press("right_square_bracket")
        assert "PAST" not in header(app)
        assert header(app).endswith("22:13:45")


async def test_keys_that_come_together_are_one_jump(run: Run) -> None:
    moments = Moments()
    async with run(80, 24, ticks=1) as (app, pilot, source):
        await moments.live(app, pilot, source, 24)
        for _ in range(7):
            app.controllers.playback.step(-1)
        app.controllers.playback.leap(-1)
        await pilot.pause()
        assert painted(app) == moments.shown[25 - 7 - 10]


class Lagging:
    """Keeps what the program calls later, until it is told to go on."""

    def __init__(self, app: ProbetopApp, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[Callable[[], None]] = []
        monkeypatch.setattr(app, "call_later", self.calls.append)

    def go_on(self) -> None:
        """Call everything."""
        for call in self.calls:
            call()
        self.calls.clear()


@pytest.mark.parametrize("back", ["comma", "left", "shift+left"])
@pytest.mark.parametrize("key", ["end", "right_square_bracket"])
async def test_now_drops_steps_that_were_not_answered_yet(
    run: Run, monkeypatch: pytest.MonkeyPatch, back: str, key: str
) -> None:
    async with run(80, 24, ticks=1) as (app, pilot, source):
        source.push(20)
        await pilot.pause()
        lagging = Lagging(app, monkeypatch)
        await pilot.press(back, key)
        lagging.go_on()
        assert not app.view.in_past
        await pilot.press("v", "p")
        assert len(source.commands) == 1


async def test_the_oldest_moment_drops_steps_that_were_not_answered_yet(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run(80, 24, ticks=1) as (app, pilot, source):
        source.push(20)
        await pilot.pause()
        lagging = Lagging(app, monkeypatch)
        await pilot.press("left", "left_square_bracket", "right", "right")
        lagging.go_on()
        assert app.view.player.number == app.view.player.oldest + 2


async def test_end_is_the_last_row_where_steps_lead_back_to_now(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run(80, 24) as (app, pilot, source):
        source.push(20)
        await pilot.pause()
        lagging = Lagging(app, monkeypatch)
        pane = app.dashboard.in_focus.pane
        moved: list[str] = []
        monkeypatch.setattr(pane, "move", moved.append)
        await pilot.press("left", "right", "end")
        assert (app.view.in_past, moved) == (False, ["end"])
        await pilot.press("left", "left")
        lagging.go_on()
        await pilot.press("right", "right", "end")
        assert (app.view.in_past, moved) == (False, ["end", "end"])


@pytest.mark.parametrize("key", ["F", "space", "down", "e"])
async def test_other_keys_act_where_steps_before_them_lead(
    run: Run, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    async with run(80, 24, ticks=1) as (app, pilot, source):
        source.push(20)
        await pilot.pause()
        lagging = Lagging(app, monkeypatch)
        await pilot.press("left", "left", key)
        assert app.view.player.number == app.view.player.timeline.end - 3
        assert app.controllers.playback.playing == (key == "space")
        assert not app.view.paused
        lagging.go_on()
        assert app.view.player.number == app.view.player.timeline.end - 3


async def test_a_timer_that_rang_before_it_was_stopped_plays_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run(80, 24, ticks=1) as (app, pilot, source):
        source.push(20)
        await pilot.pause()
        await pilot.press("left_square_bracket")
        rings: list[Callable[[], None]] = []
        monkeypatch.setattr(app, "set_timer", lambda delay, ring: rings.append(ring))
        app.controllers.playback.play()
        app.controllers.playback.change_speed(1)
        first, second = rings
        at = app.view.player.number
        first()
        assert (app.view.player.number, len(rings)) == (at, 2)
        second()
        assert app.view.player.number != at
        assert len(rings) == 3


async def test_probes_go_on_meanwhile_and_end_shows_the_newest(run: Run) -> None:
    moments = Moments()
    async with run(80, 24, ticks=1) as (app, pilot, source):
        await moments.live(app, pilot, source, 8)
        await pilot.press("left", "left")
        for tick in range(5):
            source.push()
            await pilot.pause()
            assert painted(app) == moments.shown[7]
            assert f"PAST 22:13:27 -0:{tick + 3:02}" in header(app)
        assert len(app.view.session.history) == 14
        await pilot.press("end")
        assert "PAST" not in header(app)
        assert app.view.frame is not None
        assert app.view.frame.mono == 1014.0
        back = painted(app)
        await pilot.press("left", "right")
        assert painted(app) == back
        log = app.dashboard.panes[1].pane.log  # type: ignore[attr-defined]
        assert [row.pid for row in log.rows] == list(range(8001, 8001 + source._pid))
        await moments.live(app, pilot, source, 1)
        assert header(app).endswith("22:13:35")


async def test_what_was_missed_is_shown_as_if_nobody_had_looked_away(run: Run) -> None:
    watched, away = Moments(), Moments()
    async with run(120, 40, ticks=1) as (app, pilot, source):
        await watched.live(app, pilot, source, 12)
    async with run(120, 40, ticks=1) as (app, pilot, source):
        await away.live(app, pilot, source, 4)
        await pilot.press("left")
        await away.live(app, pilot, source, 7)
        await pilot.press("end")
        await away.live(app, pilot, source, 1)
    assert away.shown[13] == watched.shown[13]


async def test_beyond_either_end_is_one_line(run: Run) -> None:
    async with run(80, 24, ticks=1) as (app, pilot, source):
        source.push(3)
        await pilot.pause()
        await pilot.press("left_square_bracket", "left")
        assert "nothing older is kept" in footer(app)
        assert "-0:02" in header(app)
        await pilot.press("full_stop")
        assert not app.view.in_past


async def test_without_any_frame_the_keys_do_nothing(run: Run) -> None:
    async with run(80, 24, ticks=1) as (app, pilot, source):
        app.view.session.history.clear()
        await pilot.press("left", "comma", "left_square_bracket", "right", "end")
        assert not app.view.in_past
        source.push()
        await pilot.pause()
        assert app.view.frame is not None
        assert app.view.frame.mono == 1002.0


@pytest.mark.parametrize(
    "keys",
    [("1",), ("l",), ("p",), ("plus",), ("F", "ctrl+u", *"pid", "equals_sign", "1", "enter")],
)
async def test_a_command_to_the_kernel_is_refused_in_one_line(
    run: Run, keys: tuple[str, ...]
) -> None:
    async with run(120, 24, ticks=1) as (app, pilot, source):
        source.push(3)
        await pilot.pause()
        await pilot.press("v", "left", *keys)
        assert "the past cannot be changed: press end for now" in footer(app)
        assert source.commands == []
        await pilot.press("escape", "end", *keys)
        assert len(source.commands) == 1


async def test_the_past_can_be_drilled_into_filtered_and_sorted(run: Run) -> None:
    moments = Moments()
    keys = ("s", "slash", *"re", "enter", "down", "enter")
    async with run(120, 40, ticks=1) as (app, pilot, source):
        await moments.live(app, pilot, source, 5)
        await pilot.press(*keys)
        await moments.live(app, pilot, source, 6)
        assert "> " in shown(app, "syscalls").splitlines()[0]
    async with run(120, 40, ticks=1) as (app, pilot, source):
        source.push(11)
        await pilot.pause()
        await pilot.press("left", "left", "left", *keys)
        assert painted(app) == moments.shown[9]
        await pilot.press("left")
        assert painted(app) == moments.shown[8]
        await pilot.press("right", "right", "right")
        assert painted(app) == moments.shown[11]


async def test_a_row_of_execs_stays_open_while_time_goes(run: Run) -> None:
    async with run(80, 24, ticks=1) as (app, pilot, source):
        source.push(5)
        await pilot.pause()
        await pilot.press("tab", "end", "enter")
        title = shown(app, "execs").splitlines()[0]
        assert "> pid 8001" in title
        await pilot.press("left", "left", "right")
        assert "> pid 8001" in shown(app, "execs").splitlines()[0]


async def test_export_writes_the_past_that_is_shown(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with run(120, 40, ticks=1) as (app, pilot, source):
        source.push(9)
        await pilot.pause()
        await pilot.press("left", "left", "left", "e", "ctrl+u", *"a.json", "enter")
        assert "a.json" in await written(app)
        assert app.view.in_past
    summary = json.loads((tmp_path / "a.json").read_text())
    assert (summary["frames"], summary["seconds"]) == (7, 6)


async def test_space_plays_the_past_until_now(run: Run) -> None:
    moments = Moments()
    async with run(120, 24, ticks=1) as (app, pilot, source):
        await moments.live(app, pilot, source, 5)
        await pilot.press("left", "left", "left", "greater_than_sign", "space")
        assert "PAST 22:13:23 -0:03 playing x2" in header(app)
        await pilot.press("space")
        assert not app.controllers.playback.playing
        assert "-0:03 x2" in header(app)
        app.controllers.playback.playing = True
        for tick in (4, 5):
            app.controllers.playback._play_on()
            assert app.controllers.playback.playing
            assert painted(app) == moments.shown[tick]
        app.controllers.playback._play_on()
        assert not app.controllers.playback.playing
        assert not app.view.in_past


async def test_now_has_no_speed(run: Run) -> None:
    async with run(80, 24) as (app, pilot, _):
        await pilot.press("greater_than_sign")
        assert "live data has no speed" in footer(app)
        assert app.controllers.playback.speed == 1.0


async def test_resizing_in_the_past_shows_that_moment(run: Run) -> None:
    moments = Moments()
    async with run(120, 40, ticks=1) as (app, pilot, source):
        await moments.live(app, pilot, source, 9)
    source = FakeSource()
    async with run(80, 24, ticks=1, source=source) as (app, pilot, source):
        source.push(9)
        await pilot.pause()
        await pilot.press("left", "left")
        await pilot.resize_terminal(120, 40)
        await pilot.pause()
        assert len(screen(app)) == 40
        await pilot.press("left", "right")
        assert painted(app) == moments.shown[8]
