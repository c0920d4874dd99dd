# SPDX-License-Identifier: Apache-2.0
"""The remote side of a dashboard: `probetop stream --frames`.

It writes records of `probes.recording.framing` to standard output. It reads commands from standard
input, one JSON object per line, and answers each with a message. On a slow link newer Frames
replace older ones, so that nothing queues up. A reader that takes nothing for long, or that closes
standard input, counts as gone; then all probes are detached.
"""

from __future__ import annotations

import os
import selectors
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import probes
from probes.core.errors import ProbeError
from probes.core.frame import Frame
from probes.recording.framing import Encoder, message
from probes.remote.answers import PROTOCOL, line
from probes.source import Found, Source
from tui.commands.flow_control import FlowControl
from tui.commands.frame_commands import LONGEST_QUERY, Alive, NotACommand, Search, Seen, decode
from tui.shared.frame_mailbox import Mailbox

HEARTBEAT, PATIENCE = 5.0, 30.0
"""Seconds without a Frame until a keep-alive is sent, and seconds without one from the reader until
it counts as gone."""
LONGEST_LINE, MOST_ANSWERS = 1 << 16, 1000
Complain = Callable[[str], None]


class FrameServer:
    """Sends a Source's Frames to one descriptor and takes commands from another."""

    def __init__(self, source: Source, reading: int, writing: int) -> None:
        self.ended: str | None = None
        self.signal: int | None = None
        self._source = source
        self._in, self._out = reading, writing
        self._mailbox = Mailbox()
        self._encoder = Encoder(whole=0)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        hello = {"hello": {"version": probes.__version__, "protocol": PROTOCOL}}
        self._answers: deque[dict[str, Any]] = deque([hello])
        self._pending = memoryview(b"")
        self._line = bytearray()
        self._alive: float | None = None
        self._flow = FlowControl()
        self._over = False

    def serve(self) -> None:
        """Run until the reader is gone, the source ends or a signal arrives; then detach all."""
        os.set_blocking(self._out, False)
        try:
            with self._signals():
                self._source.start(self._on_frame, self._on_end)
                self._loop()
        finally:
            self._source.stop()

    def _on_frame(self, frame: Frame) -> None:
        if self._mailbox.put(frame):
            self._poke()

    def _on_end(self, why: str) -> None:
        self.ended = why
        self._poke()

    def _poke(self) -> None:
        with suppress(OSError):
            os.eventfd_write(self._wake, 1)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def note(number: int, _frame: FrameType | None) -> None:
            self.signal = number
            self._poke()

        wanted: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if threading.current_thread() is not threading.main_thread():
            wanted = ()
        heard = [number for number in wanted if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, note) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # -- the loop ----------------------------------------------------------------------------

    def _loop(self) -> None:
        moved = alive = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            # epoll refuses regular files, which are always readable.
            with suppress(PermissionError):
                selector.register(self._in, selectors.EVENT_READ)
            while not self._over and self.ended is None and self.signal is None:
                now = time.monotonic()
                if not self._pending and self._next(now - alive >= HEARTBEAT):
                    moved = alive = now
                if self._pending and self._write():
                    moved = now
                silent = now - self._alive if self._alive is not None else 0.0
                if silent > PATIENCE or (self._pending and now - moved > PATIENCE):
                    return
                self._wait(selector, 1.0 if self._pending else HEARTBEAT)

    def _wait(self, selector: selectors.BaseSelector, seconds: float) -> None:
        watching = bool(self._pending)
        if watching:
            with suppress(PermissionError):
                selector.register(self._out, selectors.EVENT_WRITE)
        try:
            ready = {key.fd for key, _ in selector.select(seconds)}
        finally:
            if watching:
                with suppress(KeyError):
                    selector.unregister(self._out)
        if self._wake in ready:
            os.eventfd_read(self._wake)
        if self._in in ready:
            self._read()

    def _next(self, silent: bool) -> bool:
        """Queue what is to be sent next; return True if there is anything."""
        if self._answers:
            data = b"".join([message(self._answers.popleft()) for _ in range(len(self._answers))])
        elif not self._flow.full and (frame := self._mailbox.take()) is not None:
            data = self._encoder.frame(self._flow.fit(frame))
        elif silent:
            data = message({})
        else:
            return False
        self._pending = memoryview(data)
        return True

    def _write(self) -> bool:
        """Send some of the queue; return True if any byte was sent."""
        try:
            sent = os.write(self._out, self._pending)
        except BlockingIOError:
            return False
        except OSError:
            self._over = True
            return False
        self._pending = self._pending[sent:]
        if not self._pending:
            self._poke()
        return sent > 0

    # -- commands ----------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            data = os.read(self._in, 65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._over = True
            return
        self._line += data
        while (end := self._line.find(b"\n")) >= 0:
            data = bytes(self._line[:end])
            del self._line[: end + 1]
            self._take(data)
        if len(self._line) > LONGEST_LINE or len(self._answers) > MOST_ANSWERS:
            self._over = True

    def _take(self, data: bytes) -> None:
        number: int | None = None
        try:
            number, command = decode(data)
            if isinstance(command, Alive | Seen):
                if isinstance(command, Seen):
                    self._seen(command.frames)
                self._alive = time.monotonic()
            elif isinstance(command, Search):
                self._search(command.id, command.query[:LONGEST_QUERY])
            else:
                command.carry_out(self._source)
                self._answers.append({"id": number, "ok": True})
        except NotACommand as error:
            self._refuse(error.number, error)
        except ProbeError as error:
            self._refuse(number, error)

    def _seen(self, frames: int) -> None:
        try:
            self._flow.arrived(frames)
        except ValueError:
            why = f"{frames} frames cannot have arrived"
            raise ProbeError(why, "update probetop there") from None

    def _refuse(self, number: int | None, error: ProbeError) -> None:
        # The message may quote the command, such as the path of a cgroup.
        why, fix = line(error.why), line(error.fix)
        self._answers.append({"id": number, "ok": False, "why": why, "fix": fix})

    def _search(self, number: int, query: str) -> None:
        def tell(found: Sequence[Found]) -> None:
            # Another thread calls this: a deque is thread-safe, and the loop is woken.
            self._answers.append({"id": number, "ok": True, "found": [list(f) for f in found]})
            self._poke()

        self._source.search(query, tell)


def stream_frames(source: Source, reading: int, writing: int, complain: Complain) -> int:
    """Run the remote side; return the exit status."""
    server = FrameServer(source, reading, writing)
    server.serve()
    if server.ended is not None:
        complain(server.ended)
        return 1
    return 0
