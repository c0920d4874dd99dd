# SPDX-License-Identifier: Apache-2.0
"""Passes Frames and answers from a Source's thread to the event loop.

The loop takes one Frame at a time; Frames that it does not take in time are merged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from probes.core.frame import Frame
from probes.live.source import LiveSource
from tui.shared.frame_mailbox import Mailbox

T = TypeVar("T")
Listener = Callable[[Frame], None]


class Hub:
    """Passes each Frame to `listeners`, on the loop that `start` is called on.

    `frame` is the newest Frame and `number` counts them; `ended` is the reason of the end, None
    before.
    """

    def __init__(self, source: LiveSource) -> None:
        self.source = source
        self.frame: Frame | None = None
        self.number = 0
        self.ended: str | None = None
        self.listeners: list[Listener] = []
        self.on_end: Callable[[str], None] = lambda why: None
        self._mailbox = Mailbox()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Start the source."""
        self._loop = asyncio.get_running_loop()
        self.source.start(self._put, self._end)

    def _call(self, function: Callable[..., None], *args: Any) -> None:
        """Schedule a call on the loop; ignored once the loop is closed."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            return

    def _put(self, frame: Frame) -> None:
        if self._mailbox.put(frame):
            self._call(self._take)

    def _end(self, why: str) -> None:
        self._call(self._ended, why)

    def _ended(self, why: str) -> None:
        self.ended = why
        self.on_end(why)

    def _take(self) -> None:
        frame = self._mailbox.take()
        if frame is None:
            return
        self.frame = frame
        self.number += 1
        for listener in list(self.listeners):
            listener(frame)

    def ask(self, question: Callable[[Callable[[T], None]], None]) -> Awaitable[T]:
        """Call a function that answers by a callback from any thread, and return the answer."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def take(value: T) -> None:
            if not answer.done():
                answer.set_result(value)

        question(lambda value: self._call(take, value))
        return answer
