# SPDX-License-Identifier: Apache-2.0
"""The broker's answers on their way to the dashboard, which may be slow to read, or never do.

The broker does not wait for it: answers that the socket does not take now are queued, up to a
bound beyond which a dashboard does not work any more.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from probes.ipc import packets as ipc

MOST_PACKETS, MOST_BYTES = 1000, 8 << 20
"""Most that is queued; a dashboard that works leaves no more than a few answers unread."""
LAST_SECONDS = 0.2
"""How long the reason of the end may wait for room."""


class UnreadError(Exception):
    """The dashboard has left too many answers unread."""


class Outbox:
    """Sends in order over `sock`, which must not block the sender. It takes descriptors over."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.setblocking(False)
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        self._bytes = 0

    @property
    def waiting(self) -> bool:
        """Whether something is to be sent once the socket takes more."""
        return bool(self._queue)

    def put(self, message: ipc.Message, fds: Sequence[int] = ()) -> None:
        """Send a message, now or later; its descriptors are closed after that.

        Raises ValueError for a message that is too large, UnreadError when too much is queued.
        """
        try:
            packets = ipc.packets(message, fds)
        except (ValueError, RecursionError):
            ipc.close_all(fds)
            raise
        self._queue += packets
        self._bytes += sum(len(data) for data, _ in packets)
        self.flush()
        if len(self._queue) > MOST_PACKETS or self._bytes > MOST_BYTES:
            raise UnreadError("the dashboard does not read the answers that it asks for")

    def flush(self) -> None:
        """Send what the socket takes without waiting."""
        while self._queue:
            data, fds = self._queue[0]
            try:
                socket.send_fds(self._sock, [data], fds)
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError):
                self.close()
                return
            self._queue.popleft()
            self._bytes -= len(data)
            ipc.close_all(fds)

    def last(self, message: ipc.Message) -> None:
        """Forget what is queued and send this as soon as there is room, if that is soon."""
        self.close()
        poll = select.poll()
        poll.register(self._sock, select.POLLOUT)
        with suppress(OSError, ValueError):
            poll.poll(1000 * LAST_SECONDS)
            self.put(message)
        self.close()

    def close(self) -> None:
        """Forget what is queued."""
        while self._queue:
            ipc.close_all(self._queue.popleft()[1])
        self._bytes = 0
