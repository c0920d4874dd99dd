# SPDX-License-Identifier: Apache-2.0
"""What the header and the footer say of the moment and of what the controllers do."""

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
"""Keys that do something now: before all others, and behind those of panes."""


class Status:
    """Collects it from the controllers, in their order.

    `tells` set what the header says; `marks` are what it points out; `hints` are the footer's keys.
    """

    def __init__(self, view: View, board: DashboardScreen) -> None:
        self._view = view
        self._board = board
        self.tells: Sequence[Callable[[HeaderState], None]] = ()
        self.marks: Sequence[Callable[[], list[Span]]] = ()
        self.hints: Sequence[Callable[[], Hints]] = ()

    def refresh(self) -> None:
        """Say in the header and the footer which moment this is."""
        self.tell()
        self._board.header.repaint()
        self._board.repaint_footer()

    def tell(self) -> None:
        """Have the header and the footer say it when they are painted next."""
        view, header = self._view, self._board.header.state
        header.frame, header.before = view.travel.frame, view.travel.before
        header.paused = view.paused
        header.kept = kept_words(view)
        header.marks = [mark for marks in self.marks for mark in marks()]
        for tell in self.tells:
            tell(header)
        acts = not (view.in_past or view.replays)
        footer = self._board.footer
        footer.notice = notices.of(view.travel.frame, self._board.look, acts)
        hints = [hint() for hint in self.hints]
        self._board.time_hints = (
            [key for first, _ in hints for key in first],
            [key for _, last in hints for key in last],
        )


def kept_words(view: View) -> str:
    """In the past: how long and how large the history is, and if there was no room for more."""
    if view.replays or not view.in_past:
        return ""
    history = view.session.history
    text = f"{fmt_clock(history.span)} {fmt_bytes(history.size)}"
    return f"{text}, no room for more" if history.short else text
