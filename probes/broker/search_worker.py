# SPDX-License-Identifier: Apache-2.0
"""A process that knows what can be traced here, for as long as somebody searches.

tracefs and kallsyms are for root only, and reading them takes a moment: so the broker has
a child for it that keeps its lists, and ends when nobody asks for a while.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Collection

from probes.core.errors import ProbeError
from probes.ipc import child_process, packets
from probes.ipc.child_process import Child, Kind, Limits

IDLE_SECONDS = 20.0
ANSWER_SECONDS = 10.0
"""After so many seconds without an answer the child is killed."""


class Searcher:
    """The broker's side: at most one child, started by the first question."""

    what = "the search"
    limits = Limits()

    def __init__(self, answer: Callable[[packets.Message], object]) -> None:
        self._answer = answer
        self.kind = Kind()
        self._waiting: tuple[int, packets.Message] | None = None
        self._child: Child[socket.socket] | None = None
        self._asked: int | None = None
        self._deadline = 0.0

    @property
    def sources(self) -> list[socket.socket]:
        """Those on which the child may speak."""
        return [self._child.ours] if self._child else []

    def ask(self, number: int, query: str) -> None:
        """Look for `query`, as the answer to request `number`. Raises OSError."""
        self.tell(number, {"id": number, "query": query})

    def tell(self, number: int, question: packets.Message) -> None:
        """Pass a question on, now or when there is time; raises OSError if it cannot be done.

        That is where the child cannot be started. Of those that wait the last one counts.
        """
        if self.kind.pace.delay() > 0:
            self._waiting = number, question
            return
        self._waiting = None
        if self._child is None:
            self._child = child_process.start(self.serve, self.limits, kind=self.kind)
        self._child.begin()
        # A child that does not read keeps nobody waiting.
        self._child.ours.setblocking(False)
        if self._asked is None:
            self._deadline = time.monotonic() + ANSWER_SECONDS
        self._asked = number
        try:
            packets.send(self._child.ours, question)
        except BlockingIOError:
            self._fail("is busy")

    @staticmethod
    def serve(sock: socket.socket) -> None:
        """Answer, in the child, until nobody asks any more."""
        serve(sock)

    def timeout(self) -> float | None:
        """Seconds until the child has had its time, or another question its turn; None without."""
        times = [] if self._waiting is None else [self.kind.pace.delay()]
        if self._child is not None:
            times.append(max(0.0, self._deadline - time.monotonic()))
        return min(times, default=None)

    def speak(self, ready: Collection[int]) -> None:
        """Pass on what the child says, and end it when its time is over.

        If it has died, the next question starts another.
        """
        self._go_on()
        if self._child is None:
            return
        if self._child.ours.fileno() in ready:
            self._hear()
        elif time.monotonic() >= self._deadline:
            if self._asked is None:
                self.close()
            else:
                self._fail(f"took more than {ANSWER_SECONDS:g} seconds")

    def _go_on(self) -> None:
        """Ask what waits, if its time has come."""
        if self._waiting is None or self.kind.pace.delay() > 0:
            return
        number, question = self._waiting
        try:
            self.tell(number, question)
        except OSError as error:
            self._waiting = None
            why = f"{self.what} cannot be started ({error.strerror})"
            self._answer({"id": number, "ok": False, "why": why, "fix": "ask again"})

    def _hear(self) -> None:
        assert self._child is not None
        self._child.charge()
        try:
            received = packets.receive(self._child.ours, 0)
        except BlockingIOError:
            return
        except packets.MessageError:
            received = None
        if received is None or not isinstance(received[0], dict):
            self._fail("ended without an answer")
            return
        answer = received[0]
        self._deadline = time.monotonic() + IDLE_SECONDS
        if answer.get("id") == self._asked:
            self._asked = None
        self._answer(answer)

    def _fail(self, how: str) -> None:
        """End the child, and say so to who asked last."""
        asked, self._asked = self._asked, None
        self.close()
        if asked is not None:
            why = f"{self.what} {how}"
            self._answer({"id": asked, "ok": False, "why": why, "fix": "ask for something else"})

    def close(self) -> None:
        """End the child."""
        ended, self._child = self._child, None
        if ended is not None:
            ended.end()


def serve(sock: socket.socket) -> None:
    """The child: answers {"id", "query"} with what fits, the newest question first."""
    while (received := packets.receive(sock)) is not None:
        # Who types asks faster than we answer: only the last question matters.
        while select.select([sock], [], [], 0)[0]:
            newer = packets.receive(sock)
            if newer is None:
                return
            received = newer
        message = received[0]
        assert isinstance(message, dict)
        child_process.limit_time(Searcher.limits)
        try:
            found = _search(message["query"])
        except ProbeError as error:
            packets.send(
                sock, {"id": message["id"], "ok": False, "why": error.why, "fix": error.fix}
            )
            continue
        packets.send(sock, {"id": message["id"], "ok": True, "found": found})


def _search(query: str) -> list[tuple[str, str, str, float | None]]:
    from probes.budget.attach_overhead import price
    from probes.latency.planner import fentry_works
    from probes.symbols.search import search

    entries = search(query, fentry=fentry_works(), kprobes=price("kprobe") is not None)
    return [(e.spec, e.mechanism, e.note, price(e.mechanism)) for e in entries]
