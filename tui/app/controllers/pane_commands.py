# SPDX-License-Identifier: Apache-2.0
"""What keys do to panes: focus, cursor, drill-down, order, text filter, zoom, help."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from textual.app import SystemCommand

from probes.core.errors import ProbeError
from tui.app.announcer import Announcer
from tui.app.screen import DashboardScreen
from tui.app.view import View
from tui.shared.keys import FIND, help_rows
from tui.shared.line_editor import Prompt


class PaneCommands:
    """Acts on keys of the pane in focus, and on those that choose it."""

    def __init__(self, view: View, board: DashboardScreen, announcer: Announcer) -> None:
        self._view = view
        self._board = board
        self._say = announcer.say

    def press(self, key: str) -> bool:
        """A key that may be the pane's own; False if it is not."""
        try:
            if self._board.in_focus.pane.press(key):
                self._board.repaint()
                return True
        except ProbeError as error:
            self._say(str(error))
        return False

    def focus(self, way: int) -> None:
        """Focus the next pane or the one before."""
        self._board.step(way)

    def move(self, to: str) -> None:
        """Move the cursor of the pane in focus."""
        self._board.in_focus.pane.move(to)
        self._board.repaint()

    def enter(self) -> None:
        """Drill in."""
        if self._board.in_focus.pane.enter():
            self._board.repaint()

    def step_out(self) -> None:
        """Out of the drill-down, else of the text filter, else of the zoom."""
        pane = self._board.in_focus.pane
        if pane.back():
            self._board.repaint()
        elif pane.filter:
            self._set_text_filter("")
        elif self._board.zoomed:
            self.zoom()

    def zoom(self) -> None:
        """Give the pane in focus the whole screen, or back."""
        self._board.zoomed = not self._board.zoomed
        self._board.place()

    def sort(self, reverse: bool) -> None:
        """Sort by the next column, or turn the order round."""
        self._board.in_focus.pane.sort(reverse)
        self._board.repaint()

    def filter(self) -> None:
        """Type a text that rows must contain; it acts while it is typed."""
        self._board.footer.open(
            Prompt(
                "filter:",
                submit=lambda text: None,
                cancel=lambda: self._set_text_filter(""),
                changed=self._set_text_filter,
                text=self._board.in_focus.pane.filter,
                hint="rows that contain this; enter keeps it, esc clears it",
            )
        )

    def _set_text_filter(self, text: str) -> None:
        self._board.in_focus.pane.set_filter(text)
        self._board.repaint()

    def help(self) -> None:
        """Show all keys."""
        board = self._board
        focus = board.in_focus.pane
        extra = [*own_keys(self._view.several), *focus.options()]
        if board.finding is not None:
            extra.append(("f", FIND))
        others = [widget.pane for widget in board.panes if widget.pane is not focus]
        extra += [option for pane in others for option in pane.options()]
        board.help.open(board.size.width, board.size.height, extra, focus.reading)

    def palette(self) -> Iterator[SystemCommand]:
        """The panes' own keys."""
        for index, widget in enumerate(self._board.panes):
            for key, what in widget.pane.options():
                yield SystemCommand(what, f"key {key}", partial(self._press_of, index, key))

    def _press_of(self, index: int, key: str) -> None:
        self._board.set_pane(index)
        self.press(key)
        self._board.repaint()


def own_keys(several: bool) -> list[tuple[str, str]]:
    """The help's lines that not every dashboard has."""
    marks = ("! ~", "line of hosts: probes that failed, that do without something")
    return [*help_rows(several=True), marks] if several else []
