# SPDX-License-Identifier: Apache-2.0
"""The HTTP server: uvicorn's protocol on the agent's own socket, with additional limits.

A client that is slow to send a request's head or to read an answer is cut off; the number of
connections is limited. A stop closes all of them at once.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from probes.core.errors import ProbeError
from tui.agent.errors import JSON, complain, error_body
from tui.agent.http import admission, tls
from tui.agent.http.request_parser import MOST_HEAD, Parser
from tui.agent.http.unix_socket import BACKLOG

HEAD_SECONDS = 10.0
"""Seconds that the head of a request may take, from its first byte."""
REFUSED_SECONDS, MOST_REFUSED = 1.0, 32
"""Seconds that an excess or refused connection stays open, and most excess connections."""
STALL_SECONDS = 20.0
"""Seconds that a client may not read while its buffers are full."""
GONE_SECONDS = 30
"""Seconds that a peer's machine may not acknowledge sent data."""
KEEP_SECONDS = 15
MOST_DENIED = 8
"""Requests without a valid token after which a connection that has shown none is closed."""
MOST_UNREAD = 1 << 18
"""Most bytes of a body that are discarded after the answer."""
HANDSHAKE_SECONDS = 5.0
CLOSE_SECONDS = 0.3
"""Seconds that answers may take to be sent when the server stops."""
BUSY = ProbeError("too many connections", "close some, or try again later")
GARBLED = ProbeError("not an HTTP request", "speak HTTP/1.1, with TLS if the address has it")
UNSIZED = ProbeError("the body comes in chunks", "send it with a Content-Length")


class Counts:
    """Counts of dropped connections: clients that did not read, and those closed for others."""

    def __init__(self) -> None:
        self.stalled = 0
        self.evicted = 0


