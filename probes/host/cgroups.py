# SPDX-License-Identifier: Apache-2.0
"""In which cgroup a process is, and paths of cgroups by the kernel's ids (inodes of cgroup2)."""

from __future__ import annotations

import os
import time
from itertools import islice
from pathlib import Path

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.safe_text import escaped

RESCAN_SECONDS, SCAN_SECONDS = 5.0, 0.05
"""From the end of a scan until the next one, and how long one may take."""
HIERARCHIES = ("", "name=systemd", "memory", "pids")
"""Those whose paths name a process's group: cgroup2 first, then those of v1."""
MOST_READ, MOST_GROUPS = 1 << 20, 5000
"""Bytes of a list of members, and groups of a hierarchy, that are read."""
MOST_MEMBERS = 100
"""Processes of a cgroup of v1 that are asked where they are in cgroup2."""


def cgroup_of(pid: int) -> str | None:
    """The cgroup that a process is in, a path; None if that cannot be known (any more).

    Where there is more than one hierarchy, it is of the first that tells more than "/": where v1
    is mounted beside cgroup2, systemd or a runtime may keep its groups in one of v1.
    """
    paths = _memberships(pid) or _hidden.memberships(pid)
    wanted = [paths[name] for name in HIERARCHIES if name in paths]
    return next((path for path in wanted if path != "/"), wanted[0] if wanted else None)


def _memberships(pid: int) -> dict[str, str]:
    """Paths of a process's cgroups by hierarchy, "" for cgroup2; empty for one that has gone.

    Pids are the machine's: in a pid namespace of its own /proc has other processes under them.
    """
    if not kernel.in_initial_pid_namespace():
        return {}
    try:
        with open(f"/proc/{pid}/cgroup", "rb") as file:
            text = file.read(16384).decode("utf-8", "surrogateescape")
    except OSError:
        return {}
    # A name may hold ends of lines other than the kernel's.
    parts = [line.split(":", 2) for line in text.split("\n")]
    return {part[1]: part[2].removesuffix(" (deleted)") for part in parts if len(part) == 3}


class HiddenMembers:
    """The groups of processes that /proc hides (hidepid), by the lists of members in cgroupfs.

    Those lists are for everybody. They are read at most every RESCAN_SECONDS, and not at all where
    /proc shows all processes.
    """

    def __init__(self) -> None:
        self._found: dict[int, dict[str, str]] = {}
        self._next_scan = 0.0

    def memberships(self, pid: int) -> dict[str, str]:
        """As `_memberships`; empty where nothing is hidden."""
        # The first process of a machine never ends.
        if os.path.exists("/proc/1/cgroup") or not kernel.in_initial_pid_namespace():
            return {}
        if time.monotonic() >= self._next_scan:
            self._found = {}
            for name, root in _hierarchies():
                self._scan(name, root, time.monotonic() + SCAN_SECONDS)
            self._next_scan = time.monotonic() + RESCAN_SECONDS
        return self._found.get(pid, {})

    def _scan(self, name: str, root: str, end: float) -> None:
        for number, (directory, _, _) in enumerate(os.walk(root)):
            if number == MOST_GROUPS or time.monotonic() > end:
                return
            try:
                with open(f"{directory}/cgroup.procs", "rb") as file:
                    pids = file.read(MOST_READ).split()
            except OSError:  # removed just now, or its processes are threads of another group
                continue
            path = directory[len(root) :] or "/"
            for pid in pids:
                self._found.setdefault(int(pid), {})[name] = path


_hidden = HiddenMembers()


def _hierarchies() -> list[tuple[str, str]]:
    """The name, "" for cgroup2, and the mount of each of HIERARCHIES that there is."""
    root = kernel.cgroup2()
    found = [("", str(root))] if root is not None else []
    for line in kernel.lines("/proc/self/mounts"):
        words = line.split(" ")
        if len(words) < 4 or words[2] != "cgroup":
            continue
        names = set(words[3].split(",")).intersection(HIERARCHIES)
        found += [(name, words[1].replace("\\040", " ")) for name in names]
    return found


