# SPDX-License-Identifier: Apache-2.0
"""Keeps the last minute of Frames for GET /v1/snapshot.json and .html.

A page contains a picture of the screen, which needs Textual, and that takes more memory than the
rest of the agent. So a helper of the broker's makes the page: a process that lives for a second and
has no privileges. The Frames are records in a file without a name that both have open.
"""

from __future__ import annotations

import asyncio
import errno

from probes.core.frame import Frame
from probes.host import content_file
from probes.recording.framing import Encoder
from probes.recording.history import History
from tui.agent.errors import Refused
from tui.agent.malloc_trim import returning_memory
from tui.agent.state.bounded_lock import BoundedLock
from tui.agent.state.client_view import View
from tui.agent.state.probe_control import Control
from tui.export.write import content, new_summarizer

SECONDS, LONGEST = 10.0, 60.0
"""The default seconds of a snapshot, and the most."""
MOST_BYTES = 16 << 20
HALVES = 8
"""Attempts to make a page, each of half the time before."""


class Snapshots:
    """Keeps Frames and makes snapshots of them, one at a time."""

    def __init__(self, control: Control, files: tuple[int, int] | None) -> None:
        """`files` are the helper's input and output."""
        self._control = control
        self._files = files
        self._history = History(LONGEST, MOST_BYTES)
        self._busy = BoundedLock()

    def add(self, frame: Frame) -> None:
        """Keep a Frame."""
        self._history.add(frame)

    async def json(self, seconds: float, view: View) -> bytes:
        """The last `seconds`, or as many as are kept, as JSON in a client's `view`."""
        async with self._busy:
            return await asyncio.to_thread(self._summary, seconds, view)

    def _summary(self, seconds: float, view: View) -> bytes:
        with returning_memory():
            summarizer = new_summarizer()
            for frame in self._history.between(seconds):
                summarizer.add(view.frame(frame))
            if summarizer.frames < 2:
                raise TOO_EARLY
            data = content(summarizer, ".json", None).encode("ascii")
            del summarizer
        return data

    async def html(self, seconds: float, view: View) -> bytes:
        """The same as a page; raises Refused if it cannot be made."""
        async with self._busy:
            assert self._files is not None
            source, page = self._files
            try:
                if await asyncio.to_thread(self._write, seconds, source, view) < 2:
                    raise TOO_EARLY
                await self._control.help("page")
                return content_file.read(page)
            finally:
                for fd in self._files:
                    content_file.empty(fd)

    def _write(self, seconds: float, fd: int, view: View) -> int:
        """Write as many of the last Frames as fit; return their number."""
        for tried in range(HALVES):
            encoder = Encoder()
            frames = map(view.frame, self._history.between(seconds))
            try:
                with returning_memory():
                    content_file.fill(fd, map(encoder.frame, frames))
            except OSError as error:
                if error.errno != errno.EFBIG:
                    raise
            else:
                if tried and encoder.frames < 2:
                    break
                return encoder.frames
            seconds /= 2
        raise TOO_MUCH


TOO_EARLY = Refused(503, "there is nothing to tell yet", "wait for an interval to pass")
TOO_MUCH = Refused(503, "two Frames are too much for a page", "filter what is counted")
