# SPDX-License-Identifier: Apache-2.0
"""A dashboard that is killed leaves the terminal as it was: its broker sees to that."""

from __future__ import annotations

import os
import pty
import re
import signal
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.kernel.harness import eventually, is_running, program_ids
from tests.kernel.terminal import PROBETOP, Tty, set_size
from tests.kernel.test_lifecycle import assert_gone

pytestmark = [pytest.mark.kernel, pytest.mark.concurrent]

OPTIONS = ("-i", "0.2", "--probes", "syscalls,execs")
ON_BEFORE = {"7", "25"}
"""Modes that every terminal begins with: automatic wrap and the cursor."""
_MODE = re.compile(r"\x1b\[\?([0-9;]+)([hl])|\x1b\[([<>=])([0-9;]*)u|\x1b\[>4(;[0-9]*)?m")


class Modes:
    """What a program has switched on in a terminal, by what it wrote."""

    def __init__(self, text: str) -> None:
        self.on = set(ON_BEFORE)
        self.ever: set[str] = set()
        self._stacks: dict[bool, list[str]] = {True: [], False: []}
        for found in _MODE.finditer(text):
            numbers, final, sign, keyboard, other_keys = found.groups()
            for number in numbers.split(";") if numbers else ():
                self.ever.add(number)
                (self.on.add if final == "h" else self.on.discard)(number)
            if sign is not None:
                self._keyboard(sign, keyboard)
            elif other_keys is not None or found[0] == "\x1b[>4m":
                (self.on.add if other_keys not in (None, ";0") else self.on.discard)("keys")

    def _keyboard(self, sign: str, number: str) -> None:
        # The alternate screen has a stack of its own.
        stack = self._stacks["1049" in self.on]
        if sign == ">":
            stack.append(number)
            self.ever.add("kitty")
        elif sign == "<":
            del stack[max(0, len(stack) - int(number or 1)) :]

    @property
    def left(self) -> set[str]:
        """What differs from a terminal that nobody has used, the keyboard protocol too."""
        kitty = {"kitty"} if any(self._stacks.values()) else set[str]()
        return (self.on ^ ON_BEFORE) | kitty


def test_the_parser_sees_what_is_left() -> None:
    assert Modes("\x1b[?1049h\x1b[>25u\x1b[?7l").left == {"1049", "7", "kitty"}
    assert Modes("\x1b[?1049h\x1b[>25u\x1b[?1049l\x1b[<u").left == {"kitty"}
    assert Modes("\x1b[?1049h\x1b[>25u\x1b[<u\x1b[?1049l").left == set()
    assert Modes("\x1b[>4;2m").left == {"keys"}


def attributes(fd: int) -> list[Any]:
    """All settings of a terminal."""
    return termios.tcgetattr(fd)


@contextmanager
def dashboard(*prefix: str) -> Iterator[tuple[Tty, list[Any]]]:
    """A dashboard that draws, and how its terminal was before."""
    before = _fresh_attributes()
    with Tty(*prefix, *PROBETOP, *OPTIONS) as tty:
        tty.shows("argv")
        tty.shows("share")
        assert attributes(tty.master) != before
        assert {"1049", "1000", "1003", "1004", "1006", "2004", "kitty"} <= Modes(tty.text).ever
        yield tty, before


def _fresh_attributes() -> list[Any]:
    master, slave = pty.openpty()
    try:
        return attributes(slave)
    finally:
        os.close(master)
        os.close(slave)


def is_as_before(tty: Tty, before: list[Any]) -> None:
    """Wait until nothing is left of the dashboard in its terminal."""
    tty.until("no mode is left", lambda: not Modes(tty.text).left)
    tty.until("its attributes are back", lambda: attributes(tty.master) == before)


def test_after_a_kill_of_the_dashboard() -> None:
    programs = program_ids()
    with dashboard() as (tty, before):
        tree = tty.tree()
        os.kill(tty.pid, signal.SIGKILL)
        is_as_before(tty, before)
        assert_gone(programs, tree)


def test_after_a_kill_of_the_broker() -> None:
    with dashboard() as (tty, before):
        # The process that makes files was started before it.
        os.kill(max(tty.tree()), signal.SIGKILL)
        tty.until("it says so", lambda: "the privileged helper has ended" in tty.text)
        assert tty.ended() == 1
        is_as_before(tty, before)


