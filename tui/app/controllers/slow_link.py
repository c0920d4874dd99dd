# SPDX-License-Identifier: Apache-2.0
"""What becomes of a slow terminal: fewer Frames and no graphs; and the key for it.

A Frame is drawn only when the terminal has taken all that came before, so none is ever queued.
What is painted between Frames (a cursor that moves) waits for the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar

from rich.console import RenderableType
from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.timer import Timer

from tui.app.controllers.exporting import ExportActions
from tui.app.messages import Resumed, WireIdle
from tui.shared.styled_lines import Span
from tui.terminal import driver
from tui.terminal.compositor import CellScreen
from tui.terminal.link_quality import EVERY, Link
from tui.terminal.writer import Wire
from tui.widgets.footer import Hint

SLOW_LINK = "Slow link: few frames without graphs, on or off"


class LinkActions(ExportActions):
    """The part of the program that keeps to what the terminal can take.

    `wire` is None where nothing is sent to a terminal.
    """

    wire: Wire | None = None
    BINDINGS: ClassVar[list[BindingType]] = [Binding("b", "slow_link", "Slow link", show=False)]

    def __init__(self) -> None:
        super().__init__()
        self.link = Link()
        self._link_timer: Timer | None = None

    def find_wire(self) -> None:
        """Take the driver's wire, if it has one."""
        own = driver.of(self)
        self.wire = None if own is None else own.wire

    # -- when to paint ------------------------------------------------------------------

    def may_paint(self) -> bool:
        """Whether the terminal has taken all so far; if not, WireIdle will follow."""
        return self.wire is None or self.wire.ask_idle()

    def may_draw(self) -> bool:
        """Whether a Frame may be drawn now; if not, `catch_up` is called as soon as it may."""
        wait = self.link.wait()
        if wait <= 0:
            return self.may_paint()
        if self._link_timer is None:
            self._link_timer = self.set_timer(wait, self._due)
        return False

    def _due(self) -> None:
        self._link_timer = None
        self.catch_up()

    def pace(self) -> float:
        """Seconds from one Frame to the next at least, while the past is played."""
        return self.link.every

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        """Send a repaint, or have the screen painted anew when there is room for it."""
        own = driver.of(self)
        if own is None or renderable is None or self._batch_count:
            super()._display(screen, renderable)
        elif self.may_paint():
            with own.paint():
                super()._display(screen, renderable)
        else:
            own.wire.torn = True

    def on_wire_idle(self, message: WireIdle) -> None:
        """Paint what could not be painted before."""
        self.watch_link()
        if self.wire is not None and self.wire.torn:
            self.repaint_all()
        elif isinstance(self.screen, CellScreen):
            self.screen.paint_held()
        self.catch_up()

    def on_resumed(self, message: Resumed) -> None:
        """Somebody else had the terminal."""
        self.repaint_all()

    def repaint_all(self) -> None:
        """Paint the whole screen."""
        if self.wire is not None:
            self.wire.torn = False
        self.screen.refresh()

    # -- slow ---------------------------------------------------------------------------

    def watch_link(self) -> None:
        """Judge what the terminal took since this was done last."""
        if self.wire is not None:
            was, level = self.link.slow, self.link.level
            self.link.observe(self.wire.stall())
            if was != self.link.slow or level != self.link.level:
                self._adapt()

    def _adapt(self) -> None:
        """Draw graphs or leave them out, and say so."""
        look = replace(self.dashboard.look, drawings=self.draws_graphs())
        for widget in self.dashboard.panes:
            widget.pane.look = look
        if self._link_timer is not None:
            self._link_timer.stop()
            self._link_timer = None
        self.tell_time()
        self.dashboard.repaint()
        self.catch_up()

    def draws_graphs(self) -> bool:
        """Whether there are graphs."""
        return not self.link.slow

    def action_slow_link(self) -> None:
        """Few Frames without graphs, or all again."""
        link = self.link
        link.turn()
        self._adapt()
        if link.slow:
            self.say(f"slow link: a frame every {EVERY[1]:g} s, without graphs; b ends it", "dim")
        elif link.mode == "full":
            self.say("every frame that the terminal takes, with graphs, however slow it is", "dim")
        else:
            self.say("every frame with graphs, until the terminal blocks", "dim")

    def drew(self) -> None:
        """Note that a Frame is drawn, and how many bytes a second were sent since the last."""
        self.link.drew(None if self.wire is None else self.wire.written)

    def marks(self) -> list[Span]:
        """What the header has to point out."""
        slow: list[Span] = [(" slow link ", "badge.warn")] if self.link.slow else []
        return [*super().marks(), *slow]

    def tell_time(self) -> None:
        """Have the header say how many bytes a second are sent."""
        super().tell_time()
        self.dashboard.header.state.wire = self.link.rate

    def _hints(self) -> tuple[list[Hint], list[Hint]]:
        first, last = super()._hints()
        return [*first, *([("b", "all frames")] if self.link.slow else [])], last

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """What the palette lists."""
        yield from super().get_system_commands(screen)
        yield SystemCommand(SLOW_LINK, "key b", self.action_slow_link)