class Connection(H11Protocol):
    """One client; it is in the `state` of each request, so that a handler can `drop` it.

    `peer_uid` is the user at the other end of a Unix socket, `received` the number of bytes
    received. `admission` describes `group`, `made` and `known`, which the check of requests sets.
    """

    def __init__(
        self,
        config: Config,
        state: ServerState,
        counts: Counts,
        made: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__(config, state, {"connection": self})
        self.conn = self._parser = Parser()
        self.group = ""
        self.received = 0
        self.peer_uid: int | None = None
        self.made = 0.0
        self.known = False
        self._denied = 0
        self._counts = counts
        self._made = made
        self._idle_since = 0.0
        self._stalled_since: float | None = None
        self._refused = self._answered = False
        self._unread = 0
        self._head: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept the connection, unless there are too many."""
        assert isinstance(transport, asyncio.Transport)
        super().connection_made(transport)
        # asyncio reads this many bytes at once; other clients wait while they are parsed.
        transport.max_size = tls.MOST_READ  # type: ignore[attr-defined]
        sock = transport.get_extra_info("socket")
        if self._made is not None:
            self._made(sock.fileno())
        self.group, self.peer_uid = admission.group_of(sock), admission.peer_uid(sock)
        self.made = self._idle_since = self.loop.time()
        if sock.family != socket.AF_UNIX:
            # The kernel detects a peer that disappeared.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GONE_SECONDS * 1000)
        self._make_room()
        seconds = REFUSED_SECONDS if self._refused else HEAD_SECONDS
        self._head = self.loop.call_later(seconds, self.drop)

    def _make_room(self) -> None:
        """Drop another connection if there are too many, or refuse this one."""
        others = [one for one in self.connections if isinstance(one, Connection) and one != self]
        refused = [one for one in others if one._refused]
        has_room, victim = admission.to_evict(self, [one for one in others if not one._refused])
        self._refused = not has_room
        if victim is not None:
            self._counts.evicted += 1
        elif self._refused and len(refused) >= MOST_REFUSED:
            victim = min(refused, key=lambda one: one._idle_since)
        if victim is not None:
            victim.drop()
            # It counts until the loop reports its end.
            self.connections.discard(victim)

    @property
    def waits_since(self) -> float | None:
        """The start of the wait for the client to send or read; None while it is answered."""
        if self._stalled_since is not None:
            return self._stalled_since
        waits = self.cycle is None or self.cycle.response_complete
        return self._idle_since if waits else None

    def on_response_complete(self) -> None:
        """An answer was written."""
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        super().connection_lost(exc)
        # uvicorn leaves its timer running after a reset, which keeps all of this in memory.
        for timer in (self._head, self._stall, self.timeout_keep_alive_task):
            if timer is not None:
                timer.cancel()
        self._head = self._stall = self.timeout_keep_alive_task = None
        # A reference cycle is freed late, and with TLS it holds buffers of 256 kB.
        self.app_state.clear()
        self.cycle, self.scope = None, None  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """The client has sent bytes."""
        self.received += len(data)
        if self.transport.is_closing():
            return
        if self._answered:
            self._throw_away(data)
            return
        if self._refused:
            # Not earlier: a close with unread data discards the answer.
            self._answer(503, BUSY)
            return
        self._take(data)

    def _take(self, data: bytes) -> None:
        """Parse bytes of a request."""
        super().data_received(data)
        if self._answered:
            return
        waits = self.cycle is None or self.cycle.response_complete
        # An immediate close would discard the answer for a client that still sends.
        self._unread = self._unread + len(data) if self.conn.their_state is h11.SEND_BODY else 0
        if waits and self._unread > MOST_UNREAD:
            self.drop()
        elif waits and self._head is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self.drop)
        elif not waits and self._head is not None:
            self._head.cancel()
            self._head = None

    def send_400_response(self, msg: str) -> None:
        """Answer input that is not HTTP, or HTTP that is not supported here."""
        if self._parser.unsized:
            self._answer(411, UNSIZED)
        else:
            self._answer(400, GARBLED)

    def pause_writing(self) -> None:
        """The client reads more slowly than the agent writes."""
        super().pause_writing()
        self._stalled_since = self.loop.time()
        if self._stall is None:
            self._stall = self.loop.call_later(STALL_SECONDS, self._stalled)

    def resume_writing(self) -> None:
        """The client has read on."""
        super().resume_writing()
        self._stalled_since = None
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def deny(self) -> bool:
        """Count a missing or wrong token; return True to close the connection after the answer."""
        self._denied += 1
        return self._denied >= MOST_DENIED and not self.known

    def drop(self) -> None:
        """Cut the connection off, with all queued data."""
        if self.transport is not None:
            # asyncio's TLS of Python 3.11 fails on a second close.
            with suppress(AttributeError):
                self.transport.abort()

    def _stalled(self) -> None:
        self._counts.stalled += 1
        complain("a client that did not read was dropped")
        self.drop()

    def _throw_away(self, data: bytes) -> None:
        """Discard input after the last answer."""
        self._unread += len(data)
        if self._unread > MOST_UNREAD:
            self.drop()

    def _answer(self, status: int, error: ProbeError) -> None:
        """Answer, and let the client close: a close while it sends discards the answer."""
        body = error_body(error)
        words = {400: "Bad Request", 411: "Length Required", 503: "Service Unavailable"}
        head = (
            f"HTTP/1.1 {status} {words[status]}\r\nContent-Type: {JSON}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self._answered, self._unread = True, 0
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self._head is not None:
            self._head.cancel()
        self._head = self.loop.call_later(REFUSED_SECONDS, self.drop)


class Server:
    """Serves `app` on a listening socket, from `start` to `stop`."""

    def __init__(self, app: Any) -> None:
        self.counts = Counts()
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._config = Config(
            app,
            http=H11Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_SECONDS,
            h11_max_incomplete_event_size=MOST_HEAD,
        )
        for name in ("uvicorn.error", "uvicorn.access"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)

    @property
    def connections(self) -> int:
        """The number of connections."""
        return len(self._state.connections)

    async def start(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        """Start to accept connections."""
        self._config.load()
        made: Callable[[int], None] | None = None
        if context is not None:
            tls.use()
            sock = limited = admission.HandshakeLimit(sock)
            made = limited.complete
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self._config, self._state, self.counts, made),
            sock=sock,
            ssl=context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS if context else None,
            backlog=admission.MOST_AT_ONCE,
        )
        # asyncio uses one number for accepts per turn and for the kernel's queue.
        sock.listen(BACKLOG)

    async def stop(self) -> None:
        """Stop accepting; answers in progress have a moment, then all connections are closed."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._state.connections):
            with suppress(h11.LocalProtocolError):
                connection.shutdown()
        tasks = list(self._state.tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
        for connection in list(self._state.connections):
            if isinstance(connection, Connection):
                connection.drop()
