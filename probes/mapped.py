# SPDX-License-Identifier: Apache-2.0
"""Which files running processes execute code of, by their device and inode numbers."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress

Identity = tuple[int, int]
"""A device and an inode number."""

REMEMBERED_SECONDS = 2.0
_EXECUTED = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) ..x. \S+ (\w+):(\w+) ([1-9]\d*) +/", re.MULTILINE
)
_known: tuple[float, frozenset[Identity]] | None = None


def identity(found: os.stat_result) -> Identity:
    """What tells a file from all others."""
    return found.st_dev, found.st_ino


def executable_files() -> frozenset[Identity]:
    """All files that some process has mapped executable, as of the last two seconds."""
    global _known
    now = time.monotonic()
    if _known is None or now - _known[0] > REMEMBERED_SECONDS:
        _known = now, frozenset(_read())
    return _known[1]


def _read() -> set[Identity]:
    places: dict[Identity, str] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{pid}/maps", "rb") as file:
            for start, end, major, minor, inode in _EXECUTED.findall(file.read()):
                device = os.makedev(int(major, 16), int(minor, 16))
                where = f"/proc/{pid}/map_files/{int(start, 16):x}-{int(end, 16):x}"
                places.setdefault((device, int(inode)), where)
    found = set(places)
    for where in places.values():
        # Where a file system has devices of its own (btrfs, overlayfs), stat tells another one.
        with suppress(OSError):
            found.add(identity(os.stat(where)))
    return found
