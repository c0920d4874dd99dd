# SPDX-License-Identifier: Apache-2.0
"""Asks the kernel what may wait for ever, in a child that is killed then.

Much of /proc/PID takes the lock of that process's memory (mmap_lock), which somebody can hold for
as long as they like: by reading memory of it that a FUSE server provides.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

from probes.core import kernel
from probes.ipc.child_process import PR_SET_PDEATHSIG, close_others

GRACE = 0.2
"""Seconds for which the end of a killed child is waited for; it is reaped later otherwise."""
MOST_PATIENCE = 20
"""How many times its seconds a child has while it only waits for a CPU."""
_HEAD = struct.Struct("=I")
_PART = 1 << 16
_lingering: list[int] = []

Item = TypeVar("Item")


def answers(
    items: Sequence[Item], work: Callable[[Item], bytes], seconds: float
) -> Iterator[bytes]:
    """What `work` says of each item, in order, from a child with the rights of this process.

    It ends early at an item that `work` waits at for longer than some seconds, or raises an
    exception for. Raises OSError if no child can be started.
    """
    _reap()
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
        if pid == 0:
            _be_child(writing, items, work)
    except OSError:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:  # no descriptor is left
        os.close(reading)
        os.kill(pid, signal.SIGKILL)
        _lingering.append(pid)
        raise
    try:
        said = _Said(reading, pid, seconds)
        for _ in items:
            answer = said.next()
            if answer is None:
                return
            yield answer
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        if not select.select([pidfd], [], [], GRACE)[0]:
            _lingering.append(pid)
        else:
            os.waitpid(pid, 0)
        os.close(pidfd)


def _be_child(writing: int, items: Sequence[Item], work: Callable[[Item], bytes]) -> None:
    """Answer, and end. Never returns."""
    with suppress(BaseException):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        # What is attached must not stay so while this process waits.
        close_others({writing})
        for item in items:
            answer = work(item)
            view = memoryview(_HEAD.pack(len(answer)) + answer)
            while view:
                view = view[os.write(writing, view) :]
    os._exit(0)


class _Said:
    """What a child has said so far."""

    def __init__(self, reading: int, pid: int, seconds: float) -> None:
        self._reading, self._pid, self._seconds = reading, pid, seconds
        self._buffer = bytearray()

    def next(self) -> bytes | None:
        """The next answer; None when the child ended, or waits for longer than it may."""
        while True:
            if len(self._buffer) >= _HEAD.size:
                (size,) = _HEAD.unpack_from(self._buffer)
                end = _HEAD.size + size
                if len(self._buffer) >= end:
                    answer = bytes(self._buffer[_HEAD.size : end])
                    del self._buffer[:end]
                    return answer
            if not self._speaks():
                return None
            part = os.read(self._reading, _PART)
            if not part:
                return None
            self._buffer += part

    def _speaks(self) -> bool:
        last = time.monotonic() + MOST_PATIENCE * self._seconds
        while not select.select([self._reading], [], [], self._seconds)[0]:
            # On a busy machine it may not have had a CPU yet.
            if not _is_running(self._pid) or time.monotonic() > last:
                return False
        return True


def _is_running(pid: int) -> bool:
    """Whether a process runs, or would if a CPU were free."""
    text = kernel.read_text(f"/proc/{pid}/stat") or ""
    return text.rpartition(") ")[2].startswith("R")


def _reap() -> None:
    """Reap children that took longer to end."""
    for pid in list(_lingering):
        with suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG)[0] == 0:
                continue
        _lingering.remove(pid)
