# SPDX-License-Identifier: Apache-2.0
"""Pane keys: focus, cursor, drill-down, sort order, text filter, zoom, help."""

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
    """Carries out the keys for the focused pane and the keys that choose the pane."""

    def __init__(self, view: View, board: DashboardScreen, announcer: Announcer) -> None:
        self._view = view
        self._board = board
        self._say = announcer.say

    def press(self, key: str) -> bool:
        """Pass a key to the focused pane; return False if the pane does not use it."""
        try:
            if self._board.in_focus.pane.press(key):
                self._board.repaint()
                return True
        except ProbeError as error:
            self._say(str(error))
        return False

    def focus(self, way: int) -> None:
        """Focus the next or the previous pane."""
        self._board.step(way)

    def move(self, to: str) -> None:
        """Move the cursor of the pane in focus."""
        self._board.in_focus.pane.move(to)
        self._board.repaint()

    def enter(self) -> None:
        """Drill down into the row under the cursor."""
        if self._board.in_focus.pane.enter():
            self._board.repaint()

    def step_out(self) -> None:
        """Leave the drill-down, else clear the text filter, else end the zoom."""
        pane = self._board.in_focus.pane
        if pane.back():
            self._board.repaint()
        elif pane.filter:
            self._set_text_filter("")
        elif self._board.zoomed:
            self.zoom()

    def zoom(self) -> None:
        """Toggle the focused pane between full screen and its place."""
        self._board.zoomed = not self._board.zoomed
        self._board.place()

    def sort(self, reverse: bool) -> None:
        """Sort by the next column, or reverse the order."""
        self._board.in_focus.pane.sort(reverse)
        self._board.repaint()

    def filter(self) -> None:
        """Ask for a text that rows must contain; the filter applies while it is typed."""
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
        """Toggle the list of all keys."""
        board = self._board
        focus = board.in_focus.pane
        extra = [*own_keys(self._view.several), *focus.options()]
        if board.finding is not None:
            extra.append(("f", FIND))
        others = [widget.pane for widget in board.panes if widget.pane is not focus]
        extra += [option for pane in others for option in pane.options()]
        board.help.open(board.size.width, board.size.height, extra, focus.reading)

    def palette(self) -> Iterator[SystemCommand]:
        """One palette entry for each of the panes' own keys."""
        for index, widget in enumerate(self._board.panes):
            for key, what in widget.pane.options():
                yield SystemCommand(what, f"key {key}", partial(self._press_of, index, key))

    def _press_of(self, index: int, key: str) -> None:
        self._board.set_pane(index)
        self.press(key)
        self._board.repaint()


def own_keys(several: bool) -> list[tuple[str, str]]:
    """Help lines for keys that only some dashboards have."""
    marks = ("! ~", "line of hosts: probes that failed, that do without something")
    return [*help_rows(several=True), marks] if several else []
