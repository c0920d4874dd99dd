# SPDX-License-Identifier: Apache-2.0
"""ctrl+Z where the dashboard was taken over: it has its job stopped, and goes on drawing."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

from probes.host import file_maker
from probes.host.file_maker import Rule
from tests.unit.agent import DEADLINE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the files are root's")


def waits(pid: int, what: Callable[[int], bool], flags: int) -> None:
    """Wait for a change of a child's state; raises TimeoutError."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG | flags)
        if found and what(status):
            return
        time.sleep(0.01)
    raise TimeoutError


def draws() -> NoReturn:
    """The dashboard: ignores what would stop it."""
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTSTP, signal.SIG_IGN)
        sys.stdin.readline()
        file_maker.start(Rule())
        maker = file_maker.current()
        assert maker is not None
        assert maker.stop()
        while os.tcgetpgrp(2) != os.getpgrp():
            time.sleep(0.01)
        os._exit(7)
    finally:
        os._exit(1)


def shell(rogue: bool) -> NoReturn:
    """The leader of a session with a terminal, its job, and an accomplice that lets that go on."""
    status = 1
    try:
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.dup2(reading, 0)
            sys.stdin = os.fdopen(0)
            draws()
        with suppress(OSError):
            os.setpgid(pid, pid)
        os.tcsetpgrp(2, pid)
        os.write(writing, b"\n")
        waits(pid, os.WIFSTOPPED, os.WUNTRACED)
        os.tcsetpgrp(2, os.getpgrp())
        if rogue:
            os.kill(pid, signal.SIGCONT)
            waits(pid, os.WIFCONTINUED, os.WCONTINUED)
            waits(pid, os.WIFSTOPPED, os.WUNTRACED)
        os.tcsetpgrp(2, pid)
        os.killpg(pid, signal.SIGCONT)
        waits(pid, lambda status: os.WIFEXITED(status) and os.WEXITSTATUS(status) == 7, 0)
        status = 0
    finally:
        os._exit(status)


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal."""
    ends = pty.openpty()
    yield ends
    for fd in ends:
        os.close(fd)


def in_session(terminal: tuple[int, int], work: Callable[[], NoReturn]) -> int:
    """The exit status of a leader of a session on the terminal."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            fcntl.ioctl(terminal[1], termios.TIOCSCTTY, 0)
            os.dup2(terminal[1], 2)
            work()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_it_stops_whatever_it_does_with_the_signal(
    terminal: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert in_session(terminal, lambda: shell(False)) == 0


def test_who_lets_it_go_on_in_the_background_has_it_stopped_again(
    terminal: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert in_session(terminal, lambda: shell(True)) == 0


def test_without_a_shell_nothing_is_stopped_for_good(
    terminal: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader of a session has nobody who could make it go on."""
    monkeypatch.chdir(tmp_path)
    reading, writing = os.pipe()
    os.write(writing, b"\n")

    def alone() -> NoReturn:
        os.dup2(reading, 0)
        sys.stdin = os.fdopen(0)
        with suppress(PermissionError):
            draws()
        os._exit(1)

    def leads() -> NoReturn:
        monkeypatch.setattr(os, "setpgid", lambda pid, group: None)
        alone()

    assert in_session(terminal, leads) == 7
    os.close(reading)
    os.close(writing)
