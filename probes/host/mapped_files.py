# SPDX-License-Identifier: Apache-2.0
"""Which files running processes execute code of: their names, and their device and inode numbers.

Names are those of /proc/PID/maps: as seen from this process's root, with a newline as \\012, and
with " (deleted)" behind one that is gone. Anybody may have a file of any name mapped, somewhere.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from probes.core.errors import ProbeError
from probes.host import killable_child, lookup, memory_locks
from probes.host.file_access import check_time

Identity = tuple[int, int]
"""A device and an inode number."""

REMEMBERED_SECONDS = 2.0
MOST_BYTES = 4 << 20
"""Bytes that are read of what one process has mapped; a process can have hundreds of MB."""
MOST_BYTES_OF_ALL = 1 << 20
"""The same for each process where all of them are read."""
MOST_BYTES_OF_USER = 24 << 20
"""Bytes that are read of what all processes of one user have mapped."""
MOST_SECONDS = 0.7
"""How long all processes are read, which is less than one target has."""
STUCK_SECONDS = 0.2
"""How long one of them is waited for that says nothing."""
_EXECUTED = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) ..x. \S+ (\w+):(\w+) ([1-9]\d*) +(/.*)$", re.MULTILINE
)
_PART = 1 << 16


class Mapped(NamedTuple):
    """A file that a process has mapped executable; `range` as /proc/PID/map_files has it."""

    pid: int
    range: str
    name: bytes
    identity: Identity

    @property
    def path(self) -> str:
        """The link of /proc that leads to the file, whatever its name leads to."""
        return f"/proc/{self.pid}/map_files/{self.range}"


class Executed(NamedTuple):
    """All files that processes execute, and those of each name."""

    files: frozenset[Identity]
    named: Mapping[bytes, tuple[Mapped, ...]]


_known: tuple[float, Executed] | None = None


def executed() -> Executed:
    """What processes execute, as of the last two seconds; raises ProbeError after too long.

    What does not fit into the bounds of a user, of a process and of time is left out: whoever has
    much mapped, or lets questions wait, hides what is theirs, and makes nobody wait.
    """
    global _known
    if _known is None or time.monotonic() - _known[0] > REMEMBERED_SECONDS:
        found = _read()
        _known = time.monotonic(), found
    return _known[1]


def of_process(pid: int) -> list[Mapped]:
    """The files that one process executes; raises OSError, ProbeError."""
    memory_locks.check_process(pid)
    return _files(pid, _maps(pid, MOST_BYTES))


def _maps(pid: int, most: int) -> bytes:
    """The beginning of /proc/PID/maps; raises OSError."""
    with open(f"/proc/{pid}/maps", "rb", buffering=0) as file:
        parts, size = [], 0
        while size < most and (part := file.read(_PART)):
            parts.append(part)
            size += len(part)
    return b"".join(parts)


def _files(pid: int, maps: bytes) -> list[Mapped]:
    found: dict[tuple[Identity, bytes], Mapped] = {}
    for start, end, major, minor, inode, name in _EXECUTED.findall(maps):
        device = os.makedev(int(major, 16), int(minor, 16))
        one = Mapped(pid, f"{int(start, 16):x}-{int(end, 16):x}", name, (device, int(inode)))
        found.setdefault((one.identity, name), one)
    return list(found.values())


def _read() -> Executed:
    check_time()
    last = time.monotonic() + MOST_SECONDS
    known: set[Identity] = set()
    found: set[Identity] = set()
    named: dict[bytes, dict[Identity, Mapped]] = {}
    left = _processes()
    while left and time.monotonic() < last:
        scan = _Scan(known, last)
        answered = 0
        for files, identities in _scanned(left, scan):
            answered += 1
            found |= identities
            for one in files:
                known.add(one.identity)
                named.setdefault(one.name, {}).setdefault(one.identity, one)
        # Whose process does not answer has no others looked at either.
        stuck = left[answered][0] if answered < len(left) else None
        left = [one for one in left[answered + 1 :] if one[0] != stuck]
    by_name = {name: tuple(several.values()) for name, several in named.items()}
    return Executed(frozenset(found), by_name)


def _scanned(
    processes: Sequence[tuple[int, int]], scan: _Scan
) -> Iterator[tuple[list[Mapped], set[Identity]]]:
    """What a scan finds of each process, up to one that does not answer; raises ProbeError."""
    try:
        for answer in killable_child.answers(processes, scan.one, STUCK_SECONDS):
            files, identities = json.loads(answer)
            yield (
                [Mapped(pid, at, name.encode("latin-1"), (device, inode))
                 for pid, at, name, device, inode in files],
                {(device, inode) for device, inode in identities},
            )  # fmt: skip
    except OSError as error:
        raise ProbeError(f"no process can be started ({error.strerror})", "") from error


class _Scan:
    """Reads what processes have mapped, in a child: it may have to wait for one for ever."""

    def __init__(self, known: Collection[Identity], last: float) -> None:
        self._known, self._last = set(known), last
        self._left: dict[int, int] = {}

    def one(self, process: tuple[int, int]) -> bytes:
        """The files of a process of some user, and the numbers of those that are new, as JSON."""
        user, pid = process
        room = min(self._left.get(user, MOST_BYTES_OF_USER), MOST_BYTES_OF_ALL)
        files: list[Mapped] = []
        identities: set[Identity] = set()
        if room > 0 and time.monotonic() <= self._last:
            with suppress(OSError):
                maps = _maps(pid, room)
                self._left[user] = self._left.get(user, MOST_BYTES_OF_USER) - len(maps)
                files = _files(pid, maps)
            for one in files:
                if one.identity not in self._known and time.monotonic() <= self._last:
                    self._known.add(one.identity)
                    identities |= _identities(one)
        told = [(*one[:2], one.name.decode("latin-1"), *one.identity) for one in files]
        return json.dumps([told, list(identities)]).encode()


def _identities(one: Mapped) -> set[Identity]:
    """The numbers of a file as maps have them, and as stat has them.

    These are others where a file system has devices of its own (btrfs, overlayfs).
    """
    found = {one.identity}
    with suppress(OSError):
        found.add(lookup.identity(lookup.HERE, one.path))
    return found


def _processes() -> list[tuple[int, int]]:
    """(user, pid) of all processes, those of root and of our user namespace first.

    Whoever has a user namespace of their own can have thousands of users.
    """
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with suppress(OSError):
            user = os.stat(f"/proc/{pid}").st_uid
            found.append((not lookup.in_our_user_namespace(pid), user != 0, pid, user))
    return [(user, pid) for _, _, pid, user in sorted(found)]
