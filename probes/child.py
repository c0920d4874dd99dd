# SPDX-License-Identifier: Apache-2.0
"""Child processes of the broker: forked with limits, killed by pidfd, never waited for.

A child has nothing of the broker's open but what it is given: neither the dashboard's socket,
which must close when the broker dies, nor the descriptors that keep programs attached.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from probes import ipc, pipe

PR_SET_PDEATHSIG = 1
MIB = 1 << 20
GRACE = 0.2
"""Seconds for which the end of a killed child is waited for; it is reaped later otherwise."""
MOST_LINGERING = 64
"""Children that were killed and are not gone: a file system that answers nothing holds them."""


class Limits(NamedTuple):
    """Most that a child may use: bytes of address space beyond those that it is forked with, and
    seconds of CPU time for one task.
    """

    memory: int = 512 * MIB
    cpu: int = 5


class _Closable(Protocol):
    def close(self) -> None: ...


End = TypeVar("End", bound=_Closable)


class Child(Generic[End]):
    """A child process and our end of what connects it: a socket, or a pipe to read from."""

    _lingering: list[Child[Any]] = []  # noqa: RUF012 - killed, but not yet gone

    def __init__(self, pid: int, ours: End) -> None:
        self.pid = pid
        self.ours = ours
        self._pidfd = os.pidfd_open(pid)

    def end(self) -> int | None:
        """Kill it and close our end; its wait status, None if it is still about to end."""
        self.ours.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        # What it has started itself; its number is not given away before it is reaped.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        return self._reap(GRACE)

    def ended(self, seconds: float) -> int | None:
        """As `end`, for one that may end by itself within `seconds`."""
        self.ours.close()
        status = self._wait(seconds)
        return self.end() if status is None else status

    def _reap(self, seconds: float) -> int | None:
        status = self._wait(seconds)
        if status is None:
            self._lingering.append(self)
        return status

    def _wait(self, seconds: float) -> int | None:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return None
        _, status = os.waitpid(self.pid, 0)
        os.close(self._pidfd)
        return status

    @classmethod
    def reap_all(cls) -> None:
        """Reap those that took longer to end."""
        lingering, cls._lingering[:] = list(cls._lingering), []
        for child in lingering:
            child._reap(0)


def start(
    work: Callable[[socket.socket], None],
    limits: Limits,
    keep: Collection[int] = (),
    quiet: bool = True,
) -> Child[socket.socket]:
    """Fork a child that does `work` with its end of a socket, and ends.

    It keeps the descriptors of `keep`; the standard ones become /dev/null if it is `quiet`.
    Raises OSError where there is no process or descriptor left for it.
    """
    if len(Child._lingering) >= MOST_LINGERING:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    ours, theirs = ipc.pair()
    try:
        pid = _forked(partial(work, theirs), limits, {theirs.fileno(), *keep}, quiet)
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return Child(pid, ours)


def start_untrusted(
    work: Callable[[], ipc.Message], limits: Limits, keep: Collection[int] = ()
) -> Child[pipe.Reader]:
    """Fork a child whose answer is what `work` returns, sent through a pipe.

    It is for a child that strangers may take over: it can send no descriptors. Otherwise as
    `start`.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        pid = _forked(lambda: pipe.write(writing, work()), limits, {writing, *keep}, True)
    except OSError:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return Child(pid, pipe.Reader(reading))


def _forked(work: Callable[[], object], limits: Limits, keep: Collection[int], quiet: bool) -> int:
    """The process id of a new child that does `work` within limits, and ends."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.setpgid(0, 0)
            close_others(keep)
            if quiet:
                _silence()
            limit(limits)
            work()
        os._exit(0)
    return pid


def close_others(keep: Collection[int]) -> None:
    """Close every descriptor of this process but the standard ones and those of `keep`."""
    low = 3
    for fd in sorted(fd for fd in keep if fd >= 3):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def limit(limits: Limits) -> None:
    """Set this process's limits."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory = _address_space() + limits.memory
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    limit_time(limits)


def limit_time(limits: Limits) -> None:
    """Let a new task begin: CPU time counts from now on."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    used = int(time.process_time()) + 1
    soft = used + limits.cpu
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard < 0 else min(soft, hard), hard))


def _address_space() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _silence() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    if null > 2:
        os.close(null)
