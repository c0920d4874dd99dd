# SPDX-License-Identifier: Apache-2.0
"""Looks names up without opening what they lead to, and tells what kind of mount it lies on."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import sys
from typing import NamedTuple

_OPENAT2 = 437
_AT_EMPTY_PATH, _AT_STATX_DONT_SYNC, _STATX_INO = 0x1000, 0x4000, 0x100
HERE = -100
"""Stands for the working directory: AT_FDCWD."""
NO_XDEV, NO_MAGICLINKS, NO_SYMLINKS, BENEATH, IN_ROOT = 0x01, 0x02, 0x04, 0x08, 0x10
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


def identity(fd: int, path: str = "") -> tuple[int, int]:
    """A file's device and inode number, as the kernel knows them; raises OSError.

    No file system is asked: whoever serves a FUSE mount, perhaps below an overlay, could let every
    question wait for ever. With a `path` it is what that leads to, else what `fd` stands for.
    """
    buffer = (ctypes.c_uint32 * 64)()
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _AT_STATX_DONT_SYNC | (0 if path else _AT_EMPTY_PATH)
    if libc.statx(fd, os.fsencode(path), flags, _STATX_INO, ctypes.byref(buffer)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    inode = int.from_bytes(bytes(buffer)[32:40], sys.byteorder)
    return os.makedev(buffer[34], buffer[35]), inode


def may_wait(fd: int, pid: int) -> bool:
    """Whether a file of a process lies where a question may wait for ever.

    That is a mount of FUSE; an overlay that the user of a namespace may have mounted over such a
    one; and any that is neither our mount nor the process's. The kernel answers this by itself.
    """
    number, ours = mount(fd), mounts("self")
    if number in ours:
        return ours[number].kind.startswith("fuse")
    found = mounts(pid).get(number)
    if found is None or found.kind.startswith("fuse"):
        return True
    seen = found.device in {one.device for one in ours.values()}
    return found.kind == "overlay" and not seen and not in_our_user_namespace(pid)


def in_our_user_namespace(pid: int | str) -> bool:
    """Whether a process is in our user namespace; False where that may not be seen."""
    try:
        return os.readlink(f"/proc/{pid}/ns/user") == os.readlink("/proc/self/ns/user")
    except OSError:
        return False


class Mount(NamedTuple):
    """Numbers of a mount's device, as "0:45", and the name of its kind of file system."""

    device: str
    kind: str


def mounts(pid: int | str) -> dict[str, Mount]:
    """The mounts that a process sees, by number; empty where they may not be seen."""
    found = {}
    try:
        with open(f"/proc/{pid}/mountinfo", "rb") as mounts:
            # Names of mounts are somebody's choice: as bytes a line ends where the kernel ends it.
            for line in mounts:
                left, _, right = line.decode("utf-8", "surrogateescape").partition(" - ")
                number, _, device = left.split(" ", 3)[:3]
                found[number] = Mount(device, right.split(" ", 1)[0])
    except OSError:
        return {}
    return found


def mount_kind(fd: int) -> str | None:
    """The file system's name in the table of mounts, None for a mount that we do not see.

    The kernel answers this by itself. A virtual machine's host has FUSE's number, but is no
    user's: "virtiofs".
    """
    found = mounts("self").get(mount(fd))
    return found.kind if found else None


def mount(fd: int) -> str:
    """The number of the mount that a file was opened on, "" where it is not known."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
        found = re.search(r"^mnt_id:\s*(\d+)", info.read(), re.MULTILINE)
    return found[1] if found else ""
