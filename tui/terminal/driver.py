# SPDX-License-Identifier: Apache-2.0
"""The terminal as the program sees it: nothing about it ever waits.

Textual's own driver waits for a terminal that does not read, with the whole program: then
neither keys nor signals come through. It also looks ten times a second whether there is input,
and takes any SIGCONT for the end of a suspension. This one writes through a
`tui.terminal.writer.Wire`.
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
from tui.terminal.messages import HungUp, Resumed, WireIdle
from tui.terminal.textual_private import OpenDriver, XTermParser, driver_of, escape_due
from tui.terminal.writer import Wire

PATIENCE = 0.5
"""Seconds in which a terminal may take the sequences that leave it as it was found."""
SETTLE = 0.05
"""Seconds for which a change of size waits for the next: a dragged window sends hundreds."""


class WireDriver(OpenDriver):
    """Textual's driver for terminals, with a writer that holds little and delays nobody."""

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
        self.wire = Wire(
            self._output,
            on_idle=lambda: self._tell(WireIdle()),
            on_death=lambda: self._tell(HungUp()),
            encoding=sys.__stderr__.encoding,
        )
        self.writer = self.wire
        self._painting: list[str] | None = None
        self._poke = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._suspended = self._resizing = False
        super().__init__(app, debug=debug, mouse=mouse, size=size)

    def _tell(self, message: Message) -> None:
        """Tell the application, from any thread; one that has ended need not know."""
        with suppress(RuntimeError):
            self.application.post_message(message)

    def _soon(self, act: Callable[..., object], *args: object) -> None:
        """Have the loop do something, from a signal handler."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(act, *args)

    # -- output -------------------------------------------------------------------------

    def write(self, data: str) -> None:
        """Have something sent; within `paint`, with all else of the repaint."""
        if self._painting is None:
            self.wire.write(data)
        else:
            self._painting.append(data)

    @contextmanager
    def paint(self) -> Iterator[None]:
        """What is written meanwhile is one repaint, which is dropped as a whole or not at all."""
        self._painting = []
        try:
            yield
        finally:
            text, self._painting = "".join(self._painting), None
            self.wire.write(text, paint=True)

    # -- beginning and end --------------------------------------------------------------

    def start_application_mode(self) -> None:
        """Take the terminal over."""
        terminal_state.taken(True)
        super().start_application_mode()  # type: ignore[no-untyped-call]
        signal.signal(signal.SIGWINCH, self._on_winch)

    def disable_input(self) -> None:
        """End the thread that reads keys."""
        if self.key_thread is not None and self.key_thread.is_alive():
            os.eventfd_write(self._poke, 1)
        super().disable_input()

    def stop_application_mode(self) -> None:
        """Give the terminal back as it was; repaints that it did not take are not wanted now."""
        self.wire.discard()
        # To change the terminal of a shell that has it back would stop us for ever.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        if not self._in_foreground():
            self.attrs_before = None
        super().stop_application_mode()

    def close(self) -> None:
        """The last that is sent; a terminal that does not take it is left alone."""
        self.wire.stop(PATIENCE)
        terminal_state.taken(False)

    def suspend_application_mode(self) -> None:
        """Give the terminal back for a while."""
        self.stop_application_mode()
        self.wire.drain(PATIENCE)
        terminal_state.taken(False)

    def _in_foreground(self) -> bool:
        """Whether no shell has taken the terminal back, or given it to another job."""
        try:
            return os.tcgetpgrp(self.fileno) == os.getpgrp()
        except OSError:  # it is nobody's controlling terminal, so nobody else has it
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
        """Suspend, but not in the middle of whatever the signal came into."""
        self._soon(self._suspend)

    def on_continue_signal(self, *_: object) -> None:
        """The end of a SIGSTOP, before which nothing could be given back."""
        if not self._suspended:
            self._soon(self._take_again)

    def _suspend(self) -> None:
        """Stop, with all of the shell's job, until the shell makes us go on in front."""
        if not self.may_suspend or self._suspended:
            return
        self._suspended = True
        self.suspend_application_mode()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        for _ in range(100):
            stopped = time.monotonic()
            file_maker.stop_job()
            # Without a shell that could make us go on, the signal does not stop at all.
            if self._in_foreground() or time.monotonic() - stopped < 0.01:
                break
        signal.signal(signal.SIGTSTP, self.on_stop_signal)
        self._suspended = False
        self._begin_again()

    def _take_again(self) -> None:
        """Take the terminal over a second time: who stopped us may have used it."""
        if self._in_foreground() and self.key_thread is not None:
            attributes = self.attrs_before
            # The keyboard protocol is a stack: what is pushed again is taken off first.
            self.write("\x1b[<u")
            self.disable_input()
            self._begin_again()
            self.attrs_before = attributes

    def _begin_again(self) -> None:
        self.wire.forgive()
        self.resume_application_mode()
        self.application.post_message(Resumed())

    # -- input --------------------------------------------------------------------------

    def run_input_thread(self) -> None:
        """Wait for input and hand it over, until `disable_input` or the end of the terminal."""
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
        """Hand over what was typed; False if there is nobody to type any more."""
        try:
            data = os.read(self.fileno, 4096)
        except OSError:
            return False
        for message in parser.feed(decode(data)) if data else ():
            self.process_message(message)
        return bool(data)


def _patience(parser: XTermParser) -> float | None:
    """Seconds until an escape that nothing followed was the key; None if there is none."""
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


def of(app: App[Any]) -> WireDriver | None:
    """The driver of an application that has a terminal."""
    driver = driver_of(app)
    return driver if isinstance(driver, WireDriver) else None
