# SPDX-License-Identifier: Apache-2.0
"""Opening a file that somebody named: a regular one, and no more of it than it may have.

Whatever a path leads to is looked at before it is opened for reading: to open a device can
already do something, and a FIFO, a terminal or /dev/zero would never end.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from pathlib import Path

from probes.core.errors import ProbeError

PIPE_SECONDS = 10.0
"""How long the other end of a pipe may take to write all it has."""
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


def open_regular(path: str | Path, *, pipe: bool = False) -> int:
    """A descriptor, for reading, of a regular file (with `pipe` also of a pipe).

    Raises OSError or ValueError where it cannot be opened, ProbeError where it is something else.
    """
    looked = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        mode = os.fstat(looked).st_mode
        if not (stat.S_ISREG(mode) or (pipe and stat.S_ISFIFO(mode))):
            kind = _KINDS.get(stat.S_IFMT(mode), "something else")
            raise ProbeError(f"{printable(path)}: {kind}, not a file", "give a regular file")
        # The very same file, whatever the path leads to by now.
        again = f"/proc/self/fd/{looked}"
        if not os.path.lexists(again):  # pragma: no cover  # without /proc
            again = os.fspath(path)
        return os.open(again, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    finally:
        os.close(looked)


def read_regular(path: str | Path, most: int, *, pipe: bool = False, forbidden: int = 0) -> bytes:
    """All bytes of a regular file that has at most `most` of them.

    With `pipe` also those that come through a pipe, as `<(command)` of a shell makes one. A file
    of secrets must have none of the permission bits `forbidden`. Raises as `open_regular` does,
    and ProbeError where there is more, or others may read it.
    """
    fd = open_regular(path, pipe=pipe)
    try:
        if os.fstat(fd).st_mode & forbidden:
            raise ProbeError(
                f"{printable(path)}: others may read it", f"chmod 600 {printable(path)}"
            )
        parts: list[bytes] = []
        left, end = most + 1, time.monotonic() + PIPE_SECONDS
        while left > 0:
            try:
                part = os.read(fd, min(left, 1 << 20))
            except BlockingIOError:
                seconds = end - time.monotonic()
                if seconds <= 0:
                    raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
                select.select([fd], [], [], seconds)
                continue
            if not part:
                return b"".join(parts)
            parts.append(part)
            left -= len(part)
    finally:
        os.close(fd)
    size = f"{most / 1e6:.0f} MB" if most >= 1e6 else f"{most / 1e3:.0f} kB"
    raise ProbeError(f"{printable(path)}: larger than {size}", "see whether it is the right file")


def new_file(path: str | Path, *, force: bool = False) -> int:
    """A descriptor of a new file that only its owner may read (mode 0600).

    A symbolic link is never followed and a file that is there never overwritten, unless
    `force` replaces it. Raises ProbeError.
    """
    flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_RDWR | os.O_CLOEXEC
    try:
        if force and stat.S_ISREG(os.lstat(path).st_mode):
            os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise unusable("replace", path, error) from error
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError as error:
        fix = "choose another name, or remove it first"
        raise ProbeError(f"cannot create {printable(path)}: it exists already", fix) from error
    except (OSError, ValueError) as error:
        raise unusable("create", path, error) from error


def unusable(what: str, path: str | Path, error: OSError | ValueError) -> ProbeError:
    """What stopped us from doing `what` with a file, as one sentence and its remedy."""
    code = error.errno if isinstance(error, OSError) else None
    fix = {
        errno.ENOENT: "check the path",
        errno.ENOTDIR: "check the path",
        errno.EACCES: "choose a folder that you may write to",
        errno.EPERM: "choose a folder that you may write to",
        errno.EROFS: "choose a folder that you may write to",
        errno.ENOSPC: "free some space, or choose another disk",
        errno.EFBIG: "begin another file",
        errno.EDQUOT: "free some space, or choose another disk",
    }.get(code or 0, "choose another path")
    if what == "read" and code in (errno.EACCES, errno.EPERM):
        fix = "it belongs to somebody else; ask for a copy"
    reason = os.strerror(code) if code else str(error)
    return ProbeError(f"cannot {what} {printable(path)}: {reason}", fix)


def printable(path: str | Path) -> str:
    """A path for a message: without anything that acts on a terminal."""
    text = str(path)
    return text if text.isprintable() else ascii(text)
