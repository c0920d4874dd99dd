# SPDX-License-Identifier: Apache-2.0
"""Which connections the agent keeps when there are too many: the oldest of strangers go first.

A stranger's connection has shown no token, and is not of the agent's owner; it goes whether it is
answered or not, so that strangers keep nobody out. Of others, those go that wait longest: whose
client has not sent a whole head of a request, or does not read an answer. Connections are grouped
by their peer, so that nobody can keep others out by opening many.
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
"""Connections of all, and of one peer."""
MOST_HANDSHAKES = 32
"""Connections whose TLS handshake is not complete."""
MOST_CUT = 256
"""TLS handshakes that came to nothing after which their memory is freed."""
MOST_AT_ONCE = 16
"""Connections that are accepted before others are served: fewer than MOST_OF_ONE, so that a client
is heard before as many come after it as make it go."""
SHORT_PREFIX = 64
"""Bits of an IPv6 address that tell one network from another."""


class Waiting(Protocol):
    """A connection: its peer, since when there is it, whether it is `known` (not a stranger's), and
    since when it waits for its client (None: it does not). Times are monotonic seconds.
    """

    group: str
    made: float
    known: bool

    @property
    def waits_since(self) -> float | None:
        """Since when."""


W = TypeVar("W", bound=Waiting)


def group_of(sock: Any) -> str:
    """The peer of a connected socket, as it counts for limits.

    That is a user on a Unix socket, one for all addresses of the loopback network, which any
    local user may choose among, and a /64 of IPv6, which one machine may have all of.
    """
    if sock.family == socket.AF_UNIX:
        return f"uid {peer_uid(sock)}"
    try:
        address = ipaddress.ip_address(str(sock.getpeername()[0]).partition("%")[0])
    except (OSError, ValueError):  # it has gone already
        return "gone"
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback:
        return "loopback"
    if address.version == 6:
        return str(ipaddress.ip_network((address, SHORT_PREFIX), strict=False))
    return str(address)


def peer_uid(sock: Any) -> int | None:
    """The user who connected to a Unix socket; None for sockets of other kinds."""
    if sock.family != socket.AF_UNIX:
        return None
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(uid) & 0xFFFFFFFF


def to_evict(new: Waiting, others: Collection[W]) -> tuple[bool, W | None]:
    """Whether there is room for `new` beside the others, and the one that has to go for it."""
    among = [other for other in others if other.group == new.group]
    if len(among) < MOST_OF_ONE:
        if len(others) < MOST_CONNECTIONS:
            return True, None
        among = list(others)
    # By age: who has just come waits, while one that is asked without a pause never does.
    victim = _first((one.made, one) for one in among if not one.known)
    if victim is None:
        waiting = [(one.waits_since, one) for one in among]
        victim = _first((since, one) for since, one in waiting if since is not None)
    return victim is not None, victim


def _first(connections: Iterable[tuple[float, W]]) -> W | None:
    """Of the peer that has the most of these, the one whose time is the earliest."""
    times = list(connections)
    counted = Counter(one.group for _, one in times)
    return min(times, key=lambda pair: (-counted[pair[1].group], pair[0]))[1] if times else None


class HandshakeLimit(socket.socket):
    """A listening socket that lets only so many clients be without a complete TLS handshake.

    asyncio tells nobody of a connection before its handshake is complete, so that they are
    counted where they are accepted.
    """

    def __init__(self, listening: socket.socket) -> None:
        copy = listening.dup()
        super().__init__(copy.family, copy.type, copy.proto, fileno=copy.detach())
        self._pending: dict[int, tuple[weakref.ref[socket.socket], str]] = {}
        self._cut = 0

    def accept(self) -> tuple[socket.socket, Any]:
        """The next client; the oldest of the peer that has the most waiting may be cut off."""
        sock, address = super().accept()
        before = len(self._pending)
        self._pending = {
            fd: (ref, group)
            for fd, (ref, group) in self._pending.items()
            if (one := ref()) is not None and one.fileno() == fd
        }
        self._cut += before - len(self._pending)
        if self._cut >= MOST_CUT:
            # An error that ends a handshake refers to itself by its traceback, and so to all of it.
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
        """A client's handshake is complete."""
        self._pending.pop(fd, None)
