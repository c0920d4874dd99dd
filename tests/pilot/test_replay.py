# SPDX-License-Identifier: Apache-2.0
"""A recording in the dashboard: played, held, stepped through, and the same as it was live."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from textual.pilot import Pilot

from probes.core.frame import Frame
from probes.recording.file import Writer
from probes.recording.replay import ReplaySource
from tests.pilot.conftest import Run, footer, shown
from tests.pilot.fake import FakeSource
from tests.pilot.moments import Moments, header, painted
from tests.pilot.test_export import written
from tui.app.app import ProbetopApp
from tui.app.start import dashboard
from tui.shared.text import fmt_count

FRAMES = 25
Replay = Callable[..., AbstractAsyncContextManager[tuple[ProbetopApp, Pilot[int]]]]


def recorded(path: Path, frames: list[Frame]) -> Path:
    with Writer(path) as writer:
        for frame in frames:
            writer.write(frame)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A recording of the fake source."""
    source = FakeSource()
    return recorded(tmp_path / "a.ptrec", [source.frame() for _ in range(FRAMES)])


class Clock:
    """What playing takes for the time; it is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.strftime, self.localtime, self.time = time.strftime, time.localtime, time.time

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The program's own timers go on by the real one, which is long behind."""
    clock = Clock()
    monkeypatch.setattr("tui.app.controllers.playback.time", clock)
    monkeypatch.setattr("tui.app.controllers.playback.SHORTEST_STEP", 1000.0)
    return clock


@pytest.fixture
def replay() -> Replay:
    """Starts the dashboard on a recording."""

    @asynccontextmanager
    async def start(
        path: Path, columns: int = 120, rows: int = 40
    ) -> AsyncIterator[tuple[ProbetopApp, Pilot[int]]]:
        app = dashboard(ReplaySource(path))
        async with app.run_test(size=(columns, rows)) as pilot:
            # The recording is opened in a thread of its own.
            for _ in range(1000):
                await pilot.pause(0.01)
                if app.view.frame is not None:
                    break
            await pilot.pause()
            yield app, pilot

    return start


def tick(app: ProbetopApp) -> int:
    """The tick of the fake source that is shown."""
    assert app.view.frame is not None
    return round(app.view.frame.mono - 1000)


def plays(app: ProbetopApp) -> bool:
    return app.controllers.playback.playing


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (120, 40)])
async def test_each_moment_looks_as_it_did_live(
    run: Run, replay: Replay, tmp_path: Path, columns: int, rows: int
) -> None:
    live = Moments()
    async with run(columns, rows, ticks=1) as (app, pilot, source):
        await live.live(app, pilot, source, 14)
    path = recorded(tmp_path / "a.ptrec", list(live.frames.values()))
    async with replay(path, columns, rows) as (app, pilot):
        await pilot.press("space")
        assert painted(app) == live.shown[2]
        for _ in range(6):
            await pilot.press("right")
            assert painted(app) == live.shown[tick(app)]
        assert tick(app) == 8
        for key, at in (("right_square_bracket", 15), ("left", 14), ("comma", 4)):
            await pilot.press(key)
            assert tick(app) == at
            assert painted(app) == live.shown[at]


async def test_the_header_says_how_far_it_is(replay: Replay, path: Path) -> None:
    async with replay(path) as (app, pilot):
        assert "replay of a.ptrec" in header(app)
        assert "PLAY 0:00/0:23" in header(app)
        await pilot.press("space")
        assert "PAUSED 0:00/0:23" in header(app)
        for key, said in (
            ("full_stop", "PAUSED 0:10/0:23"),
            ("right", "PAUSED 0:11/0:23"),
            ("comma", "PAUSED 0:01/0:23"),
            ("right_square_bracket", "END 0:23/0:23"),
            ("left_square_bracket", "PAUSED 0:00/0:23"),
            ("greater_than_sign", "PAUSED x2 0:00/0:23"),
            ("space", "PLAY x2 0:00/0:23"),
        ):
            await pilot.press(key)
            assert said in header(app)
            assert "PAST" not in header(app)


async def test_it_plays_at_its_speed_and_stays_at_the_end(
    replay: Replay, path: Path, clock: Clock
) -> None:
    async with replay(path) as (app, pilot):
        app.controllers.playback._shown_at = clock.now
        seen = []
        for speed in (1, 1, 2, 4):
            app.controllers.playback.speed = float(speed)
            clock.now += 1.0
            app.controllers.playback._play_on()
            seen.append(tick(app))
            assert plays(app)
        assert seen == [3, 4, 6, 10]
        app.controllers.playback.speed = 16.0
        clock.now += 1.0
        app.controllers.playback._play_on()
        await pilot.pause(0)
        assert tick(app) == FRAMES
        assert not plays(app)
        assert "END x16 0:23/0:23" in header(app)
        assert "the recording ends after 25 frames" in footer(app)
        assert app.is_running
        assert app.ended is None
        await pilot.press("space")
        assert plays(app)
        assert tick(app) == 2


async def test_a_hole_is_waited_for_five_seconds_at_most(
    replay: Replay, tmp_path: Path, clock: Clock
) -> None:
    source = FakeSource()
    frames = [source.frame() for _ in range(4)]
    source.tick = 3600
    frames += [source.frame() for _ in range(3)]
    async with replay(recorded(tmp_path / "a.ptrec", frames)) as (app, pilot):
        await pilot.press("full_stop")
        assert tick(app) == 4
        assert app.controllers.playback._gap(app.view.player.now()) == 5.0
        app.controllers.playback.play()
        clock.now += 5.0
        app.controllers.playback._play_on()
        assert tick(app) == 3601


