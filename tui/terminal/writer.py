# SPDX-License-Identifier: Apache-2.0
"""Writes to the terminal in a thread of its own, so that a slow terminal blocks nothing else.

Output that the terminal does not take is queued up to a limit and dropped beyond it. After a drop
the screen is torn and needs a full repaint.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

LIMIT = 1 << 16
"""Most bytes that are queued; a single larger repaint is accepted if the queue is empty."""


class Stall(NamedTuple):
    """A period in which output was always queued: its start and its length, both in seconds."""

    began: float
    seconds: float


NO_STALL = Stall(0.0, 0.0)


class TerminalWriter:
    """The output queue of one terminal.

    All methods may be called from any thread and from signal handlers. `written` is the number of
    bytes that the terminal took. `torn` becomes True when a repaint is dropped; the reader resets
    it. `on_idle` and `on_death` are called in the writer's thread: the first when the queue is
    empty after `ask_idle` returned False, the second when the terminal is gone.
    """

    def __init__(
        self,
        fd: int,
        *,
        on_idle: Callable[[], object] = lambda: None,
        on_death: Callable[[], object] = lambda: None,
        encoding: str = "utf-8",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.written = 0
        self.torn = False
        self.dead = False
        self._fd = fd
        self._on_idle, self._on_death = on_idle, on_death
        self._encoding = encoding
        self._clock = clock
        # A signal handler may interrupt a write and write too, so the lock is reentrant.
        self._news = threading.Condition(threading.RLock())
        self._waiting: deque[tuple[bytes, bool]] = deque()
        self._held = 0
        self._since: float | None = None
        self._longest = NO_STALL
        self._asked = self._ending = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; further calls do nothing."""
        with self._news:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="terminal writer", daemon=True
                )
                self._thread.start()

    def write(self, text: str, paint: bool = False) -> None:
        """Queue a text, or drop it as a whole if too many bytes are queued.

        `paint` marks a repaint, which `discard` may drop because a later repaint replaces it.
        """
        data = text.encode(self._encoding, "backslashreplace")
        with self._news:
            if not data or self.dead or self._ending:
                return
            # Other output than repaints is short and cannot be repeated, so it has its own limit.
            held = self._held if paint else sum([len(data) for data, _ in self._waiting])
            if held and held + len(data) > LIMIT:
                self.torn |= paint
                return
            if self._since is None:
                self._since = self._clock()
            self._waiting.append((data, paint))
            self._held += len(data)
            self._news.notify_all()

    @property
    def held(self) -> int:
        """Bytes that are queued."""
        return self._held

    def ask_idle(self) -> bool:
        """True if the queue is empty; otherwise `on_idle` will be called once."""
        with self._news:
            self._asked = self._held > 0
            return not self._asked

    def stall(self) -> Stall:
        """The longest busy period since the last call; it may still go on."""
        with self._news:
            longest, self._longest = self._longest, NO_STALL
            if self._since is not None:
                now = Stall(self._since, self._clock() - self._since)
                longest = max(longest, now, key=lambda stall: stall.seconds)
            return longest

    def forgive(self) -> None:
        """Restart the measurement after the program itself was stopped."""
        with self._news:
            self._longest = NO_STALL
            if self._since is not None:
                self._since = self._clock()

    def discard(self) -> None:
        """Drop the queued repaints."""
        with self._news:
            for data, paint in self._waiting:
                self._held -= len(data) if paint else 0
            self._waiting = deque([entry for entry in self._waiting if not entry[1]])
            self._rest()

    def drain(self, seconds: float) -> bool:
        """Wait up to `seconds` for an empty queue; return True if it is empty."""
        with self._news:
            self._news.wait_for(lambda: not self._held, seconds)
            return not self._held

    def stop(self, seconds: float = 0.5) -> None:
        """Wait up to `seconds` for an empty queue, then stop the thread.

        A thread that is blocked in a write is abandoned.
        """
        self.drain(seconds)
        with self._news:
            self._ending = True
            self._news.notify_all()
            thread = self._thread
        if thread is not None and not self._held:
            thread.join(seconds)

    def _rest(self) -> None:
        """Record the end of a busy period if the queue is empty."""
        if self._held or self._since is None:
            return
        stall = Stall(self._since, self._clock() - self._since)
        self._longest = max(self._longest, stall, key=lambda stall: stall.seconds)
        self._since = None
        self._news.notify_all()

    # Run in the writer's thread.

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting or self._ending)
                if self._ending:
                    return
                data = b"".join([data for data, _ in self._waiting])
                self._waiting.clear()
            try:
                self._send(data)
            except OSError:
                self._die()
                return
            with self._news:
                self._rest()
                tell = self._asked and not self._held
                self._asked &= not tell
            if tell:
                self._on_idle()

    def _send(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            try:
                sent = os.write(self._fd, left)
            except BlockingIOError:
                # Another program has set the shared terminal to non-blocking mode.
                with suppress(ValueError):
                    select.select([], [self._fd], [], 1.0)
                continue
            left = left[sent:]
            with self._news:
                self.written += sent
                self._held -= sent

    def _die(self) -> None:
        with self._news:
            self.dead = True
            self._waiting.clear()
            self._held = 0
            self._rest()
        self._on_death()
