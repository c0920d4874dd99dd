# SPDX-License-Identifier: Apache-2.0
"""Messages through a pipe, one a line of JSON: no descriptor can come along.

Whoever receives a descriptor closes it, and that can block for ever: a socket that lingers, a
file of a FUSE server. Who reads from a pipe never receives any. A writer may send anything; a
reader never waits for it, keeps a bounded part of it, and finds the next line again.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress

from probes.ipc.messages import MessageError
from probes.ipc.packets import MAX_BYTES, Message, decoded

CHUNK = 1 << 16


def write(fd: int, message: Message) -> bool:
    """Send one message; False if nobody reads any more. Raises ValueError for one too large."""
    data = json.dumps(message).encode() + b"\n"
    if len(data) > MAX_BYTES:
        raise ValueError(f"message of {len(data)} bytes")
    view = memoryview(data)
    with suppress(BrokenPipeError):
        while view:
            view = view[os.write(fd, view) :]
        return True
    return False


class Reader:
    """The reading end of a pipe, which it owns; nothing here waits."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        os.set_blocking(fd, False)
        self._buffer = bytearray()
        self._end = -1
        self._cut = False

    def fileno(self) -> int:
        """The descriptor, to wait on while there is no `whole` message."""
        return self._fd

    @property
    def whole(self) -> bool:
        """Whether a whole message has been read, for `take`."""
        return self._end >= 0

    def read(self) -> bool:
        """Read what is there; False at the end."""
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return True
        before = len(self._buffer)
        self._buffer += data
        self._look(before)
        return bool(data)

    def take(self) -> object:
        """The next message, decoded; raises MessageError for one that is none, or is too large.

        There has to be a `whole` one.
        """
        line, cut = bytes(self._buffer[: self._end]), self._cut
        del self._buffer[: self._end + 1]
        self._cut = False
        self._look(0)
        if cut or len(line) > MAX_BYTES:
            raise MessageError(f"it has more than {MAX_BYTES} bytes")
        return decoded(line)

    def _look(self, start: int) -> None:
        """Find the end of a line, and forget the beginning of one that is too long."""
        self._end = self._buffer.find(b"\n", start)
        if self._end < 0 and len(self._buffer) > MAX_BYTES:
            self._cut = True
            self._buffer.clear()

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)
