# SPDX-License-Identifier: Apache-2.0
"""The poller's end of what connects it to the broker: numbered requests, checked answers.

Requests go through a pipe, which carries no descriptors; answers come over a socket, with those of
maps. The socket takes nothing in the other direction.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from probes.ipc import messages, packets, pipe
from probes.ipc.messages import Answer, BurstReport, MessageError


class BrokerEnd(NamedTuple):
    """The broker's end: a pipe to read requests from, and the socket for answers."""

    requests: pipe.Reader
    answers: socket.socket

    def close(self) -> None:
        """Close both."""
        self.requests.close()
        self.answers.close()


class BrokerLink:
    """Requests to the broker. All of it happens in the poller's thread.

    `broken` says why there is no broker any more, once `receive` has returned None.
    """

    def __init__(self, requests: int, answers: socket.socket) -> None:
        self.requests = requests
        self.answers = answers
        self.broken = "the privileged helper has ended"
        self._last = 0

    def fileno(self) -> int:
        """The descriptor to wait on for answers."""
        return self.answers.fileno()

    def number(self) -> int:
        """The number of a new request."""
        self._last += 1
        return self._last

    def send(self, message: packets.Message) -> bool:
        """Send a request as it is; False if the broker is gone. Raises ValueError."""
        return pipe.write(self.requests, message)

    def tell(self, op: str, **fields: Any) -> int:
        """Send a request of `probes.ipc.messages`; returns its number."""
        number = self.number()
        with suppress(OSError):  # the broker has gone, as its socket will say
            self.send({"id": number, "op": op, **fields})
        return number

    def detach(self, unit: int, groups: Sequence[int] | None) -> None:
        """Have the broker detach what it keeps: the kernel takes its time for that."""
        self.tell("detach", unit=unit, groups=None if groups is None else list(groups))

    def attach_in(self, unit: int, group: int | None, on: int, period: int) -> None:
        """Have the broker attach in bursts of `on` of each `period` ms; of 0 ms: for good."""
        self.tell("burst", unit=unit, group=group, on=on, period=period)

    def taken(self, report: BurstReport) -> None:
        """Let the broker begin the next burst."""
        self.tell("taken", unit=report.unit, group=report.group, number=report.number)

    def receive(self) -> tuple[Answer, list[int]] | None:
        """An answer and its descriptors, None at the end; raises MessageError for none."""
        received = packets.receive(self.answers)
        if received is None:
            return None
        data, fds = received
        try:
            return messages.convert(data, Answer), fds
        except MessageError:
            packets.close_all(fds)
            raise

    def close(self) -> None:
        """The broker ends, and detaches everything. It may be closed already."""
        if self.requests >= 0:
            os.close(self.requests)
            self.requests = -1
        self.answers.close()


def connected() -> tuple[BrokerLink, BrokerEnd]:
    """Both ends, before one of them is given away."""
    answers, theirs = packets.pair()
    # Descriptors that somebody sends would be closed by the broker, which can block for ever.
    theirs.shutdown(socket.SHUT_RD)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    return BrokerLink(writing, answers), BrokerEnd(pipe.Reader(reading), theirs)
