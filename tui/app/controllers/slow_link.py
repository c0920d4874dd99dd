# SPDX-License-Identifier: Apache-2.0
"""What becomes of a slow terminal: fewer Frames and no graphs; and the key for it.

A Frame is drawn only when the terminal has taken all that came before, so none is ever queued.
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
from tui.terminal.writer import Wire
from tui.widgets.header import HeaderState


class SlowLink:
    """Keeps to what the terminal can take.

    `wire` is None where nothing is sent to a terminal. `due` is called when a Frame may be drawn
    that could not be before; `adapt` when graphs are to be drawn or left out from now on.
    """

    def __init__(self, announcer: Announcer, program: Program) -> None:
        self._announcer = announcer
        self._program = program
        self._timer: Timer | None = None
        self.wire: Wire | None = None
        self.link = Link()
        self.due: Callable[[], None] = lambda: None
        self.adapt: Callable[[], None] = lambda: None

    def may_paint(self) -> bool:
        """Whether the terminal has taken all so far; if not, WireIdle will follow."""
        return self.wire is None or self.wire.ask_idle()

    def may_draw(self) -> bool:
        """Whether a Frame may be drawn now; if not, `due` is called as soon as it may."""
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
        """Forget that a Frame is to be drawn after a while."""
        if self._timer is not None:
            self._timer.stop()
            self._timer = None

    def pace(self) -> float:
        """Seconds from one Frame to the next at least, while the past is played."""
        return self.link.every

    def watch(self) -> None:
        """Judge what the terminal took since this was done last."""
        if self.wire is not None:
            was, level = self.link.slow, self.link.level
            self.link.observe(self.wire.stall())
            if was != self.link.slow or level != self.link.level:
                self.adapt()

    def drew(self) -> None:
        """Note that a Frame is drawn, and how many bytes a second were sent since the last."""
        self.link.drew(None if self.wire is None else self.wire.written)

    def turn(self) -> None:
        """Few Frames without graphs, or all again."""
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
        """What the header has to point out."""
        return [(" slow link ", "badge.warn")] if self.link.slow else []

    def tell(self, header: HeaderState) -> None:
        """Have the header say how many bytes a second are sent."""
        header.wire = self.link.rate

    def hints(self) -> Hints:
        """The key that ends it."""
        return ([hint("slow_link")] if self.link.slow else []), []
