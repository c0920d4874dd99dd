# SPDX-License-Identifier: Apache-2.0
"""Opens a file to trace once: it is read, and attached to, by the same descriptor.

A path that is resolved twice can lead to two files. A path below /proc/PID/root is resolved
inside of that root, so that an absolute link there means the other root's file.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import weakref
from contextlib import suppress

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.suggestions import quote
from probes.host import executed_files, file_access, mapped_files
from probes.host.lookup import (
    HERE,
    NO_MAGICLINKS,
    Found,
    close,
    file_system,
    identity,
    mount_kind,
    open_below,
    open_in_root,
)

MOST_FILE = 16 << 30
"""Bytes of the largest file that is read."""
_PSEUDO = {
    0x9FA0: "proc",
    0x62656572: "sysfs",
    0x64626720: "debugfs",
    0x74726163: "tracefs",
    0x73636673: "securityfs",
    0x0027E0EB: "cgroup",
    0x63677270: "cgroup2",
    0xCAFE4A11: "bpf",
    0x62656570: "configfs",
    0xDE5E81E4: "efivarfs",
    0x6165676C: "pstore",
    0x42494E4D: "binfmt_misc",
    0xF97CFF8C: "selinuxfs",
    0x43415D53: "smackfs",
    0x19800202: "mqueue",
    0x00001CD1: "devpts",
    0x07655821: "resctrl",
}
"""File systems whose files are the kernel's answers: statfs's f_type, as in linux/magic.h."""
_PIECE = 4 << 20
_FUSE = 0x65735546
_OVERLAY = 0x794C7630
_PROC_PATH = re.compile(
    r"/proc/(?P<pid>[1-9]\d{0,9})/(?:(?P<root>root)(?P<inner>/.*)"
    r"|(?P<link>exe|map_files/[0-9a-f]{1,16}-[0-9a-f]{1,16}))",
    re.DOTALL | re.ASCII,
)


class OpenFile:
    """A regular file that stays open until the last reference to this object is gone.

    `path` is for people; `link` leads to the open file itself.
    """

    def __init__(self, fd: int, path: str) -> None:
        self.fd, self.path = fd, path
        self._close = weakref.finalize(self, close, fd)
        self.stat = os.fstat(fd)

    @property
    def link(self) -> str:
        """The path by which the kernel finds the open file, in this process only."""
        return f"/proc/self/fd/{self.fd}"

    @property
    def version(self) -> tuple[int, ...]:
        """What changes with the file and with its content."""
        return version_of(self.stat)

    @property
    def is_overlaid(self) -> bool:
        """Whether the file lies on overlayfs, where anybody may mount what others own."""
        return file_system(self.fd) == _OVERLAY

    @property
    def size(self) -> int:
        """Bytes of the file when it was opened."""
        return self.stat.st_size

    def read(self, size: int, offset: int) -> bytes:
        """Bytes of the file, fewer at its end; raises ProbeError."""
        parts: list[bytes] = []
        try:
            while size > 0 and (part := os.pread(self.fd, min(size, _PIECE), offset)):
                parts.append(part)
                size, offset = size - len(part), offset + len(part)
                file_access.check_time()
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise _unreadable(self.path, reason) from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def check(self) -> None:
        """Raises ProbeError if the file was written to since it was opened."""
        if version_of(os.fstat(self.fd)) != self.version:
            why = f"{quote(self.path)} was changed while it was read"
            raise ProbeError(why, "add the target again when nobody writes to the file")

    def close(self) -> None:
        """Close the file."""
        self._close()


def version_of(found: os.stat_result) -> tuple[int, ...]:
    """What changes with a file and with its content."""
    times = found.st_mtime_ns, found.st_ctime_ns
    return found.st_dev, found.st_ino, found.st_size, *times


def open_file(path: str) -> OpenFile:
    """The file of that path, opened for the person who asks; raises ProbeError.

    It is opened with the rights of `file_access`, or because a process executes it.
    """
    path = os.path.abspath(path)
    special = _PROC_PATH.fullmatch(path)
    elsewhere = special is not None and not file_access.has_own_rights(elsewhere=True)
    try:
        return _opened(path, special)
    except (OSError, ValueError) as error:
        # Below another root nothing is said, nor is it where /proc hides processes.
        told = not isinstance(error, PermissionError) or file_access.has_own_rights()
        if told and not elsewhere:
            raise _wrong(path, error) from error
        found = _executed(path, special) if file_access.asker().mapped else None
        if found is None:
            raise _refused(path) from error
        return found


def _wrong(path: str, error: OSError | ValueError) -> ProbeError:
    """What to tell whose rights suffice to know it."""
    if isinstance(error, FileNotFoundError):
        return ProbeError(f"there is no file {quote(path)}", "check the path")
    reason = getattr(error, "strerror", None) or str(error)
    if getattr(error, "errno", 0) == errno.ELOOP:
        reason = "a loop of links, or a link of /proc that is no file name"
    return _unreadable(path, reason)


def _unreadable(path: str, reason: str | None) -> ProbeError:
    return ProbeError(f"{quote(path)} cannot be read ({reason})", "check the path")


def _refused(path: str) -> ProbeError:
    """One sentence for a file that is there and for one that is not: neither may be told."""
    why = f"{quote(path)} cannot be read as {file_access.asker().name}, and no process executes it"
    fix = "start the program, or name the target when probetop is started"
    if not kernel.capabilities() >= {"CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"}:
        fix = "start the program, and give probetop CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
    return ProbeError(why, fix)


def _opened(path: str, special: re.Match[str] | None) -> OpenFile:
    """Open with the rights of the person who asks; raises OSError, ValueError, ProbeError."""
    if special and special["root"]:
        # The root of another process is that process's choice: no text vouches for its files.
        with file_access.untrusted(), file_access.rights():
            return reopened(path, _find(path, special))
    with file_access.rights():
        return reopened(path, _find(path, special))


def _executed(path: str, special: re.Match[str] | None) -> OpenFile | None:
    """The file opened as root, if some process has mapped it executable."""
    # The list comes first, so that a missing file takes as long as one that nobody executes.
    known = mapped_files.executed()
    found: Found | None = None
    try:
        with file_access.rights():
            found = _find(path, special)
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            found = _by_name(path, special, known)
    if found is None:
        return None
    if identity(found.fd) not in known.files:
        found.close()
        return None
    try:
        return reopened(path, found)
    except OSError:
        return None


def _by_name(
    path: str, special: re.Match[str] | None, known: mapped_files.Executed
) -> Found | None:
    """As `_find`, for a file that is executed by that name; raises OSError, ValueError."""
    if special is None:
        return executed_files.by_path(path, known)
    pid = file_access.checked_pid(int(special["pid"]))
    return (
        executed_files.by_link(pid, path)
        if special["link"]
        else executed_files.below_root(pid, special["inner"])
    )


def _find(path: str, special: re.Match[str] | None) -> Found:
    """The file by the rights that this process has now; raises OSError, ValueError."""
    if special is None:
        return Found(open_below(HERE, path, NO_MAGICLINKS), -1)
    if special["link"]:
        return Found(os.open(path, os.O_PATH | os.O_CLOEXEC), -1)
    process = f"/proc/{file_access.checked_pid(int(special['pid']))}/root"
    root = os.open(process, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return Found(open_in_root(root, special["inner"]), root)
    except BaseException:
        os.close(root)
        raise


def reopened(path: str, found: Found) -> OpenFile:
    """The file that an O_PATH descriptor stands for, checked and opened for reading."""
    try:
        check_kind(found.fd, path)
        # A FIFO was refused already; a lease of somebody must not make this wait.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        fd = os.open(f"/proc/self/fd/{found.fd}", flags)
    finally:
        found.close()
    return OpenFile(fd, path)


def check_kind(fd: int, path: str) -> None:
    """Raises ProbeError unless the file is one whose content stays what it is."""
    # First of all, for whoever serves a FUSE mount may let every question wait.
    if (mount_kind(fd) or "").startswith("fuse"):
        raise _pseudo(path, "FUSE")
    kind = file_system(fd)
    name = _PSEUDO.get(kind) or ("FUSE" if kind == _FUSE and mount_kind(fd) != "virtiofs" else "")
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise ProbeError(f"{quote(path)} is no regular file", "name a program or a library")
    if found.st_size > MOST_FILE:
        why = f"{quote(path)} is larger than {MOST_FILE >> 30} GiB, the most that is read"
        raise ProbeError(why, "name a smaller file")
    if name:
        raise _pseudo(path, name)


def _pseudo(path: str, name: str) -> ProbeError:
    why = f"{quote(path)} lies on {name}, where every read may have another answer"
    return ProbeError(why, "copy the program to a disk, and run it from there")


def opened(source: str | OpenFile) -> OpenFile:
    """The open file, or the one of that path; raises ProbeError."""
    return open_file(source) if isinstance(source, str) else source
