# SPDX-License-Identifier: Apache-2.0
"""A Textual terminal driver that never blocks the program.

Textual's own driver blocks the whole program while the terminal does not read, so that neither keys
nor signals are handled. It also polls for input ten times a second and takes any SIGCONT for the
end of a suspension. This driver writes through a `tui.terminal.writer.TerminalWriter`.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import sys
import time
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from textual import events
from textual.app import App
from textual.geometry import Size
from textual.message import Message

from probes.host import file_maker, terminal_state
from tui.terminal.messages import HungUp, Resumed, WriterIdle
from tui.terminal.textual_private import OpenDriver, XTermParser, driver_of, escape_due
from tui.terminal.writer import TerminalWriter

PATIENCE = 0.5
"""Seconds that the terminal has at exit to take the sequences that restore it."""
SETTLE = 0.05
"""Seconds from the first size change to the handling: dragging a window sends hundreds of them."""


class BufferedDriver(OpenDriver):
    """Textual's Linux driver, with a writer that buffers little and never blocks."""

    def __init__(
        self,
        app: App[Any],
        *,
        debug: bool = False,
        mouse: bool = True,
        size: tuple[int, int] | None = None,
    ) -> None:
        assert sys.__stderr__ is not None
        self._output = sys.__stderr__.fileno()
        self.output = TerminalWriter(
            self._output,
            on_idle=lambda: self._tell(WriterIdle()),
            on_death=lambda: self._tell(HungUp()),
            encoding=sys.__stderr__.encoding,
        )
        self.writer = self.output
        self._painting: list[str] | None = None
        self._poke = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._suspended = self._resizing = False
        super().__init__(app, debug=debug, mouse=mouse, size=size)

    def _tell(self, message: Message) -> None:
        """Post a message to the application, from any thread; ignored after its end."""
        with suppress(RuntimeError):
            self.application.post_message(message)

    def _soon(self, act: Callable[..., object], *args: object) -> None:
        """Schedule a call on the event loop from a signal handler."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(act, *args)

    # -- output -------------------------------------------------------------------------

    def write(self, data: str) -> None:
        """Queue output; within `paint`, add it to the repaint."""
        if self._painting is None:
            self.output.write(data)
        else:
            self._painting.append(data)

    @contextmanager
    def paint(self) -> Iterator[None]:
        """Collect the output of the context as one repaint, which is sent or dropped as a whole."""
        self._painting = []
        try:
            yield
        finally:
            text, self._painting = "".join(self._painting), None
            self.output.write(text, paint=True)

    # -- start and end --------------------------------------------------------------

    def start_application_mode(self) -> None:
        """Set the terminal up for the application."""
        terminal_state.taken(True)
        super().start_application_mode()  # type: ignore[no-untyped-call]
        signal.signal(signal.SIGWINCH, self._on_winch)

    def disable_input(self) -> None:
        """Stop the thread that reads keys."""
        if self.key_thread is not None and self.key_thread.is_alive():
            os.eventfd_write(self._poke, 1)
        super().disable_input()

    def stop_application_mode(self) -> None:
        """Restore the terminal; repaints that are still queued are dropped."""
        self.output.discard()
        # A background process that changes its terminal is stopped by SIGTTOU.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        if not self._in_foreground():
            self.attrs_before = None
        super().stop_application_mode()

    def close(self) -> None:
        """Send the last output; give up on a terminal that does not take it in time."""
        self.output.stop(PATIENCE)
        terminal_state.taken(False)

    def suspend_application_mode(self) -> None:
        """Restore the terminal until the application resumes."""
        self.stop_application_mode()
        self.output.drain(PATIENCE)
        terminal_state.taken(False)

    def _in_foreground(self) -> bool:
        """True unless another job is in the terminal's foreground."""
        try:
            return os.tcgetpgrp(self.fileno) == os.getpgrp()
        except OSError:  # not the controlling terminal: no other job can have it
            return True

    # -- signals ------------------------------------------------------------------------

    def _on_winch(self, *_: object) -> None:
        if not (self.sends_size or self._resizing):
            self._resizing = True
            self._soon(self.loop.call_later, SETTLE, self._resize)

    def _resize(self) -> None:
        self._resizing = False
        size = Size(*self.terminal_size())
        self.application.post_message(events.Resize(size, size))

    def terminal_size(self) -> tuple[int, int]:
        """Columns and rows of the terminal that is written to."""
        return size_of(self._output)

    def on_stop_signal(self, *_: object) -> None:
        """Schedule the suspension: the signal may interrupt any code."""
        self._soon(self._suspend)

    def on_continue_signal(self, *_: object) -> None:
        """Resume after a SIGSTOP, before which the terminal was not restored."""
        if not self._suspended:
            self._soon(self._take_again)

    def _suspend(self) -> None:
        """Stop the whole process group until the shell continues it in the foreground."""
        if not self.may_suspend or self._suspended:
            return
        self._suspended = True
        self.suspend_application_mode()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        for _ in range(100):
            stopped = time.monotonic()
            file_maker.stop_job()
            # Without a shell that could continue it, the process must not stop.
            if self._in_foreground() or time.monotonic() - stopped < 0.01:
                break
        signal.signal(signal.SIGTSTP, self.on_stop_signal)
        self._suspended = False
        self._begin_again()

    def _take_again(self) -> None:
        """Set the terminal up again: the shell may have used it."""
        if self._in_foreground() and self.key_thread is not None:
            attributes = self.attrs_before
            # The keyboard protocol is a stack: pop the old entry before the application pushes a
            # new one.
            self.write("\x1b[<u")
            self.disable_input()
            self._begin_again()
            self.attrs_before = attributes

    def _begin_again(self) -> None:
        self.output.forgive()
        self.resume_application_mode()
        self.application.post_message(Resumed())

    # -- input --------------------------------------------------------------------------

    def run_input_thread(self) -> None:
        """Read input and pass it on, until `disable_input` or the end of the terminal."""
        parser = XTermParser(self.debug)
        decode = getincrementaldecoder("utf-8")("replace").decode
        with selectors.DefaultSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            selector.register(self._poke, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select(_patience(parser))}
                if self._poke in ready:
                    break
                if self.fileno in ready and not self._feed(parser, decode):
                    self._tell(HungUp())
                    break
                for message in parser.tick():
                    self.process_message(message)
        with suppress(BlockingIOError):
            os.eventfd_read(self._poke)

    def _feed(self, parser: XTermParser, decode: Any) -> bool:
        """Parse the bytes that were read; return False at the end of the input."""
        try:
            data = os.read(self.fileno, 4096)
        except OSError:
            return False
        for message in parser.feed(decode(data)) if data else ():
            self.process_message(message)
        return bool(data)


def _patience(parser: XTermParser) -> float | None:
    """Seconds until a lone escape counts as the key; None if no escape is pending."""
    due = escape_due(parser)
    return None if due is None else max(0.0, due - time.monotonic())


def size_of(fd: int) -> tuple[int, int]:
    """Columns and rows of a terminal; the environment's if it does not know them, else 80 by 24.

    COLUMNS and LINES are of the moment when they were set, the terminal's own are always right.
    """
    with suppress(OSError):
        columns, rows = os.get_terminal_size(fd)
        if columns and rows:
            return columns, rows
    columns, rows = shutil.get_terminal_size()
    return columns, rows


def of(app: App[Any]) -> BufferedDriver | None:
    """The driver of an application; None if it has no terminal."""
    driver = driver_of(app)
    return driver if isinstance(driver, BufferedDriver) else None
