# SPDX-License-Identifier: Apache-2.0
"""A process that knows what can be traced here, for as long as somebody searches.

tracefs and kallsyms are for root only, and reading them takes a moment: so the broker has
a child for it that keeps its lists, and ends when nobody asks for a while.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import time
from collections.abc import Callable

from probes import ipc
from probes.base import ProbeError

IDLE_SECONDS = 20.0
PR_SET_PDEATHSIG = 1


class Searcher:
    """The broker's side: at most one child, started by the first question."""

    what = "the search"

    def __init__(self, answer: Callable[[ipc.Message], None], forget: Callable[[], None]) -> None:
        self.sock: socket.socket | None = None
        self._answer = answer
        self._forget = forget
        self._pid = 0
        self._asked: int | None = None
        self._deadline = 0.0

    def ask(self, message: ipc.Message) -> None:
        """Pass on {"id", "query"}."""
        if self.sock is None:
            self._start()
        assert self.sock is not None
        self._deadline = time.monotonic() + IDLE_SECONDS
        self._asked = message["id"]
        ipc.send(self.sock, self.body(message))

    def body(self, message: ipc.Message) -> ipc.Message:
        """What the child is told."""
        return {"id": message["id"], "query": str(message.get("query", ""))[:500]}

    def child(self, sock: socket.socket) -> None:
        """Answer, in the child, until nobody asks any more."""
        serve(sock)

    def timeout(self) -> float | None:
        """Seconds until the child is not needed any more; None without one."""
        return None if self.sock is None else max(0.0, self._deadline - time.monotonic())

    def speak(self) -> None:
        """Pass on what the child says; if it has died, the next question starts another."""
        assert self.sock is not None
        received = ipc.receive(self.sock)
        if received is None:
            self.close()
            asked, self._asked = self._asked, None
            if asked is not None:
                why = f"{self.what} ended without an answer"
                self._answer({"id": asked, "ok": False, "why": why, "fix": "ask again"})
            return
        if received[0]["id"] == self._asked:
            self._asked = None
        self._answer(received[0])

    def close(self, kill: bool = False) -> None:
        """End the child."""
        if self.sock is None:
            return
        self.sock.close()
        self.sock = None
        if kill:
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def _start(self) -> None:
        ours, theirs = ipc.pair()
        self._pid = os.fork()
        if self._pid == 0:
            with contextlib.suppress(BaseException):
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                # The dashboard must see EOF when the broker dies, whatever we do.
                self._forget()
                ours.close()
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, 1)
                os.dup2(null, 2)
                self.child(theirs)
            os._exit(0)
        theirs.close()
        self.sock = ours


def serve(sock: socket.socket) -> None:
    """The child: answers {"id", "query"} with what fits, the newest question first."""
    while (received := ipc.receive(sock)) is not None:
        message = received[0]
        # Who types asks faster than we answer: only the last question matters.
        while select.select([sock], [], [], 0)[0]:
            newer = ipc.receive(sock)
            if newer is None:
                return
            message = newer[0]
        try:
            found = _search(message["query"])
        except ProbeError as error:
            ipc.send(sock, {"id": message["id"], "ok": False, "why": error.why, "fix": error.fix})
            continue
        ipc.send(sock, {"id": message["id"], "ok": True, "found": found})


def _search(query: str) -> list[tuple[str, str, str, float | None]]:
    from probes.catalog import search
    from probes.latency_plan import fentry_works
    from probes.prices import price

    entries = search(query, fentry=fentry_works(), kprobes=price("kprobe") is not None)
    return [(e.spec, e.mechanism, e.note, price(e.mechanism)) for e in entries]
