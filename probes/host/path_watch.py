# SPDX-License-Identifier: Apache-2.0
"""Tells by inotify when a directory is made, moved or removed at a path.

All directories from a root to the path's parent are watched, those that exist: what is made in
one of them is watched from then on. The watches are hints, for looking at the path sooner.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from contextlib import suppress
from pathlib import Path

IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x40, 0x80, 0x100, 0x200
IN_ONLYDIR = 0x01000000
_MASK = IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_ONLYDIR
_BLOCK = 1 << 16


class PathWatch:
    """`fd` becomes readable when something may have changed; None where inotify has no room.

    The descriptor is closed with the object.
    """

    def __init__(self, root: Path, path: Path) -> None:
        """`path` is below `root`."""
        below = path.relative_to(root).parts[:-1]
        self._directories = [root.joinpath(*below[:depth]) for depth in range(len(below) + 1)]
        self._libc = ctypes.CDLL(None, use_errno=True)
        fd = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        self.fd: int | None = fd if fd >= 0 else None
        if self.fd is not None:
            weakref.finalize(self, os.close, fd)
        self.clear()

    def clear(self) -> None:
        """Forget what was told, and watch every directory that there is now."""
        if self.fd is None:
            return
        # Many events are dropped as one: each says the same, to look at the path.
        with suppress(OSError):
            os.read(self.fd, _BLOCK)
        for directory in self._directories:
            self._libc.inotify_add_watch(self.fd, os.fsencode(directory), _MASK)
