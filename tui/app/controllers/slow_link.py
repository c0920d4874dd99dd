# SPDX-License-Identifier: Apache-2.0
"""Adapts to a slow terminal: fewer Frames and no graphs.

A Frame is drawn only after the terminal has taken all earlier output, so Frames never queue up.
"""

from __future__ import annotations

from collections.abc import Callable

from textual.timer import Timer

from tui.app.announcer import Announcer
from tui.app.status import Hints
from tui.app.view import Program
from tui.shared.keys import hint
from tui.shared.styled_lines import Span
from tui.terminal.link_quality import EVERY, Link
from tui.terminal.writer import TerminalWriter
from tui.widgets.header import HeaderState


class SlowLink:
    """Limits the output to what the terminal takes.

    `writer` is None if there is no terminal. `due` is called when a delayed Frame may be drawn;
    `adapt` is called when graphs are switched on or off.
    """

    def __init__(self, announcer: Announcer, program: Program) -> None:
        self._announcer = announcer
        self._program = program
        self._timer: Timer | None = None
        self.writer: TerminalWriter | None = None
        self.link = Link()
        self.due: Callable[[], None] = lambda: None
        self.adapt: Callable[[], None] = lambda: None

    def may_paint(self) -> bool:
        """True if the terminal has taken all output; otherwise a WireIdle message follows."""
        return self.writer is None or self.writer.ask_idle()

    def may_draw(self) -> bool:
        """True if a Frame may be drawn now; otherwise `due` is called as soon as it may."""
        wait = self.link.wait()
        if wait <= 0:
            return self.may_paint()
        if self._timer is None:
            self._timer = self._program.set_timer(wait, self._rung)
        return False

    def _rung(self) -> None:
        self._timer = None
        self.due()

    def wait_no_more(self) -> None:
        """Cancel the timer for the next Frame."""
        if self._timer is not None:
            self._timer.stop()
            self._timer = None

    def pace(self) -> float:
        """Least seconds between two Frames during playback."""
        return self.link.every

    def watch(self) -> None:
        """Update the link's quality by what the terminal took since the last call."""
        if self.writer is not None:
            was, level = self.link.slow, self.link.level
            self.link.observe(self.writer.stall())
            if was != self.link.slow or level != self.link.level:
                self.adapt()

    def drew(self) -> None:
        """Note that a Frame was drawn, and compute the bytes per second since the last Frame."""
        self.link.drew(None if self.writer is None else self.writer.written)

    def turn(self) -> None:
        """Toggle between few Frames without graphs and all Frames with graphs."""
        link = self.link
        link.turn()
        self.adapt()
        if link.slow:
            text = f"slow link: a frame every {EVERY[1]:g} s, without graphs; b ends it"
        elif link.mode == "full":
            text = "every frame that the terminal takes, with graphs, however slow it is"
        else:
            text = "every frame with graphs, until the terminal blocks"
        self._announcer.say(text, "dim")

    def marks(self) -> list[Span]:
        """The header's mark for a slow link."""
        return [(" slow link ", "badge.warn")] if self.link.slow else []

    def update_header(self, header: HeaderState) -> None:
        """Set the header's bytes per second."""
        header.sent_rate = self.link.rate

    def hints(self) -> Hints:
        """The key that ends the slow mode."""
        return ([hint("slow_link")] if self.link.slow else []), []
