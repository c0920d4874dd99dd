# SPDX-License-Identifier: Apache-2.0
"""Child processes of the broker: forked with limits, killed by pidfd, never waited for.

What children take of the CPUs is charged to their kind, which is slowed down when it is too much.
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

from probes.ipc import packets, pipe
from probes.ipc.cpu_pace import Pace

PR_SET_PDEATHSIG = 1
MIB = 1 << 20
GRACE = 0.2
"""Seconds for which the end of a killed child is waited for; it is reaped later otherwise."""
MOST_LINGERING = 64
"""Children of a kind that were killed and are not gone: a file system that answers nothing holds
them."""
CPU_CLOCK = 2
"""The clock of a process, CPUCLOCK_SCHED, in what clock_gettime takes; its pid is inverted."""


class Limits(NamedTuple):
    """Most that a child may use: bytes of address space beyond those that it is forked with, and
    seconds of CPU time for one task.
    """

    memory: int = 512 * MIB
    cpu: int = 5


class Kind:
    """What children for one purpose share: how many of them linger, and their `pace`."""

    def __init__(self, pace: Pace | None = None) -> None:
        self.pace = pace or Pace()

    def check(self) -> None:
        """Raises OSError where too many of them cannot be ended."""
        if sum(one.kind is self for one in Child._lingering) >= MOST_LINGERING:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


class _Closable(Protocol):
    def close(self) -> None: ...


End = TypeVar("End", bound=_Closable)


class Child(Generic[End]):
    """A child process and our end of what connects it: a socket, or a pipe to read from.

    `kind` is what it is for at present.
    """

    _lingering: list[Child[Any]] = []  # noqa: RUF012 - killed, but not yet gone

    def __init__(self, pid: int, ours: End, kind: Kind) -> None:
        self.pid = pid
        self.ours = ours
        self.kind = kind
        self._pidfd = os.pidfd_open(pid)
        self._charged = 0.0
        self._nice = 0
        self.begin()

    def begin(self) -> None:
        """Let it begin a task, with the urgency that its kind has now."""
        nice = self.kind.pace.nice
        if nice != self._nice:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self.pid, _OWN_NICE + nice)
                self._nice = nice

    def charge(self) -> None:
        """Charge its kind for the CPU time that it took since the last time."""
        with contextlib.suppress(OSError):
            self._take(time.clock_gettime(~self.pid << 3 | CPU_CLOCK))

    def _take(self, seconds: float) -> None:
        self.kind.pace.charge(max(0.0, seconds - self._charged))
        self._charged = max(self._charged, seconds)

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
        _, status, used = os.wait4(self.pid, 0)
        os.close(self._pidfd)
        # That of its own children is in it.
        self._take(used.ru_utime + used.ru_stime)
        return status

    @classmethod
    def reap_all(cls) -> None:
        """Reap those that took longer to end."""
        lingering, cls._lingering[:] = list(cls._lingering), []
        for child in lingering:
            child._reap(0)


OTHER = Kind()
_OWN_NICE = os.getpriority(os.PRIO_PROCESS, 0)


def start(
    work: Callable[[socket.socket], None],
    limits: Limits,
    keep: Collection[int] = (),
    quiet: bool = True,
    kind: Kind = OTHER,
) -> Child[socket.socket]:
    """Fork a child that does `work` with its end of a socket, and ends.

    It keeps the descriptors of `keep`; the standard ones become /dev/null if it is `quiet`.
    Raises OSError where there is no process or descriptor left for it, or too many of its `kind`
    cannot be ended.
    """
    kind.check()
    ours, theirs = packets.pair()
    try:
        pid = _forked(partial(work, theirs), limits, {theirs.fileno(), *keep}, quiet)
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return Child(pid, ours, kind)


def start_untrusted(
    work: Callable[[], packets.Message],
    limits: Limits,
    keep: Collection[int] = (),
    kind: Kind = OTHER,
) -> Child[pipe.Reader]:
    """Fork a child whose answer is what `work` returns, sent through a pipe.

    It is for a child that strangers may take over: it can send no descriptors. Otherwise as
    `start`.
    """
    kind.check()
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        pid = _forked(lambda: pipe.write(writing, work()), limits, {writing, *keep}, True)
    except OSError:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return Child(pid, pipe.Reader(reading), kind)


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
