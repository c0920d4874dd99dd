# SPDX-License-Identifier: Apache-2.0
"""Selects which remote host is shown, and reports the state of each link."""

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

LINK_SECONDS = 1.0
"""Seconds between updates of the hosts bar and of the shown Frame's age."""


class Hosts:
    """Shows one of the sessions at a time; the others go on recording into their histories."""

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

    def refresh_links(self) -> None:
        """Update the link states once a second; on a slow terminal each Frame does it instead."""
        if self._slow_link.link.wait() <= 0:
            self.update_links()

    def update_links(self) -> None:
        """Update the link states in the header and the hosts bar, where they changed."""
        self.update_header(self._board.header.state)
        self._board.header.repaint()
        for bar in self._board.bars:
            bar.repaint()

    def refused(self, session: Session, why: str) -> None:
        """Report why a host refused a command."""
        if session is self._view.session:
            self._view.pending.forget()
            self._say(why)
        else:
            self._say(f"{session.name}: {why}")

    def ended(self, session: Session) -> str | None:
        """Note that a session ended; return a sentence if no session is left, else None."""
        sessions = self._view.sessions
        if any(each.ended is None for each in sessions):
            self._say(f"{session.name}: {session.ended}")
            self.update_links()
            return None
        return "; ".join([self._ending(each) for each in sessions])

    def _ending(self, session: Session) -> str:
        return f"{session.name}: {session.ended}" if self._view.several else session.ended or ""

    # -- which machine is shown ------------------------------------------------------------

    def next(self, way: int) -> None:
        """Show the next or the previous host."""
        if self._view.several:
            self.show((self._view.at + way) % len(self._view.sessions))

    def show(self, index: int) -> None:
        """Show a host at its newest Frame."""
        view, board = self._view, self._board
        old, session = view.session, view.sessions[index]
        if session is old:
            return
        paused = view.paused
        self._playback.drop_moves()
        self._playback.stop()
        view.pending.forget()
        # A half-typed prompt belongs to the host that was shown before.
        board.finder.close()
        if board.footer.prompt is not None:
            board.footer.close()
        view.session = session
        session.mailbox.take()
        for widget, pane in zip(board.panes, session.panes, strict=True):
            pane.theme, widget.pane = widget.pane.theme, pane
        session.player.drawn, session.player.window = old.player.drawn, old.player.window
        session.player.go_to_newest()
        view.paused = paused
        self._drawing.show_moment()
        self.update_links()

    # -- header, footer and palette -----------------------------------------

    def update_header(self, header: HeaderState) -> None:
        """Set the header's link state to that of the shown host."""
        session = self._view.session
        header.silence = session.troubles() if isinstance(session, RemoteSession) else ()

    def marks(self) -> list[Span]:
        """Marks for recordings of hosts that are not shown."""
        shown = self._view.session
        others = [
            each.name
            for each in self._view.sessions
            if each is not shown and each.recorder.size is not None
        ]
        text = f" REC {others[0][:12]} " if len(others) == 1 else f" REC of {len(others)} hosts "
        return [(text, "badge.bad")] if others else []

    def hints(self) -> Hints:
        """The key for the next host."""
        return ([hint("host")] if self._view.several else []), []

    def palette(self) -> Iterator[SystemCommand]:
        """One palette entry for each host."""
        if self._view.several:
            for index, session in enumerate(self._view.sessions):
                show = partial(self.show, index)
                yield SystemCommand(f"Host {index + 1}: {session.name}", "n, N or a click", show)
