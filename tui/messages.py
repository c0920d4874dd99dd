# SPDX-License-Identifier: Apache-2.0
"""What the source's thread tells the screen."""

from __future__ import annotations

from textual.message import Message


class FrameReady(Message):
    """The mailbox holds a Frame. One a tick, not one a pane: Textual merges neighbours only."""


class SourceEnded(Message):
    """No Frame will follow; `why` is one sentence."""

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why
