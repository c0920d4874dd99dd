# SPDX-License-Identifier: Apache-2.0
"""Which files running processes execute code of: their names, and their device and inode numbers.

Names are those of /proc/PID/maps: as seen from this process's root, with a newline as \\012, and
with " (deleted)" behind one that is gone. Anybody may have a file of any name mapped, somewhere.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from probes.file_access import check_time

Identity = tuple[int, int]
"""A device and an inode number."""

REMEMBERED_SECONDS = 2.0
MOST_BYTES = 4 << 20
"""Bytes that are read of what one process has mapped; a process can have hundreds of MB."""
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


def identity(found: os.stat_result) -> Identity:
    """What tells a file from all others."""
    return found.st_dev, found.st_ino


def executed() -> Executed:
    """What all processes execute, as of the last two seconds; raises ProbeError after too long."""
    global _known
    now = time.monotonic()
    if _known is None or now - _known[0] > REMEMBERED_SECONDS:
        _known = now, _read()
    return _known[1]


def of_process(pid: int) -> list[Mapped]:
    """The files that one process executes; raises OSError."""
    with open(f"/proc/{pid}/maps", "rb", buffering=0) as file:
        parts, size = [], 0
        while size < MOST_BYTES and (part := file.read(_PART)):
            parts.append(part)
            size += len(part)
    found: dict[tuple[Identity, bytes], Mapped] = {}
    for start, end, major, minor, inode, name in _EXECUTED.findall(b"".join(parts)):
        device = os.makedev(int(major, 16), int(minor, 16))
        one = Mapped(pid, f"{int(start, 16):x}-{int(end, 16):x}", name, (device, int(inode)))
        found.setdefault((one.identity, name), one)
    return list(found.values())


def _read() -> Executed:
    known: dict[Identity, Mapped] = {}
    named: dict[bytes, dict[Identity, Mapped]] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        check_time()
        with suppress(OSError):
            for one in of_process(int(pid)):
                known.setdefault(one.identity, one)
                named.setdefault(one.name, {}).setdefault(one.identity, one)
    found = set(known)
    for one in known.values():
        # Where a file system has devices of its own (btrfs, overlayfs), stat tells another one.
        with suppress(OSError):
            found.add(identity(os.stat(one.path)))
    files = {name: tuple(several.values()) for name, several in named.items()}
    return Executed(frozenset(found), files)
