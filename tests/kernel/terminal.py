# SPDX-License-Identifier: Apache-2.0
"""A terminal that a test reads when it wants to, and the characters that are on its screen."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.kernel.harness import DEADLINE, eventually, is_running
from tests.paths import ROOT

PROBETOP = (sys.executable, "-m", "tui.cli")
_PIECE = re.compile(
    r"\x1b\[([0-?]*)[ -/]*([@-~])|\x1b[PX^_\]].*?(?:\x1b\\|\x07)"
    r"|\x1b[ -/]*[0-OQ-WYZ\\`-~]|([^\x1b])",
    re.S,
)


class Grid:
    """What is on a screen: moves, erasing and characters of one cell; styles are left out."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.x = self.y = 0
        self._rest = ""
        self.cells: dict[tuple[int, int], str] = {}

    def feed(self, text: str) -> None:
        """Take in what a program wrote."""
        text = self._rest + text
        last = text.rfind("\x1b")
        cut = last if last >= 0 and _PIECE.match(text, last) is None else len(text)
        self._rest = text[cut:]
        for found in _PIECE.finditer(text[:cut]):
            parameters, final, char = found.groups()
            if char is not None:
                self._put(char)
            elif final == "H":
                row, _, column = parameters.partition(";")
                self.y, self.x = int(row or 1) - 1, int(column or 1) - 1
            elif final == "G":
                self.x = int(parameters or 1) - 1
            elif final in ("h", "l") and parameters == "?1049":
                self.cells.clear()

    def _put(self, char: str) -> None:
        if char == "\n":
            self.y += 1
        elif char == "\r":
            self.x = 0
        elif char >= " ":
            self.cells[self.x, self.y] = char
            self.x += 1

    def lines(self) -> list[str]:
        """The screen, line by line."""
        columns, rows = range(self.columns), range(self.rows)
        return ["".join([self.cells.get((x, y), " ") for x in columns]).rstrip() for y in rows]


class Tty:
    """A program with a controlling terminal of its own."""

    def __init__(self, *command: str, size: tuple[int, int] = (100, 30)) -> None:
        self.pid, self.master = pty.fork()
        if not self.pid:
            # No line of this process may be reached in the child, whatever goes wrong.
            try:
                os.chdir(ROOT)
                set_size(0, *size)
                environment = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
                os.execvpe(command[0], command, {**environment, "PS1": "shell> "})
            finally:
                os._exit(127)
        self.grid = Grid(*size)
        self.text = ""
        self.status: int | None = None
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up, and end the program by force if it has not ended."""
        self.hang_up()
        if self.status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def hang_up(self) -> None:
        """Close the terminal's other end."""
        if self.master >= 0:
            os.close(self.master)
            self.master = -1

    def read(self, seconds: float) -> bool:
        """Read what comes within so many seconds; whether there was anything."""
        ready, _, _ = select.select([self.master], [], [], seconds)
        with suppress(OSError):  # EIO: nobody has it open any more
            text = self._decode(os.read(self.master, 65536)) if ready else ""
            self.text = (self.text + text)[-200_000:]
            self.grid.feed(text)
            return bool(text)
        return False

    def settle(self) -> None:
        """Read until nothing comes any more."""
        end = time.monotonic() + DEADLINE
        while self.read(0.7):
            assert time.monotonic() < end, "it goes on writing"

    def until(self, what: str, condition: Callable[[], object]) -> None:
        """Read until something holds."""
        end = time.monotonic() + DEADLINE
        while not condition():
            self.read(0.1)
            shown = "\n".join(self.grid.lines())
            assert time.monotonic() < end, f"still not: {what}; the screen:\n{shown}"

    def shows(self, word: str) -> None:
        """Read until a word is on the screen."""
        self.until(f"{word!r} is shown", lambda: any(word in line for line in self.grid.lines()))

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.master, text.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Make the terminal larger or smaller."""
        set_size(self.master, columns, rows)
        self.grid = Grid(columns, rows)

    def ended(self) -> int:
        """Wait for its end without reading; its exit status."""

        def reap() -> bool:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
            return pid != 0

        eventually("the program has ended", reap)
        assert self.status is not None
        return self.status

    def tree(self) -> set[int]:
        """The process and all that came from it."""
        found, new = set[int](), {self.pid}
        while new:
            found |= new
            new = {child for pid in new for child in _children(pid)} - found
        return {pid for pid in found if is_running(pid)}


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def set_size(fd: int, columns: int, rows: int) -> None:
    """Tell a terminal how large it is."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("=4H", rows, columns, 0, 0))
