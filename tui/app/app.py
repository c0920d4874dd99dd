# SPDX-License-Identifier: Apache-2.0
"""The dashboard as a Textual program: it owns the controllers and tells them what happens.

A source's thread leaves each Frame in a mailbox of one and posts one message; the screen takes it
in one batch, gives it to every pane and repaints the cells that differ.
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
from tui.app.controllers.hosts import LOOK_SECONDS
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
from tui.shared.theme import Look
from tui.terminal import driver
from tui.terminal.compositor import CellScreen
from tui.terminal.driver import WireDriver
from tui.terminal.messages import HungUp, Resumed, WireIdle
from tui.terminal.textual_private import OpenApp

TEXTUAL_ACTIONS = ("quit", "command_palette")
"""What is used of the actions that every Textual program has."""


class ProbetopApp(OpenApp[int]):
    """Shows one of its sessions at a time, on one screen.

    `ended` is the sentence with which the sources ended, if all did. `view` tells what is shown;
    all else that can be seen or asked for is a controller's.
    """

    # The palette's icon is an emoji, which neither consoles nor all fonts have.
    CSS = "CommandPalette SearchIcon { display: none; }"
    COMMANDS = {Commands}  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(key.names, key.command, show=False, priority=True) for key in KEYS if key.everywhere
    ]

    def __init__(self, sessions: Sequence[Session], look: Look) -> None:
        """Takes at least one session, whose source is not started."""
        # ansi_color: the user's own sixteen colours, and NO_COLOR that means none at all.
        super().__init__(ansi_color=True, driver_class=WireDriver)
        self.ended: str | None = None
        self._stopping: threading.Thread | None = None
        self.look = look
        view = self.view = View(sessions)
        panes = list(zip(REGISTRY, view.session.panes, strict=True))
        board = self.dashboard = DashboardScreen(look, panes, self._bars())
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
        """The line of hosts, where there are several."""
        remote = [each for each in self.view.sessions if isinstance(each, RemoteSession)]
        if len(remote) < 2:
            return []
        return [
            HostsBar(
                self.look,
                lambda: ([entry_of(each) for each in remote], self.view.at),
                lambda index: self.controllers.hosts.show(index),
            )
        ]

    def _picture(self) -> str:
        from tui.export.picture import picture

        return picture(self)

    # -- beginning and end ----------------------------------------------------------------

    def get_default_screen(self) -> Screen[object]:
        """The dashboard."""
        return self.dashboard

    def on_mount(self) -> None:
        """Start the sources; a terminal that goes away, or a kill, ends the program cleanly."""
        loop = asyncio.get_running_loop()
        own = driver.of(self)
        self.controllers.slow_link.wire = None if own is None else own.wire
        for number in (signal.SIGTERM, signal.SIGHUP):
            try:
                loop.add_signal_handler(number, partial(self.exit, return_code=128 + number))
            except (ValueError, RuntimeError, NotImplementedError):
                break
        if self.view.replays:
            # A recording is played from here, forwards and backwards.
            self.call_after_refresh(self.controllers.playback.begin)
            return
        for session in self.view.sessions:
            self._start(session)
        if any(isinstance(each, RemoteSession) for each in self.view.sessions):
            self.set_interval(LOOK_SECONDS, self.controllers.hosts.look_now_and_then)
            self.controllers.hosts.look()

    def _start(self, session: Session) -> None:
        """Have Frames of one source come, if it can be started."""
        try:
            session.source.start(partial(self._on_frame, session), partial(self._on_end, session))
        except ProbeError as error:
            self._on_end(session, str(error))

    def exit(
        self, result: int | None = None, return_code: int = 0, message: object | None = None
    ) -> None:
        """Leave; the sources are stopped while the terminal is put back as it was."""
        self.stop_sources()
        super().exit(result, return_code)

    def stop_sources(self) -> threading.Thread:
        """Stop all sources, once, side by side, in a thread that the caller may wait for."""
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
        """Close what is being written."""
        for session in self.view.sessions:
            session.recorder.end()

    # -- what other threads tell ---------------------------------------------------------------

    def _on_frame(self, session: Session, frame: Frame) -> None:
        first = session.history.end == 0
        failed = session.keep(frame)
        if failed is not None:
            self.post_message(RecordingFailed(failed))
        # One that begins to be shown meanwhile takes its newest Frame from its history.
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
        """It is not connecting any more."""
        self.controllers.hosts.look()

    def on_recording_failed(self, message: RecordingFailed) -> None:
        """A recording could not go on."""
        self.controllers.recording.failed(message.why)

    def on_refused(self, message: Refused) -> None:
        """A machine did not do what it was asked for."""
        self.controllers.hosts.refused(message.session, message.why)

    def on_exported(self, message: Exported) -> None:
        """Say what became of the file."""
        self.controllers.announcer.say(message.text, message.style)

    def on_source_ended(self, message: SourceEnded) -> None:
        """Leave and say why, where no other source goes on."""
        message.session.ended = message.why
        ended = self.controllers.hosts.ended(message.session)
        if ended is not None:
            self.ended = ended
            self.exit(return_code=1)

    # -- the terminal ------------------------------------------------------------------------

    def send_repaint(self, send: Callable[[], None]) -> None:
        """Send a repaint, or have the screen painted anew when there is room for it."""
        own = driver.of(self)
        if own is None:
            send()
        elif self.controllers.slow_link.may_paint():
            with own.paint():
                send()
        else:
            own.wire.torn = True

    def on_wire_idle(self, message: WireIdle) -> None:
        """Paint what could not be painted before."""
        self.controllers.slow_link.watch()
        wire = self.controllers.slow_link.wire
        if wire is not None and wire.torn:
            self._repaint_all()
        elif isinstance(self.screen, CellScreen):
            self.screen.paint_held()
        self.controllers.drawing.catch_up()

    def on_resumed(self, message: Resumed) -> None:
        """Somebody else had the terminal."""
        self._repaint_all()

    def _repaint_all(self) -> None:
        if self.controllers.slow_link.wire is not None:
            self.controllers.slow_link.wire.torn = False
        self.screen.refresh()

    def on_hung_up(self, message: HungUp) -> None:
        """The terminal is gone, whether or not a signal says so."""
        self.exit(return_code=128 + signal.SIGHUP)

    def on_resize(self, event: events.Resize) -> None:
        """Graphs show as many intervals as there are columns."""
        self.view.travel.drawn = event.size.width

    def error_text(self) -> RenderableType:
        """A traceback without control characters that an error quotes."""
        lines = traceback.format_exc().splitlines()
        return Text("\n".join([safe(line) for line in lines]))

    # -- keys ------------------------------------------------------------------------------

    def on_key(self, event: events.Key) -> None:
        """Keys in their order: for what is open over the panes, else for the pane in focus."""
        # A recording begins before the first key acts on it.
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
        """Pasted text is for the prompt, and never a row of commands."""
        if self.screen is self.dashboard:
            board = self.dashboard
            if not board.finder.paste(event.text):
                board.footer.paste(event.text)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether an action exists here: most of Textual's own do not, such as writing a file."""
        return action in TEXTUAL_ACTIONS

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """What the palette lists: hosts, toggles, the panes' options, everything with a key."""
        yield from self.controllers.hosts.palette()
        yield from self.controllers.source.palette()
        yield from self.controllers.panes.palette()
        for key in KEYS:
            if key.title and (key.title != FIND or self.dashboard.finding is not None):
                act = partial(self.dashboard.commands[key.command], *key.arguments)
                yield SystemCommand(key.title, f"key {key.caps}", act)
