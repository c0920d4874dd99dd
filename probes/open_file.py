# SPDX-License-Identifier: Apache-2.0
"""Opens a file to trace once: it is read, and attached to, by the same descriptor.

A path that is resolved twice can lead to two files. A path below /proc/PID/root is resolved
inside of that root, so that an absolute link there means the other root's file.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import stat
import weakref
from typing import NamedTuple

from probes import file_access, kernel, mapped
from probes.base import ProbeError
from probes.near import quote

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
_FUSE = 0x65735546
_OVERLAY = 0x794C7630
_OPENAT2 = 437
_AT_FDCWD = -100
_NO_MAGICLINKS, _IN_ROOT = 0x02, 0x10
_PROC_PATH = re.compile(
    r"/proc/(?P<pid>[1-9]\d{0,9})/(?:(?P<root>root)(?P<inner>/.*)"
    r"|(?P<link>exe|map_files/[0-9a-f]{1,16}-[0-9a-f]{1,16}))",
    re.DOTALL | re.ASCII,
)


class _Found(NamedTuple):
    """An O_PATH descriptor of a file, and one of the root that its path begins at, or -1."""

    fd: int
    root: int


class OpenFile:
    """A regular file that stays open until the last reference to this object is gone.

    `path` is for people; `link` leads to the open file itself. `root` is a descriptor of the root
    directory that the path begins at, -1 for this process's own, and `inner` the path there.
    """

    def __init__(self, fd: int, path: str, root: int = -1, inner: str = "") -> None:
        self.fd, self.path, self.root, self.inner = fd, path, root, inner or path
        self._close = weakref.finalize(self, _close, fd, root)
        self.stat = os.fstat(fd)

    @property
    def link(self) -> str:
        """The path by which the kernel finds the open file, in this process only."""
        return f"/proc/self/fd/{self.fd}"

    @property
    def version(self) -> tuple[int, ...]:
        """What changes with the file and with its content."""
        return _version(self.stat)

    @property
    def is_overlaid(self) -> bool:
        """Whether the file lies on overlayfs, where anybody may mount what others own."""
        return _file_system(self.fd) == _OVERLAY

    @property
    def size(self) -> int:
        """Bytes of the file when it was opened."""
        return self.stat.st_size

    @property
    def mount(self) -> str:
        """The number of the mount that the file was opened on, "" where it is not known."""
        with open(f"/proc/self/fdinfo/{self.fd}", encoding="ascii") as info:
            found = re.search(r"^mnt_id:\s*(\d+)", info.read(), re.MULTILINE)
        return found[1] if found else ""

    def read(self, size: int, offset: int) -> bytes:
        """Bytes of the file, fewer at its end; raises ProbeError."""
        parts: list[bytes] = []
        try:
            while size > 0 and (part := os.pread(self.fd, size, offset)):
                parts.append(part)
                size, offset = size - len(part), offset + len(part)
                file_access.check_time()
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise _unreadable(self.path, reason) from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def check(self) -> None:
        """Raises ProbeError if the file was written to since it was opened."""
        if _version(os.fstat(self.fd)) != self.version:
            why = f"{quote(self.path)} was changed while it was read"
            raise ProbeError(why, "add the target again when nobody writes to the file")

    def close(self) -> None:
        """Close the file."""
        self._close()


def _close(*fds: int) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def _version(found: os.stat_result) -> tuple[int, ...]:
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
            return _reopened(path, _find(path, special), special["inner"])
    with file_access.rights():
        return _reopened(path, _find(path, special))


def _executed(path: str, special: re.Match[str] | None) -> OpenFile | None:
    """The file opened as root, if some process has mapped it executable."""
    # The list comes first, so that a missing file takes as long as one that nobody executes.
    known = mapped.executable_files()
    try:
        found = _find(path, special)
    except (OSError, ValueError):
        return None
    if mapped.identity(os.fstat(found.fd)) not in known:
        _close(*found)
        return None
    try:
        return _reopened(path, found, special["inner"] or "" if special else "")
    except OSError:
        return None


def _find(path: str, special: re.Match[str] | None) -> _Found:
    """The file by the rights that this process has now; raises OSError, ValueError."""
    if special is None:
        return _Found(open_below(_AT_FDCWD, path, _NO_MAGICLINKS), -1)
    if special["link"]:
        return _Found(os.open(path, os.O_PATH | os.O_CLOEXEC), -1)
    process = f"/proc/{file_access.checked_pid(int(special['pid']))}/root"
    root = os.open(process, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _Found(open_in_root(root, special["inner"]), root)
    except BaseException:
        os.close(root)
        raise


def open_in_root(root: int, path: str) -> int:
    """An O_PATH descriptor of a path that cannot leave a root; raises OSError, ValueError."""
    return open_below(root, path, _IN_ROOT | _NO_MAGICLINKS)


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
    found = open_below(_AT_FDCWD, path, _NO_MAGICLINKS)
    try:
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(found)


def _reopened(path: str, found: _Found, inner: str = "") -> OpenFile:
    """The file that an O_PATH descriptor stands for, checked and opened for reading."""
    try:
        check_kind(found.fd, path)
        # A FIFO was refused already; a lease of somebody must not make this wait.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        fd = os.open(f"/proc/self/fd/{found.fd}", flags)
    except BaseException:
        _close(*found)
        raise
    os.close(found.fd)
    return OpenFile(fd, path, found.root, inner)


def check_kind(fd: int, path: str) -> None:
    """Raises ProbeError unless the file is one whose content stays what it is."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise ProbeError(f"{quote(path)} is no regular file", "name a program or a library")
    if found.st_size > MOST_FILE:
        why = f"{quote(path)} is larger than {MOST_FILE >> 30} GiB, the most that is read"
        raise ProbeError(why, "name a smaller file")
    kind = _file_system(fd)
    name = _PSEUDO.get(kind) or ("FUSE" if kind == _FUSE and not _is_virtiofs(fd) else "")
    if name:
        why = f"{quote(path)} lies on {name}, where every read may have another answer"
        raise ProbeError(why, "copy the program to a disk, and run it from there")


def _file_system(fd: int) -> int:
    """f_type of fstatfs(2), which Python's own does not have."""
    buffer = (ctypes.c_long * 32)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fstatfs(fd, buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(buffer[0]) & 0xFFFFFFFF


def _is_virtiofs(fd: int) -> bool:
    """Whether a virtual machine's host answers: it has FUSE's number, but is no user's."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
        found = re.search(r"^mnt_id:\s*(\d+)", info.read(), re.MULTILINE)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        rows = [line.partition(" - ") for line in mounts]
    kinds = {left.split(" ")[0]: right.split(" ")[0] for left, _, right in rows}
    return found is not None and kinds.get(found[1]) == "virtiofs"


def opened(source: str | OpenFile) -> OpenFile:
    """The open file, or the one of that path; raises ProbeError."""
    return open_file(source) if isinstance(source, str) else source
