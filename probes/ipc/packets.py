# SPDX-License-Identifier: Apache-2.0
"""Packets from the broker and between it and its children: JSON with descriptors (SCM_RIGHTS).

A message is one packet of a SOCK_SEQPACKET pair, so it arrives whole or not at all; with
more descriptors than a packet takes, empty packets with the first of them precede it. What
arrives may be anything: `receive` bounds it, `probes.ipc.messages` checks its types.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import Any

from probes.ipc.messages import MessageError as MessageError

MAX_BYTES = 160_000
"""Largest message; a socket's send buffer holds 212,992 bytes everywhere."""
MAX_DESCRIPTORS = 250
"""The kernel passes 253 at once at most."""
MOST_DESCRIPTORS = 4000
"""Most descriptors of one message, over all of its packets."""
PART = b"+"
"""A packet of descriptors that belong to the message that follows."""

Message = dict[str, Any]


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends; both close on exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> bool:
    """Send one message; False if the other end is gone. Raises ValueError for one too large."""
    try:
        for data, some in packets(message, fds):
            socket.send_fds(sock, [data], some)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def packets(message: Message, fds: Sequence[int]) -> list[tuple[bytes, list[int]]]:
    """Bytes and descriptors of the packets of one message; raises ValueError for one too large."""
    data = json.dumps(message).encode()
    if len(data) > MAX_BYTES:
        raise ValueError(f"message of {len(data)} bytes")
    rest, parts = list(fds), []
    while len(rest) > MAX_DESCRIPTORS:
        parts.append((PART, rest[:MAX_DESCRIPTORS]))
        del rest[:MAX_DESCRIPTORS]
    return [*parts, (data, rest)]


def receive(sock: socket.socket, most: int = MOST_DESCRIPTORS) -> tuple[object, list[int]] | None:
    """The next message, decoded, and its descriptors (the caller's); None at the end.

    Raises MessageError for one that is no JSON, too large or has more than `most` descriptors:
    those are closed, and the socket can be read on. Raises TimeoutError or BlockingIOError where
    the socket has a timeout.
    """
    descriptors: list[int] = []
    try:
        return _received(sock, most, descriptors)
    except OSError:
        close_all(descriptors)
        raise


def _received(
    sock: socket.socket, most: int, descriptors: list[int]
) -> tuple[object, list[int]] | None:
    """As `receive`; the `descriptors` of packets so far are the caller's when this raises."""
    problem = ""
    while (packet := _packet(sock)) is not None:
        data, fds, cut = packet
        descriptors += fds
        if cut:
            problem = cut
        elif len(descriptors) > most:
            problem = f"more than {most} descriptors"
        if problem:
            close_all(descriptors)
            descriptors.clear()
        if data == PART:
            continue
        if problem:
            raise MessageError(problem)
        try:
            return decoded(data), descriptors
        except MessageError:
            close_all(descriptors)
            raise
    close_all(descriptors)
    return None


def decoded(data: bytes) -> object:
    """What JSON says; raises MessageError for what is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise MessageError("it is no JSON") from None


def _packet(sock: socket.socket) -> tuple[bytes, list[int], str] | None:
    """Bytes and descriptors of the next packet, and why some of it is missing ("": nothing)."""
    try:
        data, fds, flags, _ = socket.recv_fds(
            sock, MAX_BYTES, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError:
        return None
    if not data:
        close_all(fds)
        return None
    if flags & socket.MSG_TRUNC:
        return data, fds, f"it has more than {MAX_BYTES} bytes"
    if flags & socket.MSG_CTRUNC:
        limit = "the limit of open files (ulimit -n) is too low for its descriptors"
        return data, fds, limit
    return data, fds, ""


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors that nobody will use."""
    for fd in fds:
        os.close(fd)
