# SPDX-License-Identifier: Apache-2.0
"""Creates all controllers of a dashboard and connects them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from textual.message import Message

from tui.app.announcer import Announcer
from tui.app.controllers.budget import BudgetControl
from tui.app.controllers.drawing import Drawing
from tui.app.controllers.exporting import Exporting
from tui.app.controllers.hosts import Hosts
from tui.app.controllers.pane_commands import PaneCommands
from tui.app.controllers.playback import Playback
from tui.app.controllers.recording import Recording
from tui.app.controllers.slow_link import SlowLink
from tui.app.controllers.source_commands import SourceCommands
from tui.app.controllers.window_choice import WindowChoice
from tui.app.screen import DashboardScreen
from tui.app.status import Status
from tui.app.view import Program, View


class Controllers:
    """All controllers, created in the order of their dependencies.

    `picture` returns the screen as SVG, see `Exporting`; `post` posts a message from any thread.
    """

    def __init__(
        self,
        view: View,
        board: DashboardScreen,
        program: Program,
        picture: Callable[[], str],
        post: Callable[[Message], object],
    ) -> None:
        status = self.status = Status(view, board)
        say = self.announcer = Announcer(board.footer, program)
        self.slow_link = SlowLink(say, program)
        self.budget = BudgetControl(view, say, lambda: self.slow_link.link.clock())
        self.drawing = Drawing(view, board, status, self.slow_link, self.budget, program)
        self.panes = PaneCommands(view, board, say)
        self.source = SourceCommands(view, board, say, self.drawing)
        self.playback = Playback(
            view, board, status, say, self.drawing, self.slow_link, self.panes, program
        )
        self.window = WindowChoice(view, board, status, say)
        self.recording = Recording(view, board.footer, status, say)
        self.exporting = Exporting(view, board.footer, say, picture, post)
        self.hosts = Hosts(view, board, say, self.drawing, self.playback, self.slow_link)
        board.may_paint = self.slow_link.may_paint
        self._connect_status(status)

    def _connect_status(self, status: Status) -> None:
        """Register the controllers that write to the header and the footer, in display order."""
        shown = (self.playback, self.slow_link, self.budget, self.hosts)
        status.header_updates = (*(each.update_header for each in shown), self.window.update_header)
        status.marks = (self.recording.marks, self.slow_link.marks, self.hosts.marks)
        status.hints = tuple([each.hints for each in shown])

    def commands(self) -> Mapping[str, Callable[..., object]]:
        """The functions that carry out the keys, by the command names in `tui.shared.keys`."""
        playback, panes, source = self.playback, self.panes, self.source
        return {
            "toggle_probe": source.toggle_probe,
            "focus_pane": panes.focus,
            "zoom": panes.zoom,
            "enter": panes.enter,
            "step_out": panes.step_out,
            "move": panes.move,
            "sort": panes.sort,
            "filter": panes.filter,
            "kernel_filter": source.kernel_filter,
            "only_process": source.only_process,
            "find": source.find,
            "pause": playback.pause,
            "step": playback.step,
            "leap": playback.leap,
            "end": playback.end,
            "oldest": playback.oldest,
            "newest": playback.newest,
            "speed": playback.change_speed,
            "window": self.window.next,
            "export": self.exporting.ask,
            "record": self.recording.toggle,
            "interval": source.interval,
            "slow_link": self.slow_link.turn,
            "lift_budget": self.budget.lift,
            "host": self.hosts.next,
            "help": panes.help,
        }
