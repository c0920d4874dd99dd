# SPDX-License-Identifier: Apache-2.0
"""asyncio's TLS with less for each client: small reads, and an end of what carries no data.

asyncio reads 256 KiB of a connection at once and keeps a buffer of that size for each. Messages of
TLS itself, such as changes of keys, are answered without anybody being told.
"""

from __future__ import annotations

import asyncio
from asyncio import sslproto
from typing import Any, Protocol

MOST_READ = 1 << 12
"""Bytes of one connection that are read before others have their turn."""
MOST_SILENT = 1 << 16
"""Bytes that may come for TLS itself, beside four for each of the client's own."""


class Receiver(Protocol):
    """Who gets a connection's data: `received` is how many bytes there were so far."""

    received: int


class BoundedTls(sslproto.SSLProtocol):
    """One connection; it is cut off when too much comes that is no data."""

    max_size = MOST_READ

    def __init__(
        self, loop: asyncio.AbstractEventLoop, app_protocol: Receiver, *args: Any, **named: Any
    ) -> None:
        super().__init__(loop, app_protocol, *args, **named)  # type: ignore[arg-type]
        self._came = 0
        self._below: asyncio.Transport | None = None
        self._receiver: Receiver | None = app_protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._below = transport
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        super().connection_lost(exc)
        self._below = self._receiver = None

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come."""
        self._came += nbytes
        super().buffer_updated(nbytes)
        if self._below is None or self._receiver is None:
            return
        # What waits in there while the receiver takes nothing may be data.
        used = self._came - self._incoming.pending  # type: ignore[attr-defined]
        if used > MOST_SILENT + 4 * self._receiver.received:
            self._below.abort()


def use() -> None:
    """Have asyncio take it for all connections of this process from now on."""
    # asyncio has no setting for it, and names the class nowhere else.
    sslproto.SSLProtocol = BoundedTls  # type: ignore[assignment,misc]
