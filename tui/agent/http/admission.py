# SPDX-License-Identifier: Apache-2.0
"""Chooses the connection to close when there are too many: the oldest stranger's first.

A stranger's connection has shown no token and does not belong to the agent's owner. It may be
closed while it is answered, so that strangers keep nobody out. Among the others, the one goes that
has waited longest for its client to send a whole request head or to read an answer. Connections are
grouped by peer, so that no peer can take all places.
"""

from __future__ import annotations

import gc
import ipaddress
import socket
import struct
import weakref
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from tui.agent.malloc_trim import return_memory

MOST_CONNECTIONS = 128
MOST_OF_ONE = 64
"""Most connections in all, and of one peer."""
MOST_HANDSHAKES = 32
"""Most connections whose TLS handshake is incomplete."""
MOST_CUT = 256
"""Failed TLS handshakes after which their memory is freed."""
MOST_AT_ONCE = 16
"""Most connections that are accepted before others are served.

It is below MOST_OF_ONE, so that a client is read before enough later ones arrive to displace it.
"""
SHORT_PREFIX = 64
"""Prefix length that identifies an IPv6 network."""


class Waiting(Protocol):
    """A connection: its peer, its start, `known` (not a stranger's), and the start of its wait.

    Times are monotonic seconds; the start of the wait is None while nothing is awaited from the
    client.
    """

    group: str
    made: float
    known: bool

    @property
    def waits_since(self) -> float | None:
        """The start of the wait; None without one."""


W = TypeVar("W", bound=Waiting)


def group_of(sock: Any) -> str:
    """The peer of a connected socket, for the limits.

    That is the user on a Unix socket, one peer for the whole loopback network, whose addresses any
    local user may choose, and a /64 network for IPv6, which one machine may own.
    """
    if sock.family == socket.AF_UNIX:
        return f"uid {peer_uid(sock)}"
    try:
        address = ipaddress.ip_address(str(sock.getpeername()[0]).partition("%")[0])
    except (OSError, ValueError):  # the peer has disconnected
        return "gone"
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback:
        return "loopback"
    if address.version == 6:
        return str(ipaddress.ip_network((address, SHORT_PREFIX), strict=False))
    return str(address)


def peer_uid(sock: Any) -> int | None:
    """The user at the other end of a Unix socket; None for other sockets."""
    if sock.family != socket.AF_UNIX:
        return None
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(uid) & 0xFFFFFFFF


def to_evict(new: Waiting, others: Collection[W]) -> tuple[bool, W | None]:
    """Return whether `new` may stay, and the connection to close for it, if any."""
    among = [other for other in others if other.group == new.group]
    if len(among) < MOST_OF_ONE:
        if len(others) < MOST_CONNECTIONS:
            return True, None
        among = list(others)
    # Strangers go by age: a new connection always waits, and one with constant requests never does.
    victim = _first((one.made, one) for one in among if not one.known)
    if victim is None:
        waiting = [(one.waits_since, one) for one in among]
        victim = _first((since, one) for since, one in waiting if since is not None)
    return victim is not None, victim


def _first(connections: Iterable[tuple[float, W]]) -> W | None:
    """The connection with the earliest time, of the peer with the most connections."""
    times = list(connections)
    counted = Counter(one.group for _, one in times)
    return min(times, key=lambda pair: (-counted[pair[1].group], pair[0]))[1] if times else None


class HandshakeLimit(socket.socket):
    """A listening socket that limits clients with an incomplete TLS handshake.

    asyncio reports a connection only after its handshake, so connections are counted at accept.
    """

    def __init__(self, listening: socket.socket) -> None:
        copy = listening.dup()
        super().__init__(copy.family, copy.type, copy.proto, fileno=copy.detach())
        self._pending: dict[int, tuple[weakref.ref[socket.socket], str]] = {}
        self._cut = 0

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept the next client; the oldest handshake of the peer with the most may be cut off."""
        sock, address = super().accept()
        before = len(self._pending)
        self._pending = {
            fd: (ref, group)
            for fd, (ref, group) in self._pending.items()
            if (one := ref()) is not None and one.fileno() == fd
        }
        self._cut += before - len(self._pending)
        if self._cut >= MOST_CUT:
            # A failed handshake's error refers to itself by its traceback, and so keeps all its
            # memory.
            self._cut = 0
            gc.collect()
            return_memory()
        if len(self._pending) >= MOST_HANDSHAKES:
            counted = Counter(group for _, group in self._pending.values())
            ((most, _),) = counted.most_common(1)
            oldest = next(fd for fd, (_, group) in self._pending.items() if group == most)
            one = self._pending.pop(oldest)[0]()
            self._cut += 1
            if one is not None:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        self._pending[sock.fileno()] = weakref.ref(sock), group_of(sock)
        return sock, address

    def complete(self, fd: int) -> None:
        """Note that a client's handshake is complete."""
        self._pending.pop(fd, None)
