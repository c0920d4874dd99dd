# SPDX-License-Identifier: Apache-2.0
"""Messages between dashboard, broker and loader: JSON with descriptors (SCM_RIGHTS).

A message is one packet of a SOCK_SEQPACKET pair, so it arrives whole or not at all.
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

Message = dict[str, Any]


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends; both close on exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> bool:
    """Send one message; False if the other end is gone."""
    data = json.dumps(message).encode()
    if len(data) > MAX_BYTES or len(fds) > MAX_DESCRIPTORS:
        raise ValueError(f"message of {len(data)} bytes with {len(fds)} descriptors")
    try:
        socket.send_fds(sock, [data], list(fds))
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def receive(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """The next message and its descriptors (which the caller owns); None at the end."""
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
    message: Message = json.loads(data)
    return message, fds


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors that nobody will use."""
    for fd in fds:
        os.close(fd)
