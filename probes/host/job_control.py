# SPDX-License-Identifier: Apache-2.0
"""Stopping a shell's job with a process in it that might not stop by itself, and go on drawing.

A process with privileges stops the other one by SIGSTOP, and again whenever somebody makes it go
on while another job has the terminal.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from contextlib import suppress
from pathlib import Path

CHECK_SECONDS = 0.25
"""How often a stopped process is looked at."""


class Job:
    """The job of this process, and of `pid` (with a pidfd), which is stopped for sure."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self._pid, self._pidfd = pid, pidfd
        self._terminal = -1

    def stop(self) -> None:
        """Stop the job, where a shell is there to make it go on."""
        if has_shell(self._pid):
            with suppress(OSError):
                if self._terminal < 0:
                    self._terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
            # First, for it may be about to handle the other signal.
            self._send(signal.SIGSTOP)
        # Other processes of the job may be root's, as a script is that called probetop.
        os.killpg(os.getpgrp(), signal.SIGTSTP)

    def wait(self, sock: socket.socket) -> None:
        """Wait until there is something to read, and keep stopped what is to be."""
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        while not poll.poll(None if self._terminal < 0 else CHECK_SECONDS * 1000):
            self._check()
        self._check()

    def _check(self) -> None:
        if self._terminal < 0:
            return
        # Before the foreground: a shell hands the terminal over, and then makes the job go on.
        state = _status(self._pid)[:1]
        try:
            in_front = os.tcgetpgrp(self._terminal) == os.getpgrp()
        except OSError:  # the terminal is gone
            in_front = True
        if in_front:
            os.close(self._terminal)
            self._terminal = -1
        elif state not in ([], ["T"], ["t"]):
            self._send(signal.SIGSTOP)

    def _send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)


def has_shell(pid: int) -> bool:
    """Whether a process's job has a parent in its session that can make it go on.

    The kernel lets SIGTSTP stop no others (orphaned process groups); SIGSTOP would for good.
    """
    status = _status(pid)
    while len(status) > 3:
        _, parent, group, session = status[:4]
        status = _status(int(parent))
        if len(status) > 3 and status[2] != group:
            return status[3] == session
    return False


def _status(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on: state, parent, group, session; or none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()
