# SPDX-License-Identifier: Apache-2.0
"""What the source's thread tells the screen."""

from __future__ import annotations

from collections.abc import Sequence

from textual.message import Message

from probes.base import Found
from tui.sessions.session import Feed


class FrameReady(Message):
    """The mailbox holds a Frame. One a tick, not one a pane: Textual merges neighbours only."""


class SourceEnded(Message):
    """No Frame of a source will follow; `why` is one sentence."""

    def __init__(self, feed: Feed, why: str) -> None:
        super().__init__()
        self.feed = feed
        self.why = why


class RecordingFailed(Message):
    """The recording could not be written any further; `why` is one sentence."""

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why


class SearchAnswered(Message):
    """What was found for a query; another may have been typed meanwhile."""

    def __init__(self, query: str, found: Sequence[Found]) -> None:
        super().__init__()
        self.query = query
        self.found = found


class WireIdle(Message):
    """The terminal has taken all that it was sent, as somebody wished to know."""


class HungUp(Message):
    """There is no terminal any more."""


class Resumed(Message):
    """The program stood still, and the terminal may show anything."""
