# SPDX-License-Identifier: Apache-2.0
"""Opens a file only where nobody but some users can have chosen which file has that name.

A root-owned file says nothing by its owner alone: a link or a mount in a folder of somebody else
can lead to any such file. So each folder on the way must be of those users.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection

from probes.host.lookup import mount, mount_kind

MOST_LINKS = 40
"""Links on the way of one path: as many as the kernel follows."""
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class _Walk:
    """The folders from this process's root to where a walk is; closed at its end."""

    def __init__(self, owners: Collection[int]) -> None:
        self._owners = owners
        self._links = 0
        self._folders: list[tuple[int, str, bool]] = []
        self._enter(os.open("/", _FOLDER))

    def close(self) -> None:
        """Close all folders."""
        while self._folders:
            os.close(self._folders.pop()[0])

    def _enter(self, fd: int) -> None:
        """Take a folder as the next one; raises OSError unless it is of the owners alone."""
        before = self._folders[-1][1] if self._folders else ""
        self._folders.append((fd, mount(fd), False))
        number = _answering(fd, before)
        found = os.fstat(fd)
        others_write = bool(found.st_mode & 0o022)
        if found.st_uid not in self._owners or (others_write and not found.st_mode & stat.S_ISVTX):
            raise _refused()
        self._folders[-1] = fd, number, others_write

    def step(self, name: str, last: bool) -> int | list[str]:
        """What `name` is here: a file's descriptor if it is the last step, or a link's names.

        Raises OSError.
        """
        if name in ("", "."):
            return []
        if name == "..":
            if len(self._folders) > 1:
                os.close(self._folders.pop()[0])
            return []
        directory, before, shared = self._folders[-1]
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            _answering(fd, before)
            kind = stat.S_IFMT(os.fstat(fd).st_mode)
            # In a folder like /tmp a folder is its owner's, but anybody may have put links there.
            if shared and kind != stat.S_IFDIR:
                raise _refused()
            if kind == stat.S_IFLNK:
                return self._follow(fd)
            if last:
                fd, found = -1, fd
                return found
            fd, entered = -1, fd
            self._enter(entered)
            return []
        finally:
            if fd >= 0:
                os.close(fd)

    def _follow(self, link: int) -> list[str]:
        self._links += 1
        if self._links > MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = os.readlink("", dir_fd=link)
        if target.startswith("/"):
            while len(self._folders) > 1:
                os.close(self._folders.pop()[0])
        return target.split("/")


def opened(path: str, owners: Collection[int]) -> int:
    """An O_PATH descriptor of a file; raises OSError where others may have chosen what it is."""
    left = path.split("/")[::-1]
    walk = _Walk(owners)
    try:
        while left:
            found = walk.step(left.pop(), not left)
            if isinstance(found, int):
                return found
            left += found[::-1]
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    finally:
        walk.close()


def _answering(fd: int, before: str) -> str:
    """The number of a file's mount, which is `before` or no FUSE mount; raises OSError.

    Whoever serves one of those may let every further question wait.
    """
    number = mount(fd)
    if number != before and (mount_kind(fd) or "fuse").startswith("fuse"):
        raise _refused()
    return number


def _refused() -> OSError:
    return PermissionError(errno.EACCES, os.strerror(errno.EACCES))
