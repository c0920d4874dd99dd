# SPDX-License-Identifier: Apache-2.0
"""What other threads tell the dashboard: sources, and the writer of an export."""

from __future__ import annotations

from textual.message import Message

from tui.sessions.session import Session


class FrameReady(Message):
    """The mailbox holds a Frame. One a tick, not one a pane: Textual merges neighbours only."""


class FirstFrame(Message):
    """A source has given its first Frame."""


class SourceEnded(Message):
    """No Frame of a source will follow; `why` is one sentence."""

    def __init__(self, session: Session, why: str) -> None:
        super().__init__()
        self.session = session
        self.why = why


class RecordingFailed(Message):
    """The recording could not be written any further; `why` is one sentence."""

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why


class Refused(Message):
    """A machine would not do what it was asked for; `why` is one line."""

    def __init__(self, session: Session, why: str) -> None:
        super().__init__()
        self.session = session
        self.why = why


class Exported(Message):
    """Writing a file has ended: a line for the footer, and its style."""

    def __init__(self, text: str, style: str) -> None:
        super().__init__()
        self.text = text
        self.style = style
