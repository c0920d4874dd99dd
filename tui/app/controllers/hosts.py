# SPDX-License-Identifier: Apache-2.0
"""Other machines: how their links stand, and which of them is shown."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from textual.app import SystemCommand

from tui.app.announcer import Announcer
from tui.app.controllers.drawing import Drawing
from tui.app.controllers.playback import Playback
from tui.app.controllers.slow_link import SlowLink
from tui.app.screen import DashboardScreen
from tui.app.status import Hints
from tui.app.view import View
from tui.hosts.remote_session import RemoteSession
from tui.sessions.session import Session
from tui.shared.keys import hint
from tui.shared.styled_lines import Span
from tui.widgets.header import HeaderState

LOOK_SECONDS = 1.0
"""How often the age of what is shown, and the line of hosts, are told anew."""


class Hosts:
    """Shows one of the sessions at a time; those that are not shown go on in their histories."""

    def __init__(
        self,
        view: View,
        board: DashboardScreen,
        announcer: Announcer,
        drawing: Drawing,
        playback: Playback,
        slow_link: SlowLink,
    ) -> None:
        self._view = view
        self._board = board
        self._say = announcer.say
        self._drawing = drawing
        self._playback = playback
        self._slow_link = slow_link

    # -- links -----------------------------------------------------------------------------

    def look_now_and_then(self) -> None:
        """Say how the links stand; on a slow terminal that is told with the Frames."""
        if self._slow_link.link.wait() <= 0:
            self.look()

    def look(self) -> None:
        """Say in the header and in the line of hosts how the links stand, where that changed."""
        self.tell(self._board.header.state)
        self._board.header.repaint()
        for bar in self._board.bars:
            bar.repaint()

    def refused(self, session: Session, why: str) -> None:
        """Say why nothing becomes of a command."""
        if session is self._view.session:
            self._view.wishes.forget()
            self._say(why)
        else:
            self._say(f"{session.name}: {why}")

    def ended(self, session: Session) -> str | None:
        """A source ended: why there is nothing left to show, else None and the others go on."""
        sessions = self._view.sessions
        if any(each.ended is None for each in sessions):
            self._say(f"{session.name}: {session.ended}")
            self.look()
            return None
        return "; ".join([self._ending(each) for each in sessions])

    def _ending(self, session: Session) -> str:
        return f"{session.name}: {session.ended}" if self._view.several else session.ended or ""

    # -- which machine is shown ------------------------------------------------------------

    def next(self, way: int) -> None:
        """Show the next machine or the one before."""
        if self._view.several:
            self.show((self._view.at + way) % len(self._view.sessions))

    def show(self, index: int) -> None:
        """Show a machine, at its newest Frame."""
        view, board = self._view, self._board
        old, session = view.session, view.sessions[index]
        if session is old:
            return
        paused = view.paused
        self._playback.drop_moves()
        self._playback.stop()
        view.wishes.forget()
        # What is being typed was meant for the other machine.
        board.finder.close()
        if board.footer.prompt is not None:
            board.footer.close()
        view.session = session
        session.mailbox.take()
        for widget, pane in zip(board.panes, session.panes, strict=True):
            pane.look, widget.pane = widget.pane.look, pane
        session.travel.drawn, session.travel.window = old.travel.drawn, old.travel.window
        session.travel.go_to_newest()
        view.paused = paused
        self._drawing.show_moment()
        self.look()

    # -- what the header, the footer and the palette say -----------------------------------------

    def tell(self, header: HeaderState) -> None:
        """Have the header say how the link of the machine that is shown stands."""
        session = self._view.session
        header.silence = session.troubles() if isinstance(session, RemoteSession) else ()

    def marks(self) -> list[Span]:
        """Recordings of machines that are not shown."""
        shown = self._view.session
        others = [
            each.name
            for each in self._view.sessions
            if each is not shown and each.recorder.size is not None
        ]
        text = f" REC {others[0][:12]} " if len(others) == 1 else f" REC of {len(others)} hosts "
        return [(text, "badge.bad")] if others else []

    def hints(self) -> Hints:
        """The key to the next machine."""
        return ([hint("host")] if self._view.several else []), []

    def palette(self) -> Iterator[SystemCommand]:
        """Each machine by its name."""
        if self._view.several:
            for index, session in enumerate(self._view.sessions):
                show = partial(self.show, index)
                yield SystemCommand(f"Host {index + 1}: {session.name}", "n, N or a click", show)
