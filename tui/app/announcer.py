# SPDX-License-Identifier: Apache-2.0
"""Footer messages that disappear after some seconds."""

from __future__ import annotations

from textual.timer import Timer

from tui.app.view import Program
from tui.widgets.footer import FooterBar

MESSAGE_SECONDS, NEWS_SECONDS = 6.0, 2.0
"""Seconds that an error is shown, and seconds that a confirmation is shown."""


class Announcer:
    """Shows one message at a time in the footer."""

    def __init__(self, footer: FooterBar, program: Program) -> None:
        self._footer = footer
        self._program = program
        self._timer: Timer | None = None

    def say(self, text: str, style: str = "bad") -> None:
        """Show a message for some seconds; a confirmation has the style "dim", an error "bad"."""
        self._footer.message = (text, style)
        self._footer.repaint()
        if self._timer is not None:
            self._timer.stop()
        seconds = NEWS_SECONDS if style == "dim" else MESSAGE_SECONDS
        self._timer = self._program.set_timer(seconds, self.hush)

    def hush(self) -> None:
        """Remove the message."""
        self._footer.message = None
        self._footer.repaint()
