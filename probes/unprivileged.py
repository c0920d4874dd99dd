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
from typing import Any

from probes import kernel, privileges
from probes.base import ProbeError

MEMORY, CPU_SECONDS, SECONDS = 512 << 20, 5, 5.0
_PR_SET_PDEATHSIG = 1
_STANDARD = 3

Write = Callable[[bytes], None]


def run(what: str, library: str, work: Callable[[Any, Write], None], most: int) -> bytes:
    """What `work` writes in a child, given the imported `library`: at most `most` bytes.

    It is shorter than `work` meant when the child died. Raises ProbeError, which names `what`
    was done, when it takes too long or writes more, and OSError if no child can be started.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
        if pid == 0:
            _be_child(writing, library, work)
    finally:
        os.close(writing)
    try:
        return _answer(what, pid, reading, most)
    finally:
        os.close(reading)


def _answer(what: str, pid: int, reading: int, most: int) -> bytes:
    """What the child writes; it has ended when this returns."""
    pidfd = os.pidfd_open(pid)
    parts: list[bytes] = []
    last = time.monotonic() + SECONDS
    try:
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        while most > 0 and (left := last - time.monotonic()) > 0 and poll.poll(1000 * left):
            part = os.read(reading, min(most, 1 << 16))
            if not part:
                return b"".join(parts)
            parts.append(part)
            most -= len(part)
        why = f"{what} takes longer than {SECONDS:g} seconds, or its answer is too long"
        raise ProbeError(why, "try again when the machine is less busy")
    finally:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)


def _be_child(writing: int, library: str, work: Callable[[Any, Write], None]) -> None:
    """Give up all privileges, work, and end. Never returns."""

    def write(data: bytes) -> None:
        while data:
            data = data[os.write(writing, data) :]

    with suppress(BaseException):
        module = import_module(library)
        _confine(writing)
        work(module, write)
    os._exit(0)


def _confine(writing: int) -> None:
    """Keep one descriptor, little memory and no privileges."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(_STANDARD):
        os.dup2(null, number)
    os.closerange(_STANDARD, writing)
    os.closerange(writing + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1] & 0xFFFFF)
    limits = {
        resource.RLIMIT_AS: max(MEMORY, _address_space() + (MEMORY >> 2)),
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
    }
    for which, value in limits.items():
        resource.setrlimit(which, (value, value))
    if os.geteuid() == 0:
        privileges.drop(privileges.User(privileges.NOBODY, privileges.NOBODY, None))
    # Changing the user forgets this.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _address_space() -> int:
    """Bytes of address space in use, of which a loader with a compiler in it has much."""
    pages = (kernel.read_text("/proc/self/statm") or "0").split()[0]
    return int(pages) * resource.getpagesize()
