# SPDX-License-Identifier: Apache-2.0
"""Whether the paths of traced files still lead to the files that the probes are attached to.

A probe of user space is attached to a file, whatever its path is later: after an upgrade, new
processes run a file that nobody traces.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol


class TracedFile(Protocol):
    """A file that stays open until it is attached to, see `probes.host.open_file`."""

    path: str
    fd: int
    stat: os.stat_result

    @property
    def link(self) -> str:
        """The path by which the kernel finds the open file, in this process only."""

    @property
    def is_overlaid(self) -> bool:
        """Whether the file lies on overlayfs."""

    def check(self) -> None:
        """Raises ProbeError if the file was written to since it was opened."""


SECONDS = 5.0
"""Time between two looks at the files."""

Files = tuple[tuple[str, int, int], ...]
"""What a target is attached to: path, device and inode of each file."""


def identify(files: Iterable[TracedFile]) -> list[list[str | int]]:
    """The paths and numbers of open files, as a value of JSON.

    Paths through a process's own root are left out: they end with the process, which says nothing
    of the file.
    """
    found = {(one.path, one.stat.st_dev, one.stat.st_ino) for one in files}
    return [list(one) for one in sorted(found) if not one[0].startswith("/proc/")]


def state_of(files: Files) -> str | None:
    """ "deleted" or "replaced" if one of them is, "current" if none; None where it is not known."""
    states = [_state_of(*file) for file in files]
    for state in ("deleted", "replaced", None):
        if state in states:
            return state
    return "current" if states else None


def _state_of(path: str, device: int, inode: int) -> str | None:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return "deleted"
    except (OSError, ValueError):
        # A directory that only others may search: no claim.
        return None
    return "current" if (status.st_dev, status.st_ino) == (device, inode) else "replaced"


class FileWatch:
    """Looks at files now and then, in a thread of its own: a file system may take its time."""

    def __init__(self) -> None:
        self._due = float("-inf")
        self._worker: threading.Thread | None = None
        self._found: Mapping[Files, str | None] = {}

    def look_soon(self) -> None:
        """Look at the next opportunity, for there are other files."""
        self._due = float("-inf")

    def news(self, now: float, files: Callable[[], Iterable[Files]]) -> Mapping[Files, str | None]:
        """What was found since the last call; when it is time, the next look begins at `files`."""
        busy = self._worker is not None and self._worker.is_alive()
        if busy:
            return {}
        found, self._found = self._found, {}
        if now >= self._due:
            self._due = now + SECONDS
            wanted = {one for one in files() if one}
            if wanted:
                self._worker = threading.Thread(
                    target=self._look, args=(wanted,), name="traced files", daemon=True
                )
                self._worker.start()
        return found

    def _look(self, wanted: Iterable[Files]) -> None:
        self._found = {files: state_of(files) for files in wanted}
