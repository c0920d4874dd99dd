# SPDX-License-Identifier: Apache-2.0
"""The dashboard as a Textual program: it owns the controllers and passes events to them.

A source's thread puts each Frame into a mailbox that holds one, and posts one message. The screen
takes the Frame in one batch, passes it to every pane and repaints the cells that changed.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import ClassVar

from rich.console import RenderableType
from rich.text import Text
from textual import events
from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from probes.core.errors import ProbeError
from probes.core.frame import Frame
from tui.app.controllers.assembly import Controllers
from tui.app.controllers.hosts import LINK_SECONDS
from tui.app.messages import (
    Exported,
    FirstFrame,
    FrameReady,
    RecordingFailed,
    Refused,
    SourceEnded,
)
from tui.app.palette import Commands
from tui.app.screen import DashboardScreen
from tui.app.view import View
from tui.hosts.hosts_bar import HostsBar, entry_of
from tui.hosts.remote_session import RemoteSession
from tui.registry import REGISTRY
from tui.sessions.session import Session
from tui.shared.keys import FIND, KEYS
from tui.shared.text import safe
from tui.shared.theme import Theme
from tui.terminal import driver
from tui.terminal.compositor import CellScreen
from tui.terminal.driver import BufferedDriver
from tui.terminal.messages import HungUp, Resumed, WriterIdle
from tui.terminal.textual_private import OpenApp

TEXTUAL_ACTIONS = ("quit", "command_palette")
"""The Textual actions that the dashboard keeps."""


class ProbetopApp(OpenApp[int]):
    """Shows one of its sessions at a time, on one screen.

    `ended` is the sentence with which the last source ended, None while any source runs. `view`
    holds what is shown; the controllers hold the rest of the state.
    """

    # The palette's default icon is an emoji, which consoles and some fonts lack.
    CSS = "CommandPalette SearchIcon { display: none; }"
    COMMANDS = {Commands}  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(key.names, key.command, show=False, priority=True) for key in KEYS if key.everywhere
    ]

    def __init__(self, sessions: Sequence[Session], theme: Theme) -> None:
        """Creates the dashboard for at least one session, whose source is not started."""
        # ansi_color keeps the terminal's own sixteen colours and lets NO_COLOR remove all colour.
        super().__init__(ansi_color=True, driver_class=BufferedDriver)
        self.ended: str | None = None
        self._stopping: threading.Thread | None = None
        self.drawing_theme = theme
        view = self.view = View(sessions)
        panes = list(zip(REGISTRY, view.session.panes, strict=True))
        board = self.dashboard = DashboardScreen(theme, panes, self._bars())
        board.header.state.title = "" if view.source.live else view.source.title
        board.footer.resized = board.place
        parts = self.controllers = Controllers(view, board, self, self._picture, self.post_message)
        board.commands = {
            **parts.commands(),
            "suspend_process": self.action_suspend_process,
            "quit": self.exit,
        }
        for session in view.sessions:
            if isinstance(session, RemoteSession):
                session.remote.refused = partial(self._on_refusal, session)

    def _bars(self) -> list[HostsBar]:
        """The bar that lists the hosts; an empty list with fewer than two remote hosts."""
        remote = [each for each in self.view.sessions if isinstance(each, RemoteSession)]
        if len(remote) < 2:
            return []
        return [
            HostsBar(
                self.drawing_theme,
                lambda: ([entry_of(each) for each in remote], self.view.at),
                lambda index: self.controllers.hosts.show(index),
            )
        ]

    def _picture(self) -> str:
        from tui.export.picture import picture

        return picture(self)

    # -- start and end ----------------------------------------------------------------

    def get_default_screen(self) -> Screen[object]:
        """Return the dashboard."""
        return self.dashboard

    def on_mount(self) -> None:
        """Start the sources, and handle SIGTERM and SIGHUP by a clean exit."""
        loop = asyncio.get_running_loop()
        own = driver.of(self)
        self.controllers.slow_link.writer = None if own is None else own.output
        for number in (signal.SIGTERM, signal.SIGHUP):
            try:
                loop.add_signal_handler(number, partial(self.exit, return_code=128 + number))
            except (ValueError, RuntimeError, NotImplementedError):
                break
        if self.view.replays:
            # This program plays the recording itself, so that it can also go backwards.
            self.call_after_refresh(self.controllers.playback.begin)
            return
        for session in self.view.sessions:
            self._start(session)
        if any(isinstance(each, RemoteSession) for each in self.view.sessions):
            self.set_interval(LINK_SECONDS, self.controllers.hosts.refresh_links)
            self.controllers.hosts.update_links()

    def _start(self, session: Session) -> None:
        """Start one source; a source that cannot start counts as ended."""
        try:
            session.source.start(partial(self._on_frame, session), partial(self._on_end, session))
        except ProbeError as error:
            self._on_end(session, str(error))

    def exit(
        self, result: int | None = None, return_code: int = 0, message: object | None = None
    ) -> None:
        """Exit; the sources stop while the terminal is restored."""
        self.stop_sources()
        super().exit(result, return_code)

    def stop_sources(self) -> threading.Thread:
        """Stop all sources once, in parallel, in the returned thread; the caller may join it."""
        if self._stopping is None:
            self._stopping = threading.Thread(target=self._stop_all, name="stop sources")
            self._stopping.start()
        return self._stopping

    def _stop_all(self) -> None:
        each = [threading.Thread(target=one.source.stop) for one in self.view.sessions]
        for thread in each:
            thread.start()
        for thread in each:
            thread.join()

    def end_recordings(self) -> None:
        """Close all recordings that are being written."""
        for session in self.view.sessions:
            session.recorder.end()

    # -- messages from other threads ---------------------------------------------------------

    def _on_frame(self, session: Session, frame: Frame) -> None:
        first = session.history.end == 0
        failed = session.keep(frame)
        if failed is not None:
            self.post_message(RecordingFailed(failed))
        # A session that becomes the shown one at this moment reads its newest Frame from its
        # history.
        if session is self.view.session and session.mailbox.put(frame):
            self.post_message(FrameReady())
        if first and isinstance(session, RemoteSession):
            self.post_message(FirstFrame())

    def _on_end(self, session: Session, why: str) -> None:
        self.post_message(SourceEnded(session, why))

    def _on_refusal(self, session: Session, why: str) -> None:
        self.post_message(Refused(session, why))

    def on_frame_ready(self) -> None:
        """Show the Frame, unless the screen is paused."""
        self.controllers.drawing.catch_up()

    def on_first_frame(self) -> None:
        """Update the link states: the host is no longer connecting."""
        self.controllers.hosts.update_links()

    def on_recording_failed(self, message: RecordingFailed) -> None:
        """Report a recording that failed."""
        self.controllers.recording.failed(message.why)

    def on_refused(self, message: Refused) -> None:
        """Report a command that a remote host refused."""
        self.controllers.hosts.refused(message.session, message.why)

    def on_exported(self, message: Exported) -> None:
        """Report the result of an export."""
        self.controllers.announcer.say(message.text, message.style)

    def on_source_ended(self, message: SourceEnded) -> None:
        """Report a source that ended; exit if no other source is left."""
        message.session.ended = message.why
        ended = self.controllers.hosts.ended(message.session)
        if ended is not None:
            self.ended = ended
            self.exit(return_code=1)

    # -- the terminal ------------------------------------------------------------------------

    def send_repaint(self, send: Callable[[], None]) -> None:
        """Send a repaint, or mark the screen for a full repaint if the terminal still has output
        waiting."""
        own = driver.of(self)
        if own is None:
            send()
        elif self.controllers.slow_link.may_paint():
            with own.paint():
                send()
        else:
            own.output.torn = True

    def on_writer_idle(self, message: WriterIdle) -> None:
        """Paint what was held back while the terminal was busy."""
        self.controllers.slow_link.watch()
        writer = self.controllers.slow_link.writer
        if writer is not None and writer.torn:
            self._repaint_all()
        elif isinstance(self.screen, CellScreen):
            self.screen.paint_held()
        self.controllers.drawing.catch_up()

    def on_resumed(self, message: Resumed) -> None:
        """Repaint: another program may have written to the terminal."""
        self._repaint_all()

    def _repaint_all(self) -> None:
        if self.controllers.slow_link.writer is not None:
            self.controllers.slow_link.writer.torn = False
        self.screen.refresh()

    def on_hung_up(self, message: HungUp) -> None:
        """Exit: the terminal is gone, with or without a SIGHUP."""
        self.exit(return_code=128 + signal.SIGHUP)

    def on_resize(self, event: events.Resize) -> None:
        """Keep as many intervals for graphs as the screen has columns."""
        self.view.player.drawn = event.size.width

    def error_text(self) -> RenderableType:
        """The current exception's traceback, without control characters that an error may quote."""
        lines = traceback.format_exc().splitlines()
        return Text("\n".join([safe(line) for line in lines]))

    # -- keys ------------------------------------------------------------------------------

    def on_key(self, event: events.Key) -> None:
        """Pass a key to an open overlay or prompt first, then to the focused pane."""
        # The recording starts before its first key acts on it.
        self.controllers.playback.begin()
        self.controllers.budget.draw_next()
        self.controllers.playback.before_key(event.key)
        if self.screen is not self.dashboard:
            return
        board = self.dashboard
        if board.help.take(event) or board.finder.take(event) or board.footer.take(event):
            event.prevent_default()
            return
        key = event.character if event.is_printable and event.character else event.key
        if self.controllers.panes.press(key):
            event.prevent_default()

    def on_paste(self, event: events.Paste) -> None:
        """Give pasted text to the prompt only: as keys it would run commands."""
        if self.screen is self.dashboard:
            board = self.dashboard
            if not board.finder.paste(event.text):
                board.footer.paste(event.text)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Allow only the actions in `TEXTUAL_ACTIONS`: others, such as writing a screenshot, are
        off."""
        return action in TEXTUAL_ACTIONS

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Yield the palette's entries: hosts, probes, the panes' options, all keys with a title."""
        yield from self.controllers.hosts.palette()
        yield from self.controllers.source.palette()
        yield from self.controllers.panes.palette()
        for key in KEYS:
            if key.title and (key.title != FIND or self.dashboard.finding is not None):
                act = partial(self.dashboard.commands[key.command], *key.arguments)
                yield SystemCommand(key.title, f"key {key.caps}", act)
