# SPDX-License-Identifier: Apache-2.0
"""Finds a file by the name under which a process executes it, for whoever may not look it up.

It is opened through that process. As root, no name is looked up that the person who asks has
chosen: the time that it takes would tell what lies in directories that they may not search.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from contextlib import suppress

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.host import file_access, lookup, mapped_files, memory_locks
from probes.host.lookup import Found
from probes.host.privileges import User

_MERGED = ("bin", "lib", "lib32", "lib64", "sbin")
"""Directories that are links to those of /usr on most systems."""


def by_path(path: str, known: mapped_files.Executed) -> Found | None:
    """An executed file of that path here; links count as far as the person who asks sees them."""
    with file_access.rights():
        name = os.path.realpath(path)
    return _through(known.named.get(_as_in_maps(name), ()), -1)


def by_link(pid: int, path: str) -> Found | None:
    """What a link of /proc/PID leads to: `exe`, or one of `map_files`; raises OSError."""
    if path != f"/proc/{pid}/exe" and path not in [
        one.path for one in mapped_files.of_process(pid)
    ]:
        return None
    return Found(_answering(os.open(path, os.O_PATH | os.O_CLOEXEC), pid), -1)


def below_root(pid: int, inner: str) -> Found | None:
    """A file that a process executes, by its name in that process's root; raises OSError."""
    files = mapped_files.of_process(pid)
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    root = _answering(os.open(f"/proc/{pid}/root", flags), pid)
    found = None
    try:
        jail = os.readlink(f"/proc/{pid}/root").rstrip("/")
        for name in _merged(root, os.path.abspath(inner)):
            wanted = _as_in_maps(jail + name)
            found = found or _through([one for one in files if one.name == wanted], root)
        return found
    finally:
        if found is None:
            os.close(root)


def _merged(root: int, inner: str) -> list[str]:
    """A path and what it means where /lib and the like are links to /usr.

    Which links are looked at does not depend on the path.
    """
    names = [inner]
    for top in _MERGED:
        with suppress(OSError):
            to = os.readlink(top, dir_fd=root)
            if inner.startswith(f"/{top}/"):
                names.append(os.path.normpath(f"/{to}/{inner.removeprefix(f'/{top}/')}"))
    return names


def _through(files: Iterable[mapped_files.Mapped], root: int) -> Found | None:
    """The first of these files that is what its name says, opened through its process.

    With a `root` of -1 it must lie where this process sees it.
    """
    for one in files:
        with suppress(OSError, ProbeError):
            fd = _opened_mapping(one, root)
            name = os.readlink(f"/proc/self/fd/{fd}")
            # A mount of somebody else's can have a file of any name.
            ours = root >= 0 or lookup.mount_kind(fd) is not None
            if ours and _as_in_maps(name) == one.name:
                return Found(fd, root)
            os.close(fd)
    return None


def _opened_mapping(one: mapped_files.Mapped, root: int) -> int:
    """An O_PATH descriptor of a mapped file; raises OSError, ProbeError."""
    memory_locks.check_process(one.pid)
    try:
        opened = os.open(one.path, os.O_PATH | os.O_CLOEXEC)
    except PermissionError:
        # This takes CAP_CHECKPOINT_RESTORE. The user of the process may look its files up anyhow.
        start = os.readlink(f"/proc/{one.pid}/root") if root >= 0 else "/"
        inner = one.name.removeprefix(os.fsencode(start.rstrip("/")))
        with file_access.rights(_user_of(one.pid)):
            directory = root if root >= 0 else lookup.HERE
            how = lookup.NO_SYMLINKS | (lookup.IN_ROOT if root >= 0 else 0)
            return lookup.open_below(directory, os.fsdecode(inner), how)
    return _answering(opened, one.pid)


def _answering(fd: int, pid: int) -> int:
    """The descriptor of a process's file; raises PermissionError where questions may wait."""
    if lookup.may_wait(fd, pid):
        os.close(fd)
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return fd


def _user_of(pid: int) -> User:
    """The real user of a process; raises OSError, ProbeError."""
    # A name stands in it, which may hold ends of lines other than the kernel's.
    text = "\n" + (kernel.read_text(f"/proc/{pid}/status") or "")
    ids = [re.search(rf"\n{word}:\t(\d+)", text) for word in ("Uid", "Gid")]
    if not (ids[0] and ids[1]):
        raise ProbeError(f"there is no process {pid}", "check the pid")
    return User(int(ids[0][1]), int(ids[1][1]), None)


def _as_in_maps(name: str) -> bytes:
    return os.fsencode(name).replace(b"\n", b"\\012")
