# SPDX-License-Identifier: Apache-2.0
"""Chooses the window over which rates and percentiles are computed."""

from __future__ import annotations

from probes.report.windows import SINCE_START
from tui.app.announcer import Announcer
from tui.app.screen import DashboardScreen
from tui.app.status import Status
from tui.app.view import View
from tui.shared.text import fmt_clock, fmt_seconds
from tui.widgets.header import HeaderState

WINDOWS = (None, 10.0, 60.0, SINCE_START)
"""Windows in seconds; None is one interval."""


class WindowChoice:
    """Cycles through the windows."""

    def __init__(
        self, view: View, board: DashboardScreen, status: Status, announcer: Announcer
    ) -> None:
        self._view = view
        self._board = board
        self._status = status
        self._say = announcer.say

    def next(self) -> None:
        """Use the next longer window, and one interval after the longest."""
        player = self._view.player
        seconds = WINDOWS[(WINDOWS.index(player.window) + 1) % len(WINDOWS)]
        player.show_window(seconds)
        self._status.refresh()
        self._board.repaint()
        words = "one interval" if seconds is None else f"the last {seconds:g} s"
        words = "all since the start" if seconds == SINCE_START else words
        self._say(f"rates and percentiles of {words}; graphs stay by interval", "dim")

    def update_header(self, header: HeaderState) -> None:
        """Set the header's window; empty for one interval."""
        header.window = self._words()

    def _words(self) -> str:
        view = self._view
        window, reach = view.player.window, view.player.reach
        if window is None or reach is None:
            return ""
        if window == SINCE_START:
            return f"all {fmt_clock(reach)}"
        short = abs(reach - window) > 1.5 * (view.frame.interval if view.frame else 1.0)
        return f"{fmt_seconds(reach)} of {window:g} s" if short else f"over {window:g} s"
