# SPDX-License-Identifier: Apache-2.0
"""Collects the texts of the header and the footer from the controllers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tui.app.screen import DashboardScreen
from tui.app.view import View
from tui.shared import notices
from tui.shared.keys import Hint
from tui.shared.styled_lines import Span
from tui.shared.text import fmt_bytes, fmt_clock
from tui.widgets.header import HeaderState

Hints = tuple[list[Hint], list[Hint]]
"""Keys for the start of the footer, and keys behind those of the panes."""


class Status:
    """Updates the header and the footer.

    `header_updates` set the header's fields; `marks` return its marks; `hints` return the footer's
    keys.
    """

    def __init__(self, view: View, board: DashboardScreen) -> None:
        self._view = view
        self._board = board
        self.header_updates: Sequence[Callable[[HeaderState], None]] = ()
        self.marks: Sequence[Callable[[], list[Span]]] = ()
        self.hints: Sequence[Callable[[], Hints]] = ()

    def refresh(self) -> None:
        """Update the header and the footer, and repaint them."""
        self.update()
        self._board.header.repaint()
        self._board.repaint_footer()

    def update(self) -> None:
        """Update the header and the footer for their next repaint."""
        view, header = self._view, self._board.header.state
        header.frame, header.before = view.player.frame, view.player.before
        header.paused = view.paused
        header.kept = kept_words(view)
        header.marks = [mark for marks in self.marks for mark in marks()]
        for update in self.header_updates:
            update(header)
        acts = not (view.in_past or view.replays)
        footer = self._board.footer
        footer.notice = notices.of(view.player.frame, self._board.theme, acts)
        hints = [hint() for hint in self.hints]
        self._board.time_hints = (
            [key for first, _ in hints for key in first],
            [key for _, last in hints for key in last],
        )


def kept_words(view: View) -> str:
    """The history's length and size while the past is shown, and a note if it is full."""
    if view.replays or not view.in_past:
        return ""
    history = view.session.history
    text = f"{fmt_clock(history.span)} {fmt_bytes(history.size)}"
    return f"{text}, no room for more" if history.short else text
