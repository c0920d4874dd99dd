# SPDX-License-Identifier: Apache-2.0
"""Paths of cgroups by the ids that the kernel gives (inode numbers of cgroup2)."""

from __future__ import annotations

import os
import time

from probes import kernel
from probes.text import escaped

RESCAN_SECONDS = 5.0


class Cgroups:
    """Remembers id -> path (as readable text) below the cgroup2 mount.

    Unknown ids are looked up sparingly.
    """

    def __init__(self) -> None:
        root = kernel.cgroup2()
        self._root = str(root) if root else None
        self._paths: dict[int, str] = {}
        self._next_scan = 0.0

    def path(self, number: int, pid: int) -> str | None:
        """The path of a cgroup that process `pid` is, or was, in; None if nobody knows."""
        known = self._paths.get(number)
        if known is not None or self._root is None:
            return known
        found = self._of_process(pid)
        if found is not None and self._number(found) == number:
            self._paths[number] = escaped(found)
            return self._paths[number]
        self._scan()
        return self._paths.get(number)

    def _number(self, path: str) -> int | None:
        try:
            return os.stat(f"{self._root}{path}").st_ino
        except OSError:
            return None

    def _of_process(self, pid: int) -> str | None:
        try:
            with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
                lines = file.read().splitlines()
        except OSError:
            return None
        return next((line[3:] for line in lines if line.startswith("0::")), None)

    def _scan(self) -> None:
        """Walk the hierarchy, at most every few seconds: there may be thousands."""
        now = time.monotonic()
        if now < self._next_scan or self._root is None:
            return
        self._next_scan = now + RESCAN_SECONDS
        paths: dict[int, str] = {}
        for directory, _, _ in os.walk(self._root):
            path = directory[len(self._root) :] or "/"
            number = self._number(path if path != "/" else "")
            if number is not None:
                paths[number] = escaped(path)
        self._paths = paths
