# SPDX-License-Identifier: Apache-2.0
"""What the live source asks the broker beside loading, and who is waiting for the answers."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

from probes import ipc
from probes.base import Found

OnFound = Callable[[Sequence[Found]], None]
OnAnswer = Callable[[ipc.Message], None]


class Questions:
    """Questions by the ids of their requests. All of it happens in the poller's thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._searches: dict[int, OnFound] = {}
        self._helping: dict[int, OnAnswer] = {}

    def search(self, request: int, query: str, on_found: OnFound) -> None:
        """Ask what can be traced; whoever asked before may get no answer any more."""
        self._searches = {request: on_found}
        ipc.send(self._sock, {"id": request, "op": "search", "query": query})

    def help(self, request: int, name: str, on_answer: OnAnswer, fds: Sequence[int]) -> None:
        """Have a helper work, see `probes.helpers`; the descriptors are closed."""
        self._helping[request] = on_answer
        try:
            ipc.send(self._sock, {"id": request, "op": "help", "name": name}, fds)
        finally:
            ipc.close_all(fds)

    def answered(self, message: dict[str, Any]) -> bool:
        """Pass on what the broker says, if it is an answer to one of these."""
        on_found = self._searches.pop(message["id"], None)
        if on_found is not None:
            found = message["found"] if message["ok"] else [("", "", message["why"], None)]
            on_found([Found(*entry) for entry in found])
            return True
        on_answer = self._helping.pop(message["id"], None)
        if on_answer is not None:
            on_answer(message)
            return True
        return False