def test_after_a_kill_when_its_shell_is_gone_too() -> None:
    """The death of the session's leader hangs the terminal up, and it can be used afterwards."""
    with dashboard("setsid", "-w", "--ctty", "sh", "-c", '"$@"; true', "sh") as (tty, _):
        eventually("the dashboard has begun", lambda: len(tty.tree()) >= 3)
        (pid,) = [p for p in tty.tree() if _is_dashboard(p)]
        os.kill(pid, signal.SIGKILL)
        tty.until("no mode is left", lambda: not Modes(tty.text).left)


def _is_dashboard(pid: int) -> bool:
    """Whether it has threads and draws: its broker has none."""
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        ours = b"tui.cli" in file.read() and os.path.exists(f"/proc/{pid}/exe")
    return ours and len(os.listdir(f"/proc/{pid}/task")) > 1


def test_after_a_kill_while_it_is_stopped_nothing_is_written() -> None:
    """What ctrl+Z gave back is not undone a second time: a shell may use the screen by then."""
    with Tty("bash", "--norc", "--noprofile", "-i") as shell:
        shell.until("there is a shell", lambda: "shell> " in shell.text)
        shell.type(f"{' '.join([*PROBETOP, *OPTIONS])}\n")
        shell.shows("argv")
        tree = shell.tree() - {shell.pid}
        shell.type("\x1a")
        shell.until("it is stopped", lambda: "Stopped" in shell.text[-500:])
        assert not Modes(shell.text).left - {"2004"}  # which is the shell's own
        shell.text = ""
        shell.type("kill -9 %1; wait\n")
        eventually("all have ended", lambda: not any(map(is_running, tree)))
        shell.type("echo en''d\n")
        shell.until("the shell goes on", lambda: "end\r\n" in shell.text)
        assert "\x1b[?1049l" not in shell.text


def test_after_a_kill_a_shell_edits_lines() -> None:
    with Tty("bash", "--norc", "--noprofile", "-i") as shell:
        shell.until("there is a shell", lambda: "shell> " in shell.text)
        shell.type(f"{' '.join([*PROBETOP, *OPTIONS])}\n")
        shell.shows("argv")
        (pid,) = [p for p in shell.tree() - {shell.pid} if _is_dashboard(p)]
        os.kill(pid, signal.SIGKILL)
        shell.until("the shell is back", lambda: "Killed" in shell.text)
        shell.until("no mode is left", lambda: not Modes(shell.text).left - {"2004"})
        shell.text = ""
        shell.type("echo a\x7fbc''d\n")
        shell.until("it took the line", lambda: "bcd\r\n" in shell.text)


def test_standard_output_may_be_another_terminal() -> None:
    """The dashboard draws on standard error: that is what has to be put right."""
    master, slave = pty.openpty()
    set_size(slave, 100, 30)
    name = os.ttyname(slave)
    before = _fresh_attributes()
    program = f"exec {' '.join([*PROBETOP, *OPTIONS])} >{name}"
    try:
        with Tty("sh", "-c", program) as tty:
            tty.shows("argv")
            os.kill(tty.pid, signal.SIGKILL)
            is_as_before(tty, before)
        os.set_blocking(master, False)
        with pytest.raises(BlockingIOError):
            os.read(master, 1)
    finally:
        os.close(slave)
        os.close(master)


def test_an_end_that_is_none_by_force_writes_nothing_twice() -> None:
    with dashboard() as (tty, before):
        tree = tty.tree()
        tty.type("q")
        assert tty.ended() == 0
        eventually("the broker has ended", lambda: not any(map(is_running, tree)))
        tty.settle()
        assert tty.text.count("\x1b[?1049l") == 1
        is_as_before(tty, before)


def test_a_stop_and_its_end_do_not_leave_the_keyboard_twice() -> None:
    with dashboard() as (tty, before):
        os.kill(tty.pid, signal.SIGSTOP)
        time.sleep(0.3)
        os.kill(tty.pid, signal.SIGCONT)
        tty.until("it is taken again", lambda: tty.text.count("\x1b[?1049h") == 2)
        tty.until("all of it", lambda: tty.text.rpartition("\x1b[?1049h")[2].count("\x1b[?7l"))
        tty.type("q")
        assert tty.ended() == 0
        is_as_before(tty, before)
