# SPDX-License-Identifier: Apache-2.0
"""Looks names up without opening what they lead to, and tells what kind of mount it lies on."""

from __future__ import annotations

import ctypes
import errno
import os
import re
from typing import NamedTuple

_OPENAT2 = 437
HERE = -100
"""Stands for the working directory: AT_FDCWD."""
NO_MAGICLINKS, NO_SYMLINKS, IN_ROOT = 0x02, 0x04, 0x10
"""RESOLVE_* of openat2(2)."""


class Found(NamedTuple):
    """An O_PATH descriptor of a file, and one of the root that its path begins at, or -1."""

    fd: int
    root: int

    def close(self) -> None:
        """Close both."""
        close(*self)


def close(*fds: int) -> None:
    """Close descriptors; -1 is none."""
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def open_in_root(root: int, path: str) -> int:
    """An O_PATH descriptor of a path that cannot leave a root; raises OSError, ValueError."""
    return open_below(root, path, IN_ROOT | NO_MAGICLINKS)


def open_below(directory: int, path: str, resolve: int) -> int:
    """An O_PATH descriptor by openat2(2); raises OSError, ValueError."""
    name = os.fsencode(path)
    if b"\0" in name:
        raise ValueError("embedded null byte")
    how = (ctypes.c_uint64 * 3)(os.O_PATH | os.O_CLOEXEC, 0, resolve)
    libc = ctypes.CDLL(None, use_errno=True)
    # The kernel gives up when somebody renames directories meanwhile.
    for _ in range(100):
        fd = libc.syscall(_OPENAT2, directory, name, ctypes.byref(how), ctypes.sizeof(how))
        if fd >= 0:
            return int(fd)
        number = ctypes.get_errno()
        if number != errno.EAGAIN:
            break
    raise OSError(number, os.strerror(number), path)


def open_directory(path: str) -> int:
    """A descriptor of a directory, by the rights of now; raises OSError, ValueError."""
    found = open_below(HERE, path, NO_MAGICLINKS)
    try:
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(found)


def file_system(fd: int) -> int:
    """f_type of fstatfs(2), which Python's own does not have."""
    buffer = (ctypes.c_long * 32)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fstatfs(fd, buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(buffer[0]) & 0xFFFFFFFF


def mount_kind(fd: int) -> str | None:
    """The file system's name in the table of mounts, None for a mount that we do not see.

    The kernel answers this by itself. A virtual machine's host has FUSE's number, but is no
    user's: "virtiofs".
    """
    number = mount(fd)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            left, _, right = line.partition(" - ")
            if left.split(" ", 1)[0] == number:
                return right.split(" ", 1)[0]
    return None


def mount(fd: int) -> str:
    """The number of the mount that a file was opened on, "" where it is not known."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
        found = re.search(r"^mnt_id:\s*(\d+)", info.read(), re.MULTILINE)
    return found[1] if found else ""
