# SPDX-License-Identifier: Apache-2.0
"""Watches the process and the cgroup that filters name, and says when one of them has gone.

A process is held by a pidfd, so that another one that gets its pid is never taken for it. A
cgroup is known by its path: one that is made again at the same path takes the old one's place.
"""

from __future__ import annotations

import errno
import os
import select
import time
import weakref
from contextlib import suppress
from pathlib import Path

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.frame import Filters, Notice
from probes.host.cgroups import cgroup_directory
from probes.host.path_watch import PathWatch

ENDED = (1 << 64) - 1
"""When a process started that has ended: no process passes a filter that asks for this."""
LOOK_SECONDS = 0.25
"""How often a cgroup is looked at, where inotify does not tell when one is made again."""
MOST_WAKES = 20
"""Times that inotify wakes us within LOOK_SECONDS: whoever may make cgroups beside the filtered
one could keep a CPU busy else."""
_TICK = 10_000_000
"""ns of the unit in which /proc/PID/stat tells times (USER_HZ is 100 on all architectures here)."""


class FilterWatch:
    """The process and the cgroup of some filters, as they were when the filters were set.

    `started` is when the process started, in ns since boot, for the programs to compare; None
    without a process, or where that is not known. Raises ProbeError for a process or a cgroup
    that is not there. The descriptors are closed with the object.
    """

    def __init__(self, filters: Filters) -> None:
        self.filters = filters
        self.started: int | None = None
        self._pidfd: int | None = None
        self._comm: str | None = None
        self._directory: Path | None = None
        self._inode: int | None = None
        self._paths: PathWatch | None = None
        self._there = self._looked = time.monotonic()
        self._wakes = 0
        self._process: Notice | None = None
        self._pid: Notice | None = None
        self._cgroup: Notice | None = None
        if filters.cgroup is not None:
            self._directory = cgroup_directory(filters.cgroup)
            root = kernel.cgroup2()
            if root is not None and self._directory.is_relative_to(root) and _below(filters.cgroup):
                self._paths = PathWatch(root, self._directory)
            self._inode = _inode_of(self._directory)
        # A pid is one that the caller sees, in whichever namespace; 0 is the idle task.
        if filters.pid:
            self._hold(filters.pid)
            if not kernel.in_initial_pid_namespace():
                self._pid = Notice("pid_of_namespace", time.time(), filters.pid, self._comm)

    @property
    def notices(self) -> tuple[Notice, ...]:
        """Whose pid is taken, what has gone, and what has come in its place."""
        found = (self._pid, self._process, self._cgroup)
        return tuple([notice for notice in found if notice is not None])

    def wait(self) -> float | None:
        """Seconds until the cgroup should be looked at again; None without one."""
        return None if self._directory is None else LOOK_SECONDS

    def wait_fds(self) -> tuple[int, ...]:
        """Descriptors that become readable when the process ends or the cgroup may have changed."""
        found = []
        if self._pidfd is not None and self._process is None:
            found.append(self._pidfd)
        if self._paths is not None and self._paths.fd is not None and self._wakes < MOST_WAKES:
            found.append(self._paths.fd)
        return tuple(found)

    def check(self) -> bool:
        """Look at the process and the cgroup; True if the programs must be told anew."""
        changed = False
        if self._pidfd is not None and self._process is None and _has_ended(self._pidfd):
            now = time.time()
            self._process = Notice("process_ended", now, self.filters.pid, self._comm)
            self.started, changed = ENDED, True
        return self._check_cgroup() or changed

    def _check_cgroup(self) -> bool:
        if self._directory is None:
            return False
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked, self._wakes = now, 0
        if self._paths is not None:
            self._wakes += 1
            self._paths.clear()
        try:
            inode = _inode_of(self._directory)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV, errno.ENOTDIR):
                return False
            inode = None
        known, self._inode = self._inode, inode
        if known is None and inode is None:
            return False
        before, self._there = self._there, now
        if inode == known:
            return False
        if inode is None:
            self._cgroup = Notice("cgroup_removed", time.time(), cgroup=self.filters.cgroup)
            return False
        self._cgroup = Notice(
            "cgroup_followed", time.time(), cgroup=self.filters.cgroup, seconds=now - before
        )
        return True

    def _hold(self, pid: int) -> None:
        fd = _open(pid)
        weakref.finalize(self, os.close, fd)
        self._pidfd = fd
        started, comm = _start_of(pid), kernel.read_text(f"/proc/{pid}/comm")
        if _has_ended(fd):
            # What was read may be of another process.
            raise _no_process(pid)
        self.started, self._comm = started, comm


def _open(pid: int) -> int:
    if not 0 < pid < 1 << 31:
        raise _no_process(pid)
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno == errno.ESRCH:
            raise _no_process(pid) from None
        # EINVAL, and ENOENT from Linux 6.9 on, are for threads.
        if error.errno in (errno.EINVAL, errno.ENOENT):
            why = f"{pid} is a thread, not a process"
            raise ProbeError(why, "give its process, as ps shows it") from None
        why = f"process {pid} cannot be watched ({error.strerror})"
        raise ProbeError(why, "raise the limit of open files, or filter by name") from error


def check_started(pid: int, started: int | None) -> None:
    """Raises ProbeError where a pid is not that of the process which started then any more."""
    if started is not None and _start_of(pid) != started:
        why = f"the filtered process {pid} has ended, so that its files cannot be looked up"
        raise ProbeError(why, "end the filter by process first (p)")


def _no_process(pid: int) -> ProbeError:
    return ProbeError(f"there is no process {pid}", "see ps or pgrep for those that run now")


def _has_ended(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _start_of(pid: int) -> int | None:
    """When a process started, in ns since boot, rounded down to a tick; None if unreadable."""
    text = kernel.read_text(f"/proc/{pid}/stat")
    if text is None:
        return None
    # A process's name may hold blanks and parentheses.
    fields = text.rpartition(")")[2].split()
    return max(0, int(fields[19]) * _TICK - _boot_offset())


def _boot_offset() -> int:
    """ns that /proc adds to times since boot, in a time namespace."""
    lines = kernel.lines("/proc/self/timens_offsets")
    for fields in [line.split() for line in lines]:
        with suppress(ValueError, IndexError):
            if fields[0] == "boottime":
                return int(fields[1]) * 1_000_000_000 + int(fields[2])
    return 0


def _below(cgroup: str) -> bool:
    """Whether a filter's cgroup is another one than the root, which does not go."""
    return bool(cgroup.strip("/"))


def _inode_of(directory: Path) -> int:
    return os.stat(directory).st_ino