def v1_mount(path: Path) -> Path | None:
    """The mount of a v1 hierarchy that a path is below; None if it is below none."""
    mounts = [Path(mount) for mount in kernel.mount_points("cgroup")]
    return next((mount for mount in mounts if path.is_relative_to(mount)), None)


def v1_directory(below: str) -> Path | None:
    """The directory of this path in the first hierarchy of v1 that has it; None if none does."""
    found = [Path(mount) / below.lstrip("/") for mount in kernel.mount_points("cgroup")]
    return next((path for path in found if (path / "cgroup.procs").exists()), None)


def paths_of_members(directory: Path) -> set[str]:
    """In which cgroups of cgroup2 the processes of a cgroup are; of many the first MOST_MEMBERS."""
    try:
        with open(directory / "cgroup.procs", "rb") as file:
            pids = file.read(MOST_MEMBERS * 8).split()[:MOST_MEMBERS]
    except OSError:
        return set()
    found = [_memberships(int(pid)).get("") for pid in pids if pid.isdigit()]
    return {path for path in found if path is not None}


class Cgroups:
    """Remembers id -> path (as readable text) below the cgroup2 mount.

    Unknown ids are looked up sparingly. Processes in the root of cgroup2 are looked for in the
    hierarchies of v1, where there are any.
    """

    def __init__(self) -> None:
        root = kernel.cgroup2()
        self._root = str(root) if root else None
        self._hybrid = bool(kernel.mount_points("cgroup"))
        self._paths: dict[int, str] = {}
        self._next_scan = 0.0

    def path(self, number: int, pid: int, parent: int = 0) -> str | None:
        """The path of a cgroup that process `pid` is, or was, in; None if nobody knows.

        One that has gone already was most likely where its parent is.
        """
        path = self._path(number, pid)
        if self._hybrid and path in (None, "/"):
            found = cgroup_of(pid) or (cgroup_of(parent) if parent else None)
            return path if found is None else escaped(found)
        return path

    def _path(self, number: int, pid: int) -> str | None:
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
        return _memberships(pid).get("")

    def _scan(self) -> None:
        """Walk the hierarchy for a moment, at most every few seconds: there may be thousands."""
        now = time.monotonic()
        if now < self._next_scan or self._root is None:
            return
        paths: dict[int, str] = {}
        for directory, _, _ in os.walk(self._root):
            path = directory[len(self._root) :] or "/"
            number = self._number(path if path != "/" else "")
            if number is not None:
                paths[number] = escaped(path)
            if time.monotonic() > now + SCAN_SECONDS:
                # Whoever may make groups may make many: what was known before stays.
                paths = dict(islice((self._paths | paths).items(), MOST_GROUPS))
                break
        self._paths = paths
        self._next_scan = time.monotonic() + RESCAN_SECONDS


def cgroup_directory(path: str) -> Path:
    """The directory of a cgroup given as such or relative to the cgroup2 mount.

    Raises ProbeError if there is none.
    """
    root = kernel.cgroup2()
    if root is None:
        raise ProbeError("no cgroup2 hierarchy is mounted", "mount -t cgroup2 none /sys/fs/cgroup")
    given = Path(path)
    directory = given if given.is_relative_to(root) else root / path.lstrip("/")
    if not (directory / "cgroup.procs").exists():
        raise ProbeError(f"{path} is no cgroup below {root}", f"see the directories in {root}")
    return directory


def cgroup_id(path: str) -> tuple[int, int]:
    """The kernel's id of a cgroup (its inode number) and how far below the root it is."""
    directory = cgroup_directory(path)
    root = kernel.cgroup2()
    assert root is not None
    return os.stat(directory).st_ino, len(directory.resolve().relative_to(root).parts)
