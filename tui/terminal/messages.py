# SPDX-License-Identifier: Apache-2.0
"""Messages from the terminal to the application."""

from __future__ import annotations

from textual.message import Message


class WriterIdle(Message):
    """The terminal has taken all output; sent only after a call of `ask_idle`."""


class HungUp(Message):
    """The terminal is gone."""


class Resumed(Message):
    """The program was stopped, and the terminal's content is unknown."""
