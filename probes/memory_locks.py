# SPDX-License-Identifier: Apache-2.0
"""Which processes hold up whoever wants to change the memory of all that run a file.

To place or remove a uprobe, the kernel takes the lock of the memory (mmap_lock) of each process
that has mapped the file, without being interruptible, and lets nobody fork meanwhile. Where such a
lock is held by somebody who reads memory that a FUSE server provides, the whole machine waits.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress

from probes import killable, lookup
from probes.base import ProbeError, TracedFile

SECONDS = 0.5
"""How long one process is waited for."""
MOST_STUCK = 4
"""Processes that do not answer, after which no more are asked."""
REMEMBERED_SECONDS = 1.0
_NO_ADDRESS = (1 << 56) - 4096
"""Where no program has memory. To tell so, the kernel takes the lock as for a change (Linux 6.5),
or as for reading, and gives up when the process that asks is killed."""
_MAPPED = re.compile(rb"^\S+ \S+ \S+ ([0-9a-f]+):([0-9a-f]+) ([1-9]\d*) ", re.MULTILINE)
_PIECE = 1 << 16

_known: tuple[float, tuple[int, ...]] | None = None


def check(file: TracedFile) -> None:
    """Raises ProbeError if a process that may run a file does not answer."""
    stuck = _stuck()
    for pid in stuck:
        if len(stuck) >= MOST_STUCK or _may_run(pid, file):
            raise _refused(pid)


def check_process(pid: int) -> None:
    """Raises ProbeError if a process does not let its memory be looked at."""
    if _stuck_of([pid]):
        raise _refused(pid)


def _refused(pid: int) -> ProbeError:
    why = f"process {pid} does not let its memory be looked at, which would stop the machine"
    return ProbeError(why, "end it, or what it waits for (a FUSE or network file system)")


def _stuck() -> tuple[int, ...]:
    """The processes that do not answer, as of the last second."""
    global _known
    if _known is None or time.monotonic() - _known[0] > REMEMBERED_SECONDS:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        found = tuple(_stuck_of(pids))
        _known = time.monotonic(), found
    return _known[1]


def _stuck_of(pids: Sequence[int]) -> list[int]:
    """Those of some processes that do not answer; raises ProbeError if they cannot be asked."""
    found: list[int] = []
    while pids and len(found) < MOST_STUCK:
        try:
            answered = sum(1 for _ in killable.answers(pids, _ask, SECONDS))
        except OSError as error:
            raise ProbeError(f"no process can be started ({error.strerror})", "") from error
        found += pids[answered : answered + 1]
        pids = pids[answered + 1 :]
    return found


def _ask(pid: int) -> bytes:
    """Have the kernel take the lock of a process; one that is gone or not ours to read has none."""
    with suppress(OSError):
        fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.pread(fd, 1, _NO_ADDRESS)
        finally:
            os.close(fd)
    return b""


def _may_run(pid: int, file: TracedFile) -> bool:
    """Whether a process may have mapped a file, from a process that does not answer."""
    if file.is_overlaid:
        return True
    mounts = lookup.mounts(pid)
    kinds = {one.device: one.kind for one in mounts.values()}
    for maps in killable.answers([pid], _maps, SECONDS):
        for major, minor, inode in _MAPPED.findall(maps):
            device = f"{int(major, 16)}:{int(minor, 16)}"
            # What lies on an overlay has another number there.
            if int(inode) == file.stat.st_ino or kinds.get(device, "overlay") == "overlay":
                return True
        return not maps
    return True


def _maps(pid: int) -> bytes:
    with suppress(OSError), open(f"/proc/{pid}/maps", "rb", buffering=0) as file:
        return b"".join(iter(lambda: file.read(_PIECE), b""))
    return b""
