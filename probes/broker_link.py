# SPDX-License-Identifier: Apache-2.0
"""The poller's end of the broker's socket: numbered requests, and answers that were checked."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from probes import ipc, messages
from probes.messages import Answer, MessageError


class BrokerLink:
    """Requests to the broker. All of it happens in the poller's thread.

    `broken` says why there is no broker any more, once `receive` has returned None.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.broken = "the privileged helper has ended"
        self._last = 0

    def number(self) -> int:
        """The number of a new request."""
        self._last += 1
        return self._last

    def tell(self, op: str, **fields: Any) -> int:
        """Send a request of `probes.messages`; returns its number."""
        number = self.number()
        with suppress(OSError):  # the broker has gone, as its socket will say
            ipc.send(self.sock, {"id": number, "op": op, **fields})
        return number

    def detach(self, unit: int, groups: Sequence[int] | None) -> None:
        """Have the broker detach what it keeps: the kernel takes its time for that."""
        self.tell("detach", unit=unit, groups=None if groups is None else list(groups))

    def receive(self) -> tuple[Answer, list[int]] | None:
        """An answer and its descriptors, None at the end; raises MessageError for none."""
        received = ipc.receive(self.sock)
        if received is None:
            return None
        data, fds = received
        try:
            return messages.convert(data, Answer), fds
        except MessageError:
            ipc.close_all(fds)
            raise

    def close(self) -> None:
        """The broker ends, and detaches everything."""
        self.sock.close()
