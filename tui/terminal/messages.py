# SPDX-License-Identifier: Apache-2.0
"""What the terminal tells the program."""

from __future__ import annotations

from textual.message import Message


class WireIdle(Message):
    """The terminal has taken all that it was sent, as somebody wished to know."""


class HungUp(Message):
    """There is no terminal any more."""


class Resumed(Message):
    """The program stood still, and the terminal may show anything."""
