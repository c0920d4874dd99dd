# SPDX-License-Identifier: Apache-2.0
"""GET /v1/frames: Frames as they arrive, as server-sent events or as binary records.

An event is encoded once for all clients and waits in each client's short queue. A client of records
gets the newest Frame whenever it has read the one before, merged with those that it missed. A
client that reads nothing is dropped: see `tui.agent.http.server`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Mapping
from contextlib import suppress

from starlette.types import Receive, Scope, Send

from probes.core.frame import Frame
from probes.probe import Probe
from probes.recording.framing import Encoder, message
from probes.report.stream import dumps, stream_object
from tui.agent.errors import Refused, complain
from tui.agent.state.client_view import Sight, View
from tui.agent.state.probe_control import Control

RECORDS = "application/vnd.probetop.frames"
EVENTS = "text/event-stream"
HEARTBEAT = 10.0
"""Seconds without a Frame after which a keep-alive is sent."""
MOST_EVENTS, MOST_BYTES = 64, 4 << 20
"""Most events that wait for one client, and most bytes of them."""
MOST_LISTENERS, MOST_READERS = 32, 8
"""Most clients of events, and of records; each of the latter needs an encoder."""


class Outlet:
    """The output for one client; `next` returns its parts, None at the end."""

    heartbeat = b""

    def __init__(self) -> None:
        self.closed = False
        self.overrun = False
        self._news = asyncio.Event()

    def close(self) -> None:
        """End the output: `next` returns None."""
        self.closed = True
        self._news.set()

    async def next(self) -> bytes | None:
        """Return the next bytes to send, or a heartbeat after `HEARTBEAT` seconds without any."""
        try:
            async with asyncio.timeout(HEARTBEAT):
                await self._news.wait()
        except TimeoutError:
            return self.heartbeat
        if self.closed:
            return None
        return await self._take()

    async def _take(self) -> bytes:
        raise NotImplementedError


class Events(Outlet):
    """Server-sent events, encoded once for all clients."""

    heartbeat = b": alive\n\n"

    def __init__(self, sight: Sight = "all") -> None:
        super().__init__()
        self.sight = sight
        self._queue: deque[bytes] = deque()
        self._size = 0

    def put(self, event: bytes) -> None:
        """Add an event; the output ends if too many are waiting."""
        if len(self._queue) >= MOST_EVENTS or (self._queue and self._size > MOST_BYTES):
            self.overrun = True
            self.close()
            return
        self._queue.append(event)
        self._size += len(event)
        self._news.set()

    async def _take(self) -> bytes:
        data = b"".join(self._queue)
        self._queue.clear()
        self._size = 0
        self._news.clear()
        return data


class Records(Outlet):
    """Records: the first holds a whole Frame, each later one the changes since the one before."""

    heartbeat = message({})

    def __init__(self, first: Frame | None, sight: Sight = "all") -> None:
        super().__init__()
        self.sight = sight
        self._encoder = Encoder(whole=0)
        self._frame = first
        if first is not None:
            self._news.set()

    def put(self, frame: Frame) -> None:
        """Put the newest Frame; it is merged with Frames that were not sent."""
        self._frame = frame if self._frame is None else frame.merged_after(self._frame)
        self._news.set()

    async def _take(self) -> bytes:
        frame, self._frame = self._frame, None
        self._news.clear()
        assert frame is not None
        # Compression takes a while, so it must not block other clients.
        return await asyncio.to_thread(self._encoder.frame, frame)


class Streams:
    """All clients of Frames. `dropped` counts those that did not read."""

    def __init__(self, kinds: Mapping[str, type[Probe]], views: Mapping[Sight, View]) -> None:
        self.dropped = 0
        self._kinds = kinds
        self._views = views
        self._listeners: set[Events] = set()
        self._readers: set[Records] = set()
        self._last: Frame | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._listeners) + len(self._readers)

    def add(self, frame: Frame, number: int) -> None:
        """Pass a Frame to all clients."""
        last, self._last = self._last, frame
        for sight, view in self._views.items():
            listeners = [one for one in self._listeners if one.sight == sight]
            readers = [one for one in self._readers if one.sight == sight]
            if not listeners and not readers:
                continue
            shown = view.frame(frame)
            if listeners:
                before = view.frame(last) if last is not None else None
                text = dumps(stream_object(before, shown, self._kinds))
                event = f"id: {number}\ndata: {text}\n\n".encode("ascii")
                for listener in listeners:
                    listener.put(event)
            for reader in readers:
                reader.put(shown)

    def open(self, records: bool, sight: Sight = "all") -> Outlet:
        """Create a new client's output; raises Refused if there are too many.

        `sight` is what the client sees of each Frame; public clients have at most half of the
        places.
        """
        others: Collection[Events | Records] = self._readers if records else self._listeners
        most = MOST_READERS if records else MOST_LISTENERS
        public = sum(one.sight == "public" for one in others)
        if self._closed or len(others) >= most or (sight == "public" and public >= most // 2):
            raise Refused(429, "as many clients as may be read frames already", "try again later")
        if records:
            first = self._views[sight].frame(self._last) if self._last is not None else None
            reader = Records(first, sight)
            self._readers.add(reader)
            return reader
        listener = Events(sight)
        self._listeners.add(listener)
        return listener

    def close(self, outlet: Outlet) -> None:
        """Remove a client that disconnected or was dropped."""
        self.dropped += outlet.overrun
        self._listeners.discard(outlet)
        self._readers.discard(outlet)

    def end(self) -> None:
        """End all outputs."""
        self._closed = True
        for outlet in (*self._listeners, *self._readers):
            outlet.close()


class FrameResponse:
    """The response: an outlet's parts, until either side ends it."""

    def __init__(self, streams: Streams, control: Control, outlet: Outlet, kind: str) -> None:
        self._streams = streams
        self._control = control
        self._outlet = outlet
        self._kind = kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end."""
        gone = asyncio.create_task(self._gone(receive))
        headers = [(b"content-type", self._kind.encode("ascii")), (b"x-accel-buffering", b"no")]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            with self._control.watching():
                while (data := await self._outlet.next()) is not None:
                    await self._send(send, data)
            if self._outlet.overrun:
                complain("a client that read too slowly was dropped")
                scope["state"]["connection"].drop()
            else:
                await self._send(send, b"", more=False)
        finally:
            gone.cancel()
            self._streams.close(self._outlet)

    async def _send(self, send: Send, body: bytes, more: bool = True) -> None:
        await send({"type": "http.response.body", "body": body, "more_body": more})

    async def _gone(self, receive: Receive) -> None:
        with suppress(asyncio.CancelledError):
            while (await receive())["type"] != "http.disconnect":
                pass
        self._outlet.close()
