# SPDX-License-Identifier: Apache-2.0
"""Messages between dashboard, broker and loader: JSON with descriptors (SCM_RIGHTS).

A message is one packet of a SOCK_SEQPACKET pair, so it arrives whole or not at all; with
more descriptors than a packet takes, empty packets with the first of them precede it.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import Any

MAX_BYTES = 160_000
"""Largest message; a socket's send buffer holds 212,992 bytes everywhere."""
MAX_DESCRIPTORS = 250
"""The kernel passes 253 at once at most."""
PART = b"+"
"""A packet of descriptors that belong to the message that follows."""

Message = dict[str, Any]


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends; both close on exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> bool:
    """Send one message; False if the other end is gone."""
    data = json.dumps(message).encode()
    if len(data) > MAX_BYTES:
        raise ValueError(f"message of {len(data)} bytes")
    rest = list(fds)
    try:
        while len(rest) > MAX_DESCRIPTORS:
            socket.send_fds(sock, [PART], rest[:MAX_DESCRIPTORS])
            del rest[:MAX_DESCRIPTORS]
        socket.send_fds(sock, [data], rest)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def receive(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """The next message and its descriptors (which the caller owns); None at the end."""
    descriptors: list[int] = []
    while (packet := _packet(sock)) is not None:
        data, fds = packet
        descriptors += fds
        if data != PART:
            message: Message = json.loads(data)
            return message, descriptors
    close_all(descriptors)
    return None


def _packet(sock: socket.socket) -> tuple[bytes, list[int]] | None:
    try:
        data, fds, flags, _ = socket.recv_fds(
            sock, MAX_BYTES, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError:
        return None
    if not data:
        close_all(fds)
        return None
    if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
        close_all(fds)
        raise OSError("a message was cut: too few file descriptors are free (ulimit -n)")
    return data, fds


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors that nobody will use."""
    for fd in fds:
        os.close(fd)
