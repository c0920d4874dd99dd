# SPDX-License-Identifier: Apache-2.0
"""Messages that sources and exports post to the dashboard from other threads."""

from __future__ import annotations

from textual.message import Message

from tui.sessions.session import Session


class FrameReady(Message):
    """The mailbox holds a Frame.

    Posted once for all panes, since Textual merges only adjacent messages.
    """


class FirstFrame(Message):
    """A source has delivered its first Frame."""


class SourceEnded(Message):
    """A source has ended; `why` is one sentence."""

    def __init__(self, session: Session, why: str) -> None:
        super().__init__()
        self.session = session
        self.why = why


class RecordingFailed(Message):
    """A recording has failed and ended; `why` is one sentence."""

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why


class Refused(Message):
    """A remote host refused a command; `why` is one line."""

    def __init__(self, session: Session, why: str) -> None:
        super().__init__()
        self.session = session
        self.why = why


class Exported(Message):
    """An export has ended; `text` is the footer message and `style` its style."""

    def __init__(self, text: str, style: str) -> None:
        super().__init__()
        self.text = text
        self.style = style
