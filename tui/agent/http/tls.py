# SPDX-License-Identifier: Apache-2.0
"""asyncio's TLS with smaller reads, and with a limit on messages that carry no data.

asyncio reads 256 KiB of a connection at once and keeps a buffer of that size for each. It answers
messages of TLS itself, such as changes of keys, without a report.
"""

from __future__ import annotations

import asyncio
from asyncio import sslproto
from typing import Any, Protocol

MOST_READ = 1 << 12
"""Bytes of one connection that are read before others are served."""
MOST_SILENT = 1 << 16
"""Bytes of TLS's own messages that are accepted, besides four for each byte of data."""


class Receiver(Protocol):
    """The protocol that receives a connection's data: `received` is the number of bytes so far."""

    received: int


class BoundedTls(sslproto.SSLProtocol):
    """One connection; it is cut off when too many messages carry no data."""

    max_size = MOST_READ

    def __init__(
        self, loop: asyncio.AbstractEventLoop, app_protocol: Receiver, *args: Any, **named: Any
    ) -> None:
        super().__init__(loop, app_protocol, *args, **named)  # type: ignore[arg-type]
        self._came = 0
        self._below: asyncio.Transport | None = None
        self._receiver: Receiver | None = app_protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection has started."""
        assert isinstance(transport, asyncio.Transport)
        self._below = transport
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection has ended."""
        super().connection_lost(exc)
        self._below = self._receiver = None

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have arrived."""
        self._came += nbytes
        super().buffer_updated(nbytes)
        if self._below is None or self._receiver is None:
            return
        # Buffered bytes may be data that the receiver has not taken yet.
        used = self._came - self._incoming.pending  # type: ignore[attr-defined]
        if used > MOST_SILENT + 4 * self._receiver.received:
            self._below.abort()


def use() -> None:
    """Make asyncio use it for all later connections of this process."""
    # asyncio has no setting for it, and refers to the class only here.
    sslproto.SSLProtocol = BoundedTls  # type: ignore[assignment,misc]
