# SPDX-License-Identifier: Apache-2.0
"""A process that asks container runtimes for names, for as long as somebody wants to know.

Their files and sockets are for root only, and a runtime that hangs must keep nobody waiting:
so the broker has a child for it, which ends when a question takes too long.
"""

from __future__ import annotations

import signal
import socket

from probes.broker.search_worker import Searcher
from probes.host import container_runtimes
from probes.ipc import child_process, packets

SECONDS = 5
"""Most that one question may take, of which each runtime has one."""


class Namer(Searcher):
    """The broker's side: at most one child, started by the first question."""

    what = "asking for names"

    def ask(self, number: int, ids: list[str]) -> None:  # type: ignore[override]
        """Look up the names of containers, as the answer to request `number`. Raises OSError."""
        self.tell(number, {"id": number, "ids": ids[: container_runtimes.MOST_IDS]})

    @staticmethod
    def serve(sock: socket.socket) -> None:
        """Answer, in the child, until nobody asks any more."""
        serve(sock)


def serve(sock: socket.socket) -> None:
    """The child: answers {"id", "ids"} with {"names": {id: [container, pod, ...]}}."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    while (received := packets.receive(sock)) is not None:
        message = received[0]
        assert isinstance(message, dict)
        child_process.limit_time(Namer.limits)
        signal.alarm(SECONDS)
        names = container_runtimes.ask(message["ids"])
        signal.alarm(0)
        packets.send(sock, {"id": message["id"], "ok": True, "names": names})
