# SPDX-License-Identifier: Apache-2.0
"""Finds the processes and BPF programs that a test run has left behind.

A run's processes are known by ancestry, and its programs by the process that holds them, so
that other users of the same machine never make a run fail.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from tests.kernel.harness import children_of, is_running, programs_of

PATIENCE = 60.0
"""Seconds that processes and programs have to go away after the last test."""
_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Makes this process the parent of descendants whose own parent ends.

    Without it an orphan becomes a child of init, and nothing tells whose it was.
    Raises OSError when the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def descendants() -> dict[int, str]:
    """The running processes that came from this one, by pid, with their command lines."""
    found: dict[int, str] = {}
    new = children_of(os.getpid())
    while new:
        pid = new.pop()
        new += children_of(pid)
        if is_running(pid):
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                found[pid] = b" ".join(words).decode("utf-8", "replace").strip()
    return found


def own_programs() -> set[int]:
    """The ids of the BPF programs that this process's descriptors hold."""
    gc.collect()
    return programs_of(os.getpid())


class Leftovers:
    """What has appeared since this object was made and is still there."""

    def __init__(self) -> None:
        self._processes = set(descendants())
        self._programs = own_programs()

    def processes(self) -> dict[int, str]:
        """New descendants that still run."""
        return {pid: name for pid, name in descendants().items() if pid not in self._processes}

    def programs(self) -> set[int]:
        """New programs that this process still holds; those of descendants go with them."""
        return own_programs() - self._programs

    def check(self, patience: float = PATIENCE) -> None:
        """Waits until nothing is left; then kills what is, and raises AssertionError."""
        end = time.monotonic() + patience
        while (self.processes() or self.programs()) and time.monotonic() < end:
            time.sleep(0.1)
        processes, programs = self.processes(), self.programs()
        held = {pid: sorted(programs_of(pid)) for pid in processes}
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        lines = [
            f"process {pid} ({name}), which holds BPF programs {held[pid] or 'none'}"
            for pid, name in processes.items()
        ]
        if programs:
            lines.append(f"BPF programs {sorted(programs)}, held by the test process itself")
        assert not lines, "the tests have left behind: " + "; ".join(lines)
