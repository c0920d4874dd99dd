# SPDX-License-Identifier: Apache-2.0
"""Files in memory that never grow, by which a process without privileges hands data over.

They are made early: a process that can make more of them can hoard memory that belongs to no
process. Their memory is taken when they are filled, and given back when they are emptied.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from collections.abc import Iterable, Iterator

_LENGTH = 8
"""Bytes, at the beginning of a file, that say how long its content is."""

PART = 1 << 16


def create(name: str, most: int) -> int:
    """A file whose content has at most so many bytes; raises OSError."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.truncate(fd, _LENGTH + most)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    return fd


def fill(fd: int, parts: Iterable[bytes]) -> int:
    """Write a content; its length. Raises OSError, with EFBIG for one that is too long."""
    at, most = _LENGTH, os.fstat(fd).st_size
    for part in parts:
        view = memoryview(part)
        if at + len(view) > most:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        while view:
            done = os.pwrite(fd, view, at)
            view, at = view[done:], at + done
    os.pwrite(fd, (at - _LENGTH).to_bytes(_LENGTH, "little"), 0)
    return at - _LENGTH


def read(fd: int) -> bytes:
    """A content, whatever the other side does to it meanwhile; raises ValueError for none."""
    return os.pread(fd, _length(fd), _LENGTH)


def parts(fd: int) -> Iterator[bytes]:
    """A content in parts; raises ValueError."""
    at, end = _LENGTH, _LENGTH + _length(fd)
    while data := os.pread(fd, min(PART, end - at), at):
        yield data
        at += len(data)


def _length(fd: int) -> int:
    """How long a content says that it is; raises ValueError for what no file can have."""
    size = int.from_bytes(os.pread(fd, _LENGTH, 0), "little")
    if size > os.fstat(fd).st_size - _LENGTH:
        raise ValueError("a content of more than its file")
    return size


def empty(fd: int) -> None:
    """Give the memory of a content back."""
    with contextlib.suppress(OSError, ValueError), mmap.mmap(fd, 0) as memory:
        memory.madvise(mmap.MADV_REMOVE)
