# SPDX-License-Identifier: Apache-2.0
"""What is sent to the terminal, by a thread that may wait for it as long as it likes.

Nobody else waits: what a terminal does not take is held up to a limit, and dropped beyond it.
A screen of which a part was dropped is torn, and has to be painted anew.
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
"""Bytes that are held for a terminal; a single repaint may be larger, if it is the only one."""


class Stall(NamedTuple):
    """A time in which there was always something to send: its beginning and its seconds."""

    began: float
    seconds: float


NO_STALL = Stall(0.0, 0.0)


class Wire:
    """Bytes for one terminal. All methods may be called from any thread, and from signal handlers.

    `written` counts the bytes that the terminal took, `torn` tells that a repaint was dropped,
    and is for the reader to take back. `on_idle` and `on_death` are called in the wire's own
    thread: when all is sent, if somebody asked to be told, and when nothing can be sent any more.
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
        # A signal handler may come in between, and write too: the lock is reentrant.
        self._news = threading.Condition(threading.RLock())
        self._waiting: deque[tuple[bytes, bool]] = deque()
        self._held = 0
        self._since: float | None = None
        self._longest = NO_STALL
        self._asked = self._ending = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to send; more often does nothing."""
        with self._news:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="wire", daemon=True)
                self._thread.start()

    def write(self, text: str, paint: bool = False) -> None:
        """Have a text sent behind all others, or drop it whole where too much is waiting.

        `paint` says that another repaint can stand for it, so that `discard` may drop it.
        """
        data = text.encode(self._encoding, "backslashreplace")
        with self._news:
            if not data or self.dead or self._ending:
                return
            # What is no repaint is short and cannot be made again: it has a limit of its own.
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
        """Bytes that the terminal did not take yet."""
        return self._held

    def ask_idle(self) -> bool:
        """Whether nothing is waiting to be sent; if something is, `on_idle` will be called once."""
        with self._news:
            self._asked = self._held > 0
            return not self._asked

    def stall(self) -> Stall:
        """The longest time of not being idle, since this was called last; it may go on."""
        with self._news:
            longest, self._longest = self._longest, NO_STALL
            if self._since is not None:
                now = Stall(self._since, self._clock() - self._since)
                longest = max(longest, now, key=lambda stall: stall.seconds)
            return longest

    def forgive(self) -> None:
        """Begin to measure anew: it was this program that stood still, not the terminal."""
        with self._news:
            self._longest = NO_STALL
            if self._since is not None:
                self._since = self._clock()

    def discard(self) -> None:
        """Drop the repaints that are still waiting."""
        with self._news:
            for data, paint in self._waiting:
                self._held -= len(data) if paint else 0
            self._waiting = deque([entry for entry in self._waiting if not entry[1]])
            self._rest()

    def drain(self, seconds: float) -> bool:
        """Wait until all is sent, for so long at most; whether it is."""
        with self._news:
            self._news.wait_for(lambda: not self._held, seconds)
            return not self._held

    def stop(self, seconds: float = 0.5) -> None:
        """End the thread when all is sent; one that waits for its terminal is left behind."""
        self.drain(seconds)
        with self._news:
            self._ending = True
            self._news.notify_all()
            thread = self._thread
        if thread is not None and not self._held:
            thread.join(seconds)

    def _rest(self) -> None:
        """Notes that there is nothing to send, if that is so."""
        if self._held or self._since is None:
            return
        stall = Stall(self._since, self._clock() - self._since)
        self._longest = max(self._longest, stall, key=lambda stall: stall.seconds)
        self._since = None
        self._news.notify_all()

    # The wire's thread.

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
                # Another program has made the terminal that it shares with us non-blocking.
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
