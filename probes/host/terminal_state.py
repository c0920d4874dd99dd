# SPDX-License-Identifier: Apache-2.0
"""The terminal of a dashboard that was killed: another process leaves it as it was found.

The dashboard marks in memory that it shares with the broker whether it has the terminal. The
broker survives the dashboard's SIGKILL, sees the mark, and undoes everything that was switched on.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import termios
import time
from contextlib import suppress
from typing import Any

INPUT, SCREEN = 0, 2
"""Textual reads keys from standard input and draws on standard error."""
PATIENCE = 1.0
"""Seconds for a dashboard to end, and for a terminal to take what is written."""

LEAVE_SCREEN = (
    b"\x1b\\"  # ends a sequence that was cut off
    b"\x1b[?2026l"  # synchronized output
    b"\x1b[?2004l"  # bracketed paste
    b"\x1b[?7h"  # automatic wrap
    b"\x1b[?2048l"  # reports of the window's size
    b"\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[?1016l"  # mouse
    b"\x1b[<u"  # kitty's keyboard protocol; each screen has its own, so before leaving it
    b"\x1b[?1049l"  # the alternate screen
    b"\x1b[?25h"  # cursor
    b"\x1b[?1004l"  # reports of focus
    b"\x1b[0m"  # colours
)
"""What Textual's driver does at its end, and what it leaves to a terminal that is switched off."""

_mark: mmap.mmap | None = None
_blocking: list[int] = []
"""Standard descriptors at which reading and writing waited: the shell has the same open files."""


def share() -> None:
    """Make the mark, in the process that is going to fork."""
    global _mark
    _mark = mmap.mmap(-1, 1) if os.isatty(INPUT) and os.isatty(SCREEN) else None


def taken(yes: bool) -> None:
    """The dashboard takes the terminal over, or has given it back."""
    if _mark is not None:
        _mark[0] = yes


def remember() -> list[Any] | None:
    """The attributes of the terminal before anybody changes them; None without one."""
    if _mark is None:
        return None
    _blocking[:] = [number for number in (0, 1, 2) if os.get_blocking(number)]
    try:
        return termios.tcgetattr(INPUT)
    except termios.error:
        return None


def restore(saved: list[Any] | None, parent: int) -> None:
    """Undo what a dashboard that was killed could not; does nothing after any other end."""
    if _mark is None or saved is None:
        return
    end = time.monotonic() + PATIENCE
    while _mark[0] and os.getppid() == parent and time.monotonic() < end:
        time.sleep(0.01)
    if not _mark[0] or os.getppid() == parent:
        return
    # A shell may have the terminal back, or nobody: writing must neither stop nor wait.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    for number in _blocking:
        with suppress(OSError):
            os.set_blocking(number, True)
    with suppress(OSError, termios.error):
        _write(LEAVE_SCREEN)
    with suppress(OSError, termios.error):
        _set_attributes(saved)


def _open(standard: int, flags: int) -> int:
    """The terminal anew: a descriptor of ours, not to change how others use it.

    One that was hung up works again, if the terminal is still there.
    """
    flags |= os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
    return os.open(f"/proc/self/fd/{standard}", flags)


def _write(data: bytes) -> None:
    fd = _open(SCREEN, os.O_WRONLY)
    left, end = memoryview(data), time.monotonic() + PATIENCE
    try:
        while left and select.select([], [fd], [], max(0.0, end - time.monotonic()))[1]:
            with suppress(BlockingIOError):
                left = left[os.write(fd, left) :]
    finally:
        os.close(fd)


def _set_attributes(saved: list[Any]) -> None:
    """As they were, unless a shell has changed them already; what the terminal sent is dropped."""
    fd = _open(INPUT, os.O_RDWR)
    try:
        flags = termios.tcgetattr(fd)[3]
        # Editors of lines leave signals on; only a dashboard switches both off.
        if not flags & (termios.ICANON | termios.ISIG):
            termios.tcsetattr(fd, termios.TCSANOW, saved)
        termios.tcflush(fd, termios.TCIFLUSH)
    finally:
        os.close(fd)
