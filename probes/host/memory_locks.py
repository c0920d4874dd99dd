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

from probes.core.errors import ProbeError
from probes.host import killable_child, lookup
from probes.host.traced_files import TracedFile

SECONDS = 0.5
"""How long one process is waited for."""
MOST_SECONDS, AGAIN_SECONDS = 3.0, 10.0
"""How long all of them are waited for, and when it is tried again if that was too short."""
MOST_STUCK = 4
"""Processes that do not answer, after which no more are asked."""
REMEMBERED_SECONDS = 1.0
_NO_ADDRESS = (1 << 56) - 4096
"""Where no program has memory. To tell so, the kernel takes the lock as for a change (Linux 6.5),
or as for reading, and gives up when the process that asks is killed."""
_MAPPED = re.compile(rb"^\S+ \S+ \S+ ([0-9a-f]+):([0-9a-f]+) ([1-9]\d*) ", re.MULTILINE)
_PIECE = 1 << 16

_known: tuple[float, tuple[int, ...] | ProbeError] | None = None


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
    """The processes that do not answer, as of the last second; raises ProbeError."""
    global _known
    found = _known[1] if _known is not None else None
    keep = AGAIN_SECONDS if isinstance(found, ProbeError) else REMEMBERED_SECONDS
    if _known is None or time.monotonic() - _known[0] > keep:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        try:
            found = tuple(_stuck_of(pids))
        except ProbeError as error:
            found = error
        _known = time.monotonic(), found
    if isinstance(found, ProbeError):
        raise found
    return found or ()


def _stuck_of(pids: Sequence[int]) -> list[int]:
    """Those of some processes that do not answer; raises ProbeError if they cannot be asked."""
    found: list[int] = []
    end = time.monotonic() + MOST_SECONDS
    while pids and len(found) < MOST_STUCK:
        answered = 0
        try:
            for _ in killable_child.answers(pids, _ask, SECONDS):
                answered += 1
                if time.monotonic() > end:
                    why = "processes take too long to let their memory be looked at"
                    raise ProbeError(why, "end those that wait for a FUSE or network file system")
        except OSError as error:
            raise ProbeError(f"no process can be started ({error.strerror})", "") from error
        found += pids[answered : answered + 1]
        pids = pids[answered + 1 :]
    return found


def _ask(pid: int) -> bytes:
    """Have the kernel take the lock of a process; one that is gone has none.

    The memory of a process whose first thread has ended is that of its other threads.
    """
    if not _has_memory(f"/proc/{pid}"):
        with suppress(OSError):
            any(_has_memory(f"/proc/{pid}/task/{name}") for name in os.listdir(f"/proc/{pid}/task"))
    return b""


def _has_memory(task: str) -> bool:
    """Whether a task has memory, whose lock the kernel has taken then."""
    try:
        fd = os.open(f"{task}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        # Where nobody may open it (kernel.yama.ptrace_scope=3), this at least waits for writers.
        with suppress(OSError), open(f"{task}/pagemap", "rb", buffering=0) as pages:
            pages.read(8)
        return True
    except OSError:
        return False
    try:
        return bool(os.pread(fd, 1, _NO_ADDRESS))
    except OSError:
        # There is memory, but not at that address.
        return True
    finally:
        os.close(fd)


def _may_run(pid: int, file: TracedFile) -> bool:
    """Whether a process may have mapped a file, from a process that does not answer."""
    if file.is_overlaid:
        return True
    mounts = lookup.mounts(pid)
    kinds = {one.device: one.kind for one in mounts.values()}
    for maps in killable_child.answers([pid], _maps, SECONDS):
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