async def test_keys_that_move_hold_the_recording(replay: Replay, path: Path) -> None:
    for key in ("right", "full_stop", "left_square_bracket", "right_square_bracket"):
        async with replay(path) as (app, pilot):
            assert plays(app)
            await pilot.press(key)
            assert not plays(app)
            assert app.controllers.playback._play_timer is None


async def test_speeds_end_at_either_side(replay: Replay, path: Path) -> None:
    async with replay(path) as (app, pilot):
        await pilot.press("space", *["greater_than_sign"] * 5)
        assert app.controllers.playback.speed == 16.0
        assert "the speed stays at 16x: it is the last step" in footer(app)
        await pilot.press(*["less_than_sign"] * 7)
        assert app.controllers.playback.speed == 0.25
        assert "PAUSED x0.25" in header(app)
        assert "the speed stays at 0.25x" in footer(app)


async def test_before_the_first_and_behind_the_last_is_one_line(replay: Replay, path: Path) -> None:
    async with replay(path) as (app, pilot):
        await pilot.press("left")
        assert "the recording begins here" in footer(app)
        await pilot.press("right_square_bracket", "right")
        assert "the recording ends after 25 frames" in footer(app)
        assert tick(app) == FRAMES


async def test_end_moves_the_cursor_for_there_is_no_now(replay: Replay, path: Path) -> None:
    async with replay(path, 80, 24) as (app, pilot):
        await pilot.press("space", "end")
        assert tick(app) == 2
        table = app.dashboard.panes[0].pane.table  # type: ignore[attr-defined]
        assert table.index == len(table.rows) - 1


async def test_damage_is_said(replay: Replay, path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-40] ^= 0xFF
    path.write_bytes(content)
    async with replay(path) as (app, pilot):
        assert "the recording is damaged in 1 place" in footer(app)
        await pilot.press("right_square_bracket")
        said = "the recording ends after 24 frames; the recording is damaged in 1 place"
        assert said in footer(app)
        assert tick(app) == FRAMES - 1


async def test_what_cannot_be_changed_is_one_line(replay: Replay, path: Path) -> None:
    async with replay(path) as (app, pilot):
        await pilot.press("space")
        for keys, said in (
            (("plus",), "the interval was recorded: < and > change the speed"),
            (("r",), "this is a recording already"),
            (("l",), "latency of syscalls cannot be changed in a recording"),
            (("v", "p"), "filters in the kernel cannot be changed in a recording"),
        ):
            await pilot.press(*keys)
            assert said in footer(app)


async def test_a_probe_of_a_recording_is_hidden_and_shown(replay: Replay, path: Path) -> None:
    async with replay(path) as (app, pilot):
        await pilot.press("space", "full_stop")
        before = painted(app)
        await pilot.press("2")
        assert "off: press 2" in "\n".join(
            ["".join([text for text, _ in line]) for line in painted(app)]
        )
        await pilot.press("right", "left", "2")
        assert painted(app) == before


async def test_windows_are_of_what_was_recorded(run: Run, replay: Replay, tmp_path: Path) -> None:
    live = Moments()
    async with run(120, 40, ticks=1) as (app, pilot, source):
        await live.live(app, pilot, source, 12)
        await pilot.press("w")
        await live.live(app, pilot, source, 4)
    path = recorded(tmp_path / "a.ptrec", list(live.frames.values()))
    async with replay(path) as (app, pilot):
        await pilot.press("space", "w", "right_square_bracket")
        assert painted(app) == live.shown[17]
        assert "over 10 s" in header(app)


async def test_export_is_of_the_minute_up_to_what_is_shown(
    replay: Replay, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with replay(path) as (app, pilot):
        await pilot.press("space", "full_stop", "e", "ctrl+u", *"b.json", "enter")
        assert "b.json" in await written(app)
        assert tick(app) == 12
    summary = json.loads((tmp_path / "b.json").read_text())
    assert (summary["frames"], summary["seconds"]) == (12, 11)


async def test_a_recording_begun_late_shows_no_total_as_a_rate(
    replay: Replay, tmp_path: Path
) -> None:
    source = FakeSource()
    frames = [source.frame() for _ in range(40)][30:]
    async with replay(recorded(tmp_path / "a.ptrec", frames)) as (app, pilot):
        await pilot.press("space")
        assert tick(app) == 32
        old, new = (frame.samples["syscalls"].cost.events for frame in frames[:2])
        assert f" {fmt_count(new - old)}/s" in shown(app, "syscalls").splitlines()[0]


async def test_one_frame_alone_is_shown(replay: Replay, tmp_path: Path) -> None:
    path = recorded(tmp_path / "a.ptrec", [FakeSource().frame()])
    async with replay(path) as (app, pilot):
        await pilot.press("left", "right", "comma", "left_square_bracket", "space")
        assert "0:00/0:00" in header(app)
        assert tick(app) == 1


async def test_a_key_before_the_recording_begins_acts_on_what_plays(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins: list[Callable[[], None]] = []
    for key in ("space", "right_square_bracket"):
        app = dashboard(ReplaySource(path))
        monkeypatch.setattr(app, "call_after_refresh", begins.append)
        async with app.run_test(size=(120, 40)) as pilot:
            await pilot.press(key)
            at = app.view.player.number
            begins.pop()()
            assert not plays(app)
            assert app.view.player.number == at
