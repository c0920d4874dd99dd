# SPDX-License-Identifier: Apache-2.0
"""The user who started the agent, and that user's token.

Without a token file, an agent on a loopback address lets all local users read. Only the user who
started it may change something, and proves it by a token in a file that only this user can read.
The file holds one HTTP header, for `curl -H @FILE` and `probetop attach`. It is removed when the
agent ends, also by SIGKILL; the token is of no use afterwards.
"""

from __future__ import annotations

import os
import secrets
import signal
import stat
from contextlib import suppress
from dataclasses import dataclass

from probes.core.errors import ProbeError
from probes.host import privileges
from probes.host.files import printable
from probes.host.privileges import NOBODY, User

RUN = "/run"
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
LARGEST = 4096


@dataclass(slots=True)
class OwnerFile:
    """A token and its file, which exists as long as the pipe to process `keeper` is open."""

    secret: str
    path: str
    pipe: int
    keeper: int

    def close(self) -> None:
        """Have the file removed, and wait for that."""
        os.close(self.pipe)
        with suppress(ChildProcessError):
            os.waitpid(self.keeper, 0)


def file_name(host: str, port: int) -> str:
    """The file's name, which contains the whole address.

    A token belongs to the agent at exactly this address: another user may listen on another
    loopback address with the same port.
    """
    return f"{host.replace(':', '_').replace('%', '_')}-{port}.token"


def directories(uid: int) -> list[str]:
    """Directories for a user's files, the most trusted first."""
    own = os.environ.get("XDG_RUNTIME_DIR") or os.environ.get("RUNTIME_DIRECTORY") or ""
    found = [f"{RUN}/probetop-{uid}"]
    return [*found, f"{own}/probetop"] if own.startswith("/") and ":" not in own else found


def create(host: str, port: int, owner: User) -> OwnerFile:
    """Create a token and its file; raises ProbeError if no directory is safe.

    Call it with privileges and a single thread: a child process removes the file.
    """
    if owner.uid == NOBODY:
        why = "cannot create a token for you: the user nobody is shared by many processes"
        raise ProbeError(why, "give tokens with --token-file")
    root = os.geteuid() == 0
    path = directories(owner.uid)[0 if root else -1]
    secret = secrets.token_urlsafe(32)
    try:
        directory = _directory(path, owner)
    except OSError as error:
        reason = error.strerror or str(error)
        why = f"cannot create a token for you: {printable(path)}: {reason}"
        raise ProbeError(why, "give tokens with --token-file") from error
    name = file_name(host, port)
    try:
        _write(directory, name, f"Authorization: Bearer {secret}\n", owner)
        pipe, keeper = _keep(directory, name, owner)
    except OSError as error:
        why = f"cannot create a token for you: {printable(path)}: {error.strerror}"
        raise ProbeError(why, "give tokens with --token-file") from error
    finally:
        os.close(directory)
    return OwnerFile(secret, f"{path}/{name}", pipe, keeper)


def _directory(path: str, owner: User) -> int:
    """A descriptor of the owner's directory, created if it is missing; raises OSError."""
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
        if os.geteuid() == 0:
            # Only root may write to /run, so no other user can have created this.
            os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
    fd = os.open(path, DIRECTORY_FLAGS)
    if not _is_private(os.fstat(fd), owner.uid):
        os.close(fd)
        raise OSError(0, "others may write there")
    return fd


def _is_private(status: os.stat_result, uid: int) -> bool:
    return status.st_uid == uid and not status.st_mode & 0o077


def _write(directory: int, name: str, text: str, owner: User) -> None:
    """Write a new file of the owner's under this name; no link is followed."""
    fresh = f".{secrets.token_hex(8)}"
    fd = os.open(fresh, FILE_FLAGS | os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
    try:
        if os.geteuid() == 0:
            os.fchown(fd, owner.uid, owner.gid)
        os.write(fd, text.encode("ascii"))
        os.rename(fresh, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        with suppress(OSError):
            os.unlink(fresh, dir_fd=directory)
        raise
    finally:
        os.close(fd)


def _keep(directory: int, name: str, owner: User) -> tuple[int, int]:
    """Start a process that removes the file when a pipe is closed; return the pipe and its pid.

    The agent itself may be another user by then, and may be killed. The process runs as the owner
    without any capability, and holds only the directory and one end of a pipe.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    inode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            _remove_later(reading, directory, name, inode, owner)
            status = 0
        finally:
            os._exit(status)
    os.close(reading)
    return writing, pid


def _remove_later(reading: int, directory: int, name: str, inode: int, owner: User) -> None:
    """Run in the child: wait until all other ends of the pipe are closed, then remove the file."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    low, high = sorted((reading, directory))
    os.closerange(0, low)
    os.closerange(low + 1, high)
    os.closerange(high + 1, os.sysconf("SC_OPEN_MAX"))
    privileges.drop(owner)
    os.read(reading, 1)
    # A later agent may have its own file under this name.
    if os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino == inode:
        os.unlink(name, dir_fd=directory)


def find(host: str, port: int) -> str | None:
    """The token that an agent at this address has made for the calling user; None without one."""
    uid = os.geteuid()
    for path in directories(uid):
        with suppress(OSError):
            directory = os.open(path, DIRECTORY_FLAGS)
            try:
                if _is_private(os.fstat(directory), uid):
                    return _read(directory, file_name(host, port), uid)
            finally:
                os.close(directory)
    return None


def _read(directory: int, name: str, uid: int) -> str:
    fd = os.open(name, FILE_FLAGS | os.O_RDONLY, dir_fd=directory)
    try:
        status = os.fstat(fd)
        data = os.read(fd, LARGEST)
    finally:
        os.close(fd)
    words = data.decode("ascii", "replace").split()
    if not stat.S_ISREG(status.st_mode) or not _is_private(status, uid) or len(words) != 3:
        raise OSError(0, "not a token's file")
    return words[2]
