# SPDX-License-Identifier: Apache-2.0
"""Decides when a Frame is shown: as often as the terminal and the budget allow."""

from __future__ import annotations

from dataclasses import replace

from probes.core.frame import Frame
from tui.app.controllers.budget import BudgetControl
from tui.app.controllers.slow_link import SlowLink
from tui.app.screen import DashboardScreen
from tui.app.status import Status
from tui.app.view import Program, View


class Drawing:
    """Passes Frames to the panes and repaints the cells that changed."""

    def __init__(
        self,
        view: View,
        board: DashboardScreen,
        status: Status,
        slow_link: SlowLink,
        budget: BudgetControl,
        program: Program,
    ) -> None:
        self._view = view
        self._board = board
        self._status = status
        self._slow_link = slow_link
        self._budget = budget
        self._program = program
        slow_link.due = self.catch_up
        slow_link.adapt = budget.adapt = self.adapt

    def catch_up(self) -> None:
        """Show the newest Frame if it is not shown yet and the terminal can take it.

        While the screen is paused, the mailbox goes on merging Frames.
        """
        view = self._view
        if view.paused:
            # A pause shows the last Frame before it, even if a slow link has delayed that Frame.
            if view.player.behind and not view.in_past:
                self._show_newest()
            return
        frame = view.session.mailbox.take()
        if frame is not None:
            self._slow_link.watch()
        if view.in_past:
            # The history has the Frame; on the screen only the age of the shown moment changes.
            if frame is not None and self._may_draw():
                self._drew()
                self._status.refresh()
            return
        if frame is not None and not self._has_shown(frame):
            view.player.take(frame)
        if view.player.behind and self._may_draw():
            self._show_newest()

    def show(self, frame: Frame) -> None:
        """Show a Frame now, regardless of the terminal and the budget."""
        self._view.player.take(frame)
        self._show_newest()

    def show_moment(self) -> None:
        """Repaint after the panes changed to another moment."""
        self._view.frame = self._view.player.frame
        self._view.pending.forget()
        with self._program.batch_update():
            self._status.update()
            self._board.settle()

    def adapt(self) -> None:
        """Draw graphs or omit them, and show which."""
        graphs = self._budget.graphs and not self._slow_link.link.slow
        theme = replace(self._board.theme, drawings=graphs)
        for widget in self._board.panes:
            widget.pane.theme = theme
        self._slow_link.wait_no_more()
        self._status.update()
        self._board.repaint()
        self.catch_up()

    def _may_draw(self) -> bool:
        return self._budget.may_draw() and self._slow_link.may_draw()

    def _drew(self) -> None:
        self._slow_link.drew()
        self._budget.drew()

    def _has_shown(self, frame: Frame) -> bool:
        """True if the return from the past has already shown this Frame from the history."""
        shown, history = self._view.player.frame, self._view.session.history
        newest = history.end - 1
        if shown is None or newest < history.first:
            return False
        return frame.mono <= shown.mono <= history.mono(newest)

    def _show_newest(self) -> None:
        view, widgets = self._view, self._board.panes
        was_off = [widget.pane.state == "off" for widget in widgets]
        view.player.show_newest()
        view.frame = view.player.frame
        view.pending.forget()
        self._drew()
        with self._program.batch_update():
            self._status.update()
            if was_off == [widget.pane.state == "off" for widget in widgets]:
                self._board.repaint()
            else:
                self._board.settle()
