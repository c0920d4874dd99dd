# SPDX-License-Identifier: Apache-2.0
"""What a process and its children hold: memory, descriptors, threads, and parts of BPF."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path

from bench.flat import Limit

LIMITS = {
    "small objects": Limit(12, "thousand"),
    "large objects": Limit(0.8, "MB"),
    "memory": Limit(12, "MB"),
    "descriptors": Limit(2),
    "threads": Limit(1),
    "processes": Limit(1),
    "programs": Limit(0),
    "links": Limit(0),
    "maps": Limit(1),
    "memory of maps": Limit(0.03, "MB"),
    "mapped counters": Limit(0.03, "MB"),
}
"""What is measured, and how much of it may come while everything goes on as before.

Objects are those of the dashboard's Python, small ones of some 70 bytes. Memory is what is
resident and no file's, of a heap that frays; what children share of it counts in full, so
that they make no difference. The kernel's run-time statistics are a descriptor now and then, and a
search is a process.
"""
_STATE = re.compile(r"\) (\S) ")
_ID = re.compile(r"^(prog_id|map_id|link_id|memlock):\s*(\d+)", re.M)


def own_children(pid: int) -> list[int]:
    """The processes that a process itself has started, such as probetop's broker."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/task").iterdir():
            found += [int(word) for word in (path / "children").read_text().split()]
    return found


def children(pid: int) -> list[int]:
    """The processes that a process has started, and what those have."""
    found = own_children(pid)
    return found + [below for one in found for below in children(one)]


def is_zombie(pid: int) -> bool:
    """Whether a process has ended and nobody has asked for its status."""
    state = _STATE.search(_text(pid, "stat"))
    return state is not None and state[1] == "Z"


def held(pids: Iterable[int]) -> dict[str, float]:
    """The figures that LIMITS names, of these processes together; memory in MB.

    Of objects only the process itself knows: they are 0.
    """
    alive = [pid for pid in pids if not is_zombie(pid)]
    out = dict.fromkeys(LIMITS, 0.0)
    out["processes"] = len(alive)
    objects: dict[str, set[str]] = {"prog_id": set(), "map_id": set(), "link_id": set()}
    sizes: dict[str, int] = {}
    for pid in alive:
        out["memory"] += _number(_text(pid, "smaps_rollup"), "Anonymous") * 1.024e-3
        out["threads"] += _number(_text(pid, "status"), "Threads")
        out["mapped counters"] += _mapped(pid) / 1e6
        for info in _descriptors(pid):
            out["descriptors"] += 1
            _note(info, objects, sizes)
    out["programs"] = len(objects["prog_id"])
    out["links"] = len(objects["link_id"])
    out["maps"] = len(objects["map_id"])
    out["memory of maps"] = sum(sizes.values()) / 1e6
    return out


def programs(pid: int) -> int:
    """The number of BPF programs that a process and its children hold, such as the broker."""
    objects: dict[str, set[str]] = {"prog_id": set(), "map_id": set(), "link_id": set()}
    for one in (pid, *children(pid)):
        for info in _descriptors(one):
            _note(info, objects, {})
    return len(objects["prog_id"])


def _note(info: str, objects: dict[str, set[str]], sizes: dict[str, int]) -> None:
    """Add what one descriptor is of; a link names its program too."""
    found = dict(_ID.findall(info))
    kind = next((name for name in ("link_id", "map_id", "prog_id") if name in found), None)
    if kind is not None:
        objects[kind].add(found[kind])
    if kind == "map_id":
        sizes[found[kind]] = int(found.get("memlock", 0))


def _descriptors(pid: int) -> list[str]:
    """What /proc tells of each open descriptor."""
    out = []
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/fdinfo").iterdir():
            with contextlib.suppress(OSError):
                out.append(path.read_text())
    return out


def _mapped(pid: int) -> int:
    """Bytes of BPF maps that are mapped into a process; they live on when closed."""
    total = 0
    for line in _text(pid, "maps").splitlines():
        if line.endswith(":bpf-map"):
            begin, _, end = line.split()[0].partition("-")
            total += int(end, 16) - int(begin, 16)
    return total


def _number(text: str, name: str) -> int:
    """A field of a file of "Name: number" lines, 0 if it has none."""
    found = re.search(rf"^{name}:\s*(\d+)", text, re.M)
    return int(found[1]) if found else 0


def _text(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return ""
