# SPDX-License-Identifier: Apache-2.0
"""Controllers of the dashboard, each alone: no Textual program runs here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from textual.geometry import Size
from textual.message import Message
from textual.timer import Timer

from probes.core.sample import Budget
from probes.recording.history import History
from tests.pilot.fake import FakeSource
from tui.app.announcer import NEWS_SECONDS, Announcer
from tui.app.controllers.budget import MOST_WITH_GRAPHS, BudgetControl
from tui.app.controllers.drawing import Drawing
from tui.app.controllers.exporting import Exporting
from tui.app.controllers.pane_commands import PaneCommands
from tui.app.controllers.playback import Playback
from tui.app.controllers.recording import Recording
from tui.app.controllers.slow_link import SlowLink
from tui.app.controllers.source_commands import SourceCommands
from tui.app.controllers.window_choice import WindowChoice
from tui.app.messages import Exported
from tui.app.screen import DashboardScreen
from tui.app.status import Status
from tui.app.view import View
from tui.registry import REGISTRY
from tui.sessions.session import THE_PAST, Session
from tui.shared.theme import Theme
from tui.widgets.header import HeaderState


class Ring:
    """A timer that rings when the test says so."""

    def __init__(self, delay: float, callback: Callable[[], None]) -> None:
        self.delay, self.callback, self.stopped = delay, callback, False

    def stop(self) -> None:
        self.stopped = True


class FakeProgram:
    """What controllers need of Textual, by hand."""

    def __init__(self) -> None:
        self.timers: list[Ring] = []
        self.later: list[Callable[[], None]] = []

    def set_timer(self, delay: float, callback: Callable[[], None]) -> Timer:
        self.timers.append(Ring(delay, callback))
        return cast(Timer, self.timers[-1])

    def call_later(self, callback: Callable[[], None]) -> object:
        self.later.append(callback)
        return True

    @contextmanager
    def batch_update(self) -> Iterator[None]:
        yield

    def go_on(self) -> None:
        """Call what was to be called later."""
        calls, self.later = self.later, []
        for call in calls:
            call()


class Board(DashboardScreen):
    """The screen, where no terminal tells its size."""

    @property
    def size(self) -> Size:
        return Size(120, 40)


class Bench:
    """A view of a fake source, and the objects that all controllers share."""

    def __init__(self, ticks: int = 3) -> None:
        theme = Theme()
        self.source = FakeSource()
        self.session = Session(self.source, theme, History())
        self.view = View([self.session])
        self.board = Board(theme, list(zip(REGISTRY, self.session.panes, strict=True)))
        self.program = FakeProgram()
        self.status = Status(self.view, self.board)
        self.announcer = Announcer(self.board.footer, self.program)
        self.slow_link = SlowLink(self.announcer, self.program)
        self.now = 1000.0
        self.budget = BudgetControl(self.view, self.announcer, lambda: self.now)
        self.drawing = Drawing(
            self.view, self.board, self.status, self.slow_link, self.budget, self.program
        )
        for _ in range(ticks):
            self.tick()

    def tick(self) -> None:
        """One Frame comes and is shown."""
        frame = self.source.frame()
        self.session.keep(frame)
        self.drawing.show(frame)

    @property
    def said(self) -> str:
        """The line in the footer."""
        message = self.board.footer.message
        return "" if message is None else message[0]

    @property
    def number(self) -> int:
        """The tick of the Frame that is shown."""
        assert self.view.frame is not None
        return round(self.view.frame.mono - 1000)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_line_goes_away_and_the_next_one_has_its_own_time(bench: Bench) -> None:
    bench.announcer.say("done", "dim")
    bench.announcer.say("done again", "dim")
    first, second = bench.program.timers
    assert (first.stopped, second.delay) == (True, NEWS_SECONDS)
    second.callback()
    assert bench.said == ""


def test_the_slow_link_draws_after_its_pace(bench: Bench) -> None:
    due: list[str] = []
    bench.slow_link.due = lambda: due.append("due")
    bench.slow_link.link.clock = lambda: bench.now
    bench.slow_link.turn()
    assert "slow link" in bench.said
    assert bench.slow_link.marks()
    bench.slow_link.drew()
    assert not bench.slow_link.may_draw()
    ring = bench.program.timers[-1]
    assert not bench.slow_link.may_draw()
    assert bench.program.timers[-1] is ring, "one timer is enough"
    bench.now += ring.delay
    ring.callback()
    assert due == ["due"]
    assert bench.slow_link.may_draw()


def test_the_budget_draws_one_of_many_frames_without_graphs(bench: Bench) -> None:
    adapted: list[bool] = []
    bench.budget.adapt = lambda: adapted.append(bench.budget.graphs)
    bench.source.budget = Budget(percent=2.0, drawing=4)
    bench.tick()
    assert MOST_WITH_GRAPHS < 4
    assert adapted == [False]
    assert not bench.budget.may_draw()
    bench.budget.draw_next()
    assert bench.budget.may_draw(), "whoever presses a key sees what it does"


def test_without_a_budget_nothing_is_lifted(bench: Bench) -> None:
    bench.budget.lift()
    assert bench.said == "there is no budget: nothing is reduced"
    assert bench.source.commands == []


def playback(bench: Bench) -> Playback:
    panes = PaneCommands(bench.view, bench.board, bench.announcer)
    return Playback(
        bench.view,
        bench.board,
        bench.status,
        bench.announcer,
        bench.drawing,
        bench.slow_link,
        panes,
        bench.program,
    )


def test_steps_count_together_and_end_is_now() -> None:
    bench = Bench(ticks=8)
    keys = playback(bench)
    for _ in range(3):
        keys.step(-1)
    bench.program.go_on()
    assert (bench.number, bench.view.in_past) == (5, True)
    keys.end()
    assert (bench.number, bench.view.in_past) == (8, False)


def test_the_past_takes_no_commands() -> None:
    bench = Bench(ticks=8)
    keys = playback(bench)
    keys.step(-1)
    bench.program.go_on()
    SourceCommands(bench.view, bench.board, bench.announcer, bench.drawing).interval(1)
    assert THE_PAST in bench.said
    assert bench.source.commands == []


def test_a_press_undoes_the_last_one_until_a_frame_shows_it(bench: Bench) -> None:
    commands = SourceCommands(bench.view, bench.board, bench.announcer, bench.drawing)
    commands.toggle_probe("execs")
    commands.toggle_probe("execs")
    assert bench.source.commands == [("toggle", "execs", False), ("toggle", "execs", True)]


def test_the_header_says_how_long_the_window_is(bench: Bench) -> None:
    choice = WindowChoice(bench.view, bench.board, bench.status, bench.announcer)
    header = HeaderState()
    choice.update_header(header)
    assert header.window == ""
    choice.next()
    choice.update_header(header)
    assert header.window.endswith("of 10 s")
    assert "the last 10 s" in bench.said


def test_a_recording_begins_and_ends(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recording = Recording(bench.view, bench.board.footer, bench.status, bench.announcer)
    recording.toggle()
    prompt = bench.board.footer.prompt
    assert prompt is not None
    assert prompt.submit("") is not None, "a name is missing"
    assert prompt.submit("a.ptrec") is None
    assert recording.marks()
    bench.tick()
    recording.toggle()
    assert bench.said.startswith("1 frames")
    assert (tmp_path / "a.ptrec").stat().st_size > 0


def test_an_export_that_cannot_be_drawn_is_one_line(bench: Bench) -> None:
    def picture() -> str:
        raise ImportError("gone")

    posted: list[Message] = []
    exporting = Exporting(bench.view, bench.board.footer, bench.announcer, picture, posted.append)
    exporting.ask()
    assert bench.said == "cannot export: the program's own files cannot be read (gone)"
    assert posted == []


def test_an_export_posts_what_became_of_it(bench: Bench, tmp_path: Path) -> None:
    posted: list[Any] = []
    exporting = Exporting(
        bench.view, bench.board.footer, bench.announcer, lambda: "<svg/>", posted.append
    )
    exporting.ask()
    prompt = bench.board.footer.prompt
    assert prompt is not None
    assert prompt.submit(str(tmp_path / "a.txt")) is not None, "the ending says nothing"
    exporting._write(
        str(tmp_path / "a.json"), "", bench.view.player.timeline, None, lambda seconds: None
    )
    (message,) = posted
    assert isinstance(message, Exported)
    assert message.style == "good"
    assert (tmp_path / "a.json").exists()
