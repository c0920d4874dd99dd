# SPDX-License-Identifier: Apache-2.0
"""The dashboard as a program: Frames and keys in, the screen out.

The source's thread leaves each Frame in a mailbox of one and posts one message; the screen
takes it in one batch, gives it to every pane and repaints the cells that differ.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial

from textual import events
from textual.screen import Screen

from probes.base import ProbeError, Source
from probes.history import SECONDS, History
from probes.samples import Frame
from tui.app.controllers.budget import BudgetActions
from tui.app.messages import FrameReady, HungUp, RecordingFailed, SourceEnded
from tui.app.screen import DashboardScreen
from tui.registry import REGISTRY
from tui.sessions.session import Feed
from tui.shared import theme as looks
from tui.shared.text import fmt_bytes, fmt_clock, safe
from tui.shared.theme import Look
from tui.widgets.cells import CellWidget


class ProbetopApp(BudgetActions):
    """Shows a Source. `ended` is the sentence with which the source ended, if it did.

    `history` seconds of Frames are kept for going back in time, unless it is a recording.
    """

    # The palette's icon is an emoji, which neither consoles nor all fonts have.
    CSS = "CommandPalette SearchIcon { display: none; }"

    def __init__(
        self,
        source: Source,
        *,
        ascii: bool = False,  # noqa: A002
        history: float = SECONDS,
    ) -> None:
        super().__init__()
        self._shows = source
        self.look = looks.choose(ascii)
        self.ended: str | None = None
        self._stopping: threading.Thread | None = None
        self._begun = False
        self.adopt(self.make_feeds(history))
        panes = list(zip(REGISTRY, self.feed.panes, strict=True))
        self.dashboard = DashboardScreen(self.look, panes, self.make_bars(self.look))
        self.dashboard.footer.resized = self.dashboard.place
        self.dashboard.may_paint = self.may_paint
        self.dashboard.header.state.title = "" if source.live else source.title

    def make_feeds(self, history: float) -> Feed:
        """What is shown first, with that many seconds of Frames."""
        return Feed(self._shows, self.look, History(history), self.check_now)

    def make_bars(self, look: Look) -> Sequence[CellWidget]:
        """Lines between the header and the panes."""
        return ()

    def adopt(self, feed: Feed) -> None:
        """Have keys and what is shown be of this source."""
        self.feed = feed
        self.source, self.replays = feed.source, feed.replays
        self.recorder, self.history, self.travel = feed.recorder, feed.history, feed.travel

    # -- Frames -------------------------------------------------------------------------

    def get_default_screen(self) -> Screen[object]:
        """The dashboard."""
        return self.dashboard

    def on_mount(self) -> None:
        """Start the source; a terminal that goes away, or a kill, ends the program cleanly."""
        loop = asyncio.get_running_loop()
        self.find_wire()
        for number in (signal.SIGTERM, signal.SIGHUP):
            try:
                loop.add_signal_handler(number, partial(self.exit, return_code=128 + number))
            except (ValueError, RuntimeError, NotImplementedError):
                break
        if self.replays:
            # A recording is played from here, forwards and backwards.
            self.call_after_refresh(self.begin_replay)
            return
        self.start_sources()

    def start_sources(self) -> None:
        """Have Frames come."""
        self.start_feed(self.feed)

    def start_feed(self, feed: Feed) -> None:
        """Have Frames of one source come, if it can be started."""
        ended = partial(self._on_end, feed)
        try:
            feed.source.start(partial(self._on_frame, feed), ended)
        except ProbeError as error:
            ended(str(error))

    def on_resize(self, event: events.Resize) -> None:
        """Graphs show as many intervals as there are columns."""
        self.travel.drawn = event.size.width

    def on_key(self, event: events.Key) -> None:
        """A recording begins before the first key acts on it."""
        if self.replays:
            self.begin_replay()

    def begin_replay(self) -> None:
        """Play the recording from its first Frame on, once."""
        if self._begun:
            return
        self._begun = True
        self.action_oldest()
        self.play()
        if self.travel.timeline.damage:
            self.say(self.travel.timeline.damage, "warn")

    def _on_frame(self, feed: Feed, frame: Frame) -> None:
        failed = feed.keep(frame)
        if failed is not None:
            self.post_message(RecordingFailed(failed))
        # One that begins to be shown meanwhile takes its newest Frame from its history.
        if feed is self.feed and feed.mailbox.put(frame):
            self.post_message(FrameReady())

    def _on_end(self, feed: Feed, why: str) -> None:
        self.post_message(SourceEnded(feed, why))

    def on_frame_ready(self) -> None:
        """Show the Frame, unless the screen is paused: then the mailbox goes on merging."""
        self.catch_up()

    def catch_up(self) -> None:
        """Show the newest Frame if it was not shown, as soon as the terminal can take it."""
        if self.paused:
            return
        frame = self.feed.mailbox.take()
        if frame is not None:
            self.watch_link()
        if self.in_past:
            # It is in the history; only how long ago the moment was has changed.
            if frame is not None and self.may_draw():
                self.drew()
                self.refresh_time()
            return
        if frame is not None and not self._has_shown(frame):
            self.travel.take(frame)
        if self.travel.behind and self.may_draw():
            self._show_newest()

    def _has_shown(self, frame: Frame) -> bool:
        """Whether coming back to now has shown it already, from the history."""
        shown, newest = self.travel.frame, self.history.end - 1
        if shown is None or newest < self.history.first:
            return False
        return frame.mono <= shown.mono <= self.history.mono(newest)

    def show(self, frame: Frame) -> None:
        """Give a Frame to all panes and repaint what it changed."""
        self.travel.take(frame)
        self._show_newest()

    def _show_newest(self) -> None:
        widgets = self.dashboard.panes
        was_off = [widget.pane.state == "off" for widget in widgets]
        self.travel.show_newest()
        self.frame = self.travel.frame
        self.forget_wishes()
        self.drew()
        with self.batch_update():
            self.tell_time()
            if was_off == [widget.pane.state == "off" for widget in widgets]:
                self.dashboard.repaint()
            else:
                self.dashboard.settle()

    def kept(self) -> str:
        """How long and how large the history is, and if there was no room for more."""
        if self.replays:
            return ""
        text = f"{fmt_clock(self.history.span)} {fmt_bytes(self.history.size)}"
        return f"{text}, no room for more" if self.history.short else text

    def action_toggle_probe(self, name: str) -> None:
        """Attach or detach a probe; of a recording, show or hide it."""
        super().action_toggle_probe(name)
        if self.replays:
            self.travel.again()
            self.show_moment()

    def exit(
        self, result: int | None = None, return_code: int = 0, message: object | None = None
    ) -> None:
        """Leave; the source is stopped while the terminal is put back as it was."""
        self.stop_source()
        super().exit(result, return_code)

    def stop_source(self) -> threading.Thread:
        """Stop the source, once, in a thread that the caller may wait for."""
        if self._stopping is None:
            self._stopping = threading.Thread(target=self.source.stop, name="stop source")
            self._stopping.start()
        return self._stopping

    def end_recordings(self) -> None:
        """Close what is being written."""
        self.recorder.end()

    def on_hung_up(self, message: HungUp) -> None:
        """The terminal is gone, whether or not a signal says so."""
        self.exit(return_code=128 + signal.SIGHUP)

    def on_source_ended(self, message: SourceEnded) -> None:
        """Nothing more will come of a source."""
        self.source_ended(message.feed, message.why)

    def source_ended(self, feed: Feed, why: str) -> None:
        """Leave, saying why."""
        self.ended = why
        self.exit(return_code=1)


def run_app(
    source: Source,
    *,
    ascii: bool = False,  # noqa: A002
    history: float = SECONDS,
) -> int:
    """Show a Source until the user quits or it ends; the source is stopped in any case.

    Returns the program's exit status: 0, 1 with a sentence on stderr when the source ended
    by itself, 2 without a terminal, 128 and its number for a signal.
    """
    return run(lambda: ProbetopApp(source, ascii=ascii, history=history))


def run(make: Callable[[], ProbetopApp]) -> int:
    """Run a dashboard on the terminal, if there is one; returns the status of `run_app`."""
    if not (sys.stdin.isatty() and sys.__stderr__ is not None and sys.__stderr__.isatty()):
        print(
            "probetop: the dashboard needs a terminal on stdin and stderr: "
            "for scripts there is 'probetop stream'",
            file=sys.stderr,
        )
        return 2
    app = make()
    try:
        app.run()
    finally:
        app.stop_source().join()
        app.end_recordings()
    if app.ended is not None:
        # A terminal that takes nothing would be waited for.
        if app.wire is None or not app.wire.held:
            print(f"probetop: {safe(app.ended, app.look.plain)}", file=sys.stderr)
        return 1
    return app.return_code or 0
