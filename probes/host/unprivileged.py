# SPDX-License-Identifier: Apache-2.0
"""Runs C code that reads bytes of anybody's choice in a child without any privilege.

The child is forked, so it has what it works on in memory; it keeps one descriptor, a pipe that it
writes its answer to, and has limits of memory, CPU and time.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any, NamedTuple

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.host import privileges

_PR_SET_PDEATHSIG = 1
_STANDARD = 3

Write = Callable[[bytes], None]


class Bounds(NamedTuple):
    """Most that a child may use: bytes of address space beyond those that it is forked with,
    seconds of CPU time, and seconds until it has answered.
    """

    memory: int = 256 << 20
    cpu: int = 5
    seconds: float = 5.0


BOUNDS = Bounds()


def run(
    what: str,
    library: str,
    work: Callable[[Any, Write], None],
    most: int,
    bounds: Bounds = BOUNDS,
) -> bytes:
    """What `work` writes in a child, given the imported `library`: at most `most` bytes.

    It is shorter than `work` meant when the child died. Raises ProbeError, which names `what`
    was done, when it takes too long or writes more, and OSError if no child can be started.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
        if pid == 0:
            _be_child(writing, library, work, bounds)
    finally:
        os.close(writing)
    try:
        return _answer(what, pid, reading, most, bounds.seconds)
    finally:
        os.close(reading)


def _answer(what: str, pid: int, reading: int, most: int, seconds: float) -> bytes:
    """What the child writes; it has ended when this returns."""
    pidfd = os.pidfd_open(pid)
    parts: list[bytes] = []
    last = time.monotonic() + seconds
    try:
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        while most > 0 and (left := last - time.monotonic()) > 0 and poll.poll(1000 * left):
            part = os.read(reading, min(most, 1 << 16))
            if not part:
                return b"".join(parts)
            parts.append(part)
            most -= len(part)
        why = f"{what} takes longer than {seconds:g} seconds, or its answer is too long"
        raise ProbeError(why, "try again when the machine is less busy")
    finally:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)


def _be_child(
    writing: int, library: str, work: Callable[[Any, Write], None], bounds: Bounds
) -> None:
    """Give up all privileges, work, and end. Never returns."""

    def write(data: bytes) -> None:
        while data:
            data = data[os.write(writing, data) :]

    with suppress(BaseException):
        module = import_module(library)
        _confine(writing, bounds)
        work(module, write)
    os._exit(0)


def _confine(writing: int, bounds: Bounds) -> None:
    """Keep one descriptor, little memory and no privileges."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(_STANDARD):
        os.dup2(null, number)
    # Those that are open, for the limit may be a billion, or below some of them.
    for number in map(int, os.listdir("/proc/self/fd")):
        if number >= _STANDARD and number != writing:
            with suppress(OSError):
                os.close(number)
    limits = {
        resource.RLIMIT_AS: _address_space() + bounds.memory,
        resource.RLIMIT_CPU: bounds.cpu,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
    }
    for which, value in limits.items():
        hard = resource.getrlimit(which)[1]
        least = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (least, least))
    if os.geteuid() == 0:
        privileges.drop(privileges.User(privileges.NOBODY, privileges.NOBODY, None))
    # Changing the user forgets this.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _address_space() -> int:
    """Bytes of address space in use, of which a loader with a compiler in it has much."""
    pages = (kernel.read_text("/proc/self/statm") or "0").split()[0]
    return int(pages) * resource.getpagesize()
