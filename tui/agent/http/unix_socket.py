# SPDX-License-Identifier: Apache-2.0
"""Binds a Unix socket as root in a directory that other users may write to.

All directories of the path are opened one by one. They must belong to trusted users, because a
directory's owner can rename its entries. The socket is bound in a new private directory, gets its
owner there, and then its name by a hard link. So no name that others may replace is ever followed:
only the socket changes its owner, and no existing file is overwritten.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

from probes.core.errors import ProbeError
from probes.host.files import printable
from probes.host.privileges import NOBODY, User
from tui.settings.validators import UsageError

BACKLOG = 128
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
PART_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
MOST_LINKS = 40
"""Most symbolic links of one path, as in the kernel."""


def open_unix(path: str, user: User, trusted: Collection[int]) -> socket.socket:
    """A listening socket for `user` and their group (root's group if that is nobody).

    `trusted` are uids, besides root, that may own its directories; nobody is never trusted. Raises
    ProbeError, and UsageError if other users could replace the socket.
    """
    parent, name = os.path.split(path)
    try:
        # Other processes run as nobody too.
        directory = _directory(path, parent, {0, os.geteuid(), *trusted} - {NOBODY})
    except OSError as error:
        raise _failed(path, error) from error
    try:
        _remove_stale(path, directory, name, {0, os.geteuid(), user.uid, *trusted} - {NOBODY})
        return _bind(directory, name, user)
    except FileExistsError:
        raise _taken(path) from None
    except OSError as error:
        raise _failed(path, error) from error
    finally:
        os.close(directory)


def _failed(path: str, error: OSError) -> ProbeError:
    why = f"cannot listen on {path}: {error.strerror or error}"
    return ProbeError(why, "choose another path with --listen")


def _taken(path: str) -> ProbeError:
    return ProbeError(
        f"cannot listen on {path}: somebody does already", "end it, or choose another"
    )


def _directory(path: str, parent: str, owners: Collection[int]) -> int:
    """An O_PATH descriptor of a directory whose path only `owners` can change.

    Raises OSError if it does not exist, UsageError if others could change the path.
    """
    parts = parent.split("/")[::-1]
    at, links, here = os.open("/", PART_FLAGS), 0, "/"
    try:
        while True:
            _check_part(path, here, os.fstat(at), owners)
            while parts and parts[-1] in ("", "."):
                parts.pop()
            if not parts:
                return os.dup(at)
            here = os.path.join(here, parts[-1])
            inner = os.open(parts.pop(), PART_FLAGS, dir_fd=at)
            status = os.fstat(inner)
            if stat.S_ISLNK(status.st_mode):
                try:
                    _check_part(path, here, status, owners)
                    target = os.readlink("", dir_fd=inner)
                finally:
                    os.close(inner)
                links += 1
                if links > MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                parts += target.split("/")[::-1]
                inner = os.open("/", PART_FLAGS) if target.startswith("/") else os.dup(at)
            elif not stat.S_ISDIR(status.st_mode):
                os.close(inner)
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            os.close(at)
            at = inner
    finally:
        os.close(at)


def _check_part(path: str, here: str, status: os.stat_result, owners: Collection[int]) -> None:
    """Raise UsageError if others may change a link or a directory's entries."""
    shared = bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    shared = shared and not status.st_mode & stat.S_ISVTX and not stat.S_ISLNK(status.st_mode)
    if status.st_uid not in owners or shared:
        why = f"--listen {path}: others could put another socket in its place, by {printable(here)}"
        raise UsageError(why, "choose a directory that only root or you may write to")


def _remove_stale(path: str, directory: int, name: str, owners: Collection[int]) -> None:
    """Remove a socket without a listener, which an earlier agent has left.

    A socket that belongs to others than `owners` is refused, and stays.
    """
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise UsageError(f"--listen {path}: it exists already", "choose another path")
    if status.st_uid not in owners:
        why = f"--listen {path}: a socket of somebody else (uid {status.st_uid}) is there"
        raise UsageError(why, "choose a directory that only root or you may write to")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(f"/proc/self/fd/{directory}/{name}")
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
            return
        except OSError:
            # The listener's queue is full, so the socket is in use.
            pass
    raise _taken(path)


def _bind(directory: int, name: str, user: User) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _private(directory) as inner:
            before = os.umask(0o117)
            try:
                sock.bind(f"/proc/self/fd/{inner}/s")
            finally:
                os.umask(before)
            sock.listen(BACKLOG)
            # Root may link its own socket; after the chown this needs a capability.
            os.link("s", name, src_dir_fd=inner, dst_dir_fd=directory, follow_symlinks=False)
            # Other processes that run as nobody must not open it.
            if os.geteuid() == 0 and user.uid != NOBODY:
                os.chown("s", user.uid, user.gid, dir_fd=inner, follow_symlinks=False)
    except BaseException:
        sock.close()
        raise
    return sock


@contextmanager
def _private(directory: int) -> Iterator[int]:
    """A descriptor of a new directory in `directory`, which is removed together with its socket."""
    name = f".probetop-{secrets.token_hex(8)}"
    os.mkdir(name, 0o700, dir_fd=directory)
    try:
        inner = os.open(name, DIRECTORY_FLAGS | os.O_NOFOLLOW, dir_fd=directory)
        try:
            status = os.fstat(inner)
            if status.st_uid != os.geteuid() or status.st_mode & 0o077:
                raise OSError(0, "somebody else has replaced a directory there")
            yield inner
        finally:
            with suppress(FileNotFoundError):
                os.unlink("s", dir_fd=inner)
            os.close(inner)
    finally:
        with suppress(OSError):
            os.rmdir(name, dir_fd=directory)
