# SPDX-License-Identifier: Apache-2.0
"""What people call a control group: the container, the pod or the unit that its path tells of.

A path is what the kernel and a runtime made of it, and its parts may be anything: what is not
recognized is left out, and nothing here is ever asked of anybody (`probes.host.container_runtimes`
asks).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from probes.core.limits import Name, Path

SHORT = 12
"""How many digits of a container's id people are shown, as all runtimes do."""


class CgroupName(NamedTuple):
    """What is known of a control group; None for what is not, or does not apply.

    `cgroup` is the path below the cgroup2 mount. `unit` is systemd's, as systemctl takes it;
    `pod` and `container` are names where a runtime told them, until then the pod's UID and the
    first digits of the container's id; `namespace` is the pod's. `runtime` is "docker", "podman",
    "containerd", "cri-o", "lxc", "systemd-nspawn" or "qemu", `id` the container's whole id.
    """

    cgroup: Path
    unit: Name | None = None
    pod: Name | None = None
    namespace: Name | None = None
    container: Name | None = None
    runtime: Name | None = None
    id: Name | None = None


_RUNTIMES = {
    "docker": "docker",
    "libpod": "podman",
    "libpod-payload": "podman",
    "cri-containerd": "containerd",
    "containerd": "containerd",
    "nerdctl": "containerd",
    "crio": "cri-o",
}
_PREFIX = "|".join(_RUNTIMES)
# Runtimes that were told of systemd by their caller only leave its "slice:prefix:name" as it is.
_SCOPE = re.compile(rf"(?:.*:)?({_PREFIX})[-:]([0-9a-f]{{12,64}})(?:\.scope)?")
_BARE = re.compile(r"[0-9a-f]{64}|[0-9a-f]{32}")
_ID = re.compile(r"[0-9a-f]{12,64}")
_PARENTS = {"docker": "docker", "libpod_parent": "podman", "podman": "podman"}
_UID = r"[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32}"
_POD = re.compile(rf"(?:.*-)?pod({_UID})(?:\.slice)?(?::.*)?")
_PODMAN_POD = re.compile(r"(?:.*-)?libpod_pod_([0-9a-f]{64})(?:\.slice)?")
_LXC = re.compile(r"lxc\.payload\.(.+)")
_LXC_PARENTS = ("lxc", "lxc.payload")
_MACHINE = re.compile(r"machine-(?:(qemu|lxc)\\x2d\d+\\x2d)?(.+)\.scope")
_NSPAWN = re.compile(r"systemd-nspawn@(.+)\.service")
_UNIT = re.compile(r".+\.(?:service|scope|slice|mount|socket|swap)")
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


@lru_cache(maxsize=4096)
def describe(path: str) -> CgroupName:
    """What a control group's path says by itself.

    Of containers in containers the innermost counts. Its unit is the one inside it, or the
    service that it is all of.
    """
    unit = pod = container = runtime = number = None
    kube = False
    above = ""
    for part in path.split("/"):
        if part in ("", ".", ".."):
            continue
        kube = kube or "kubepods" in part
        if kube and (match := _POD.fullmatch(part)):
            pod, unit = match[1].replace("_", "-"), None
        elif match := _PODMAN_POD.fullmatch(part):
            pod, runtime, unit = match[1][:SHORT], "podman", None
        found = _container(part, above, kube)
        if found is not None:
            container, runtime, number = found
            # A service that consists of a container is what that is started and stopped by.
            unit = next((each for each in (part, above) if each.endswith(".service")), None)
        elif _UNIT.fullmatch(part) and not _internal(part):
            unit = part
        above = part
    return CgroupName(path, unit, pod, None, container, runtime, number)


def _container(part: str, above: str, kube: bool) -> tuple[str, str | None, str | None] | None:
    """The container that a part of a path stands for: name, runtime, id."""
    if match := _SCOPE.fullmatch(part):
        return match[2][:SHORT], _RUNTIMES[match[1]], match[2]
    if _BARE.fullmatch(part) or (_ID.fullmatch(part) and (above in _PARENTS or _pod(above, kube))):
        return part[:SHORT], _PARENTS.get(above), part
    if above in _LXC_PARENTS:
        return part, "lxc", None
    if match := _LXC.fullmatch(part):
        return match[1], "lxc", None
    if match := _NSPAWN.fullmatch(part):
        return unescaped(match[1]), "systemd-nspawn", None
    if match := _MACHINE.fullmatch(part):
        return unescaped(match[2]), match[1] or "systemd-nspawn", None
    return None


def _pod(part: str, kube: bool) -> bool:
    return kube and _POD.fullmatch(part) is not None


def _internal(part: str) -> bool:
    """Whether a unit is nothing that anybody ever wrote: kubelet's and podman's slices."""
    return part.endswith(".slice") and ("kubepods" in part or "libpod_pod_" in part)


def unescaped(name: str) -> str:
    """A machine's name as it was before systemd made a unit's name of it."""
    if "\\x" not in name:
        return name
    raw = name.encode("utf-8", "surrogateescape")
    plain = _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), raw).decode("utf-8", "replace")
    return plain if plain.isprintable() else name


_SHORT_RUNTIMES = {"containerd": "cri", "cri-o": "crio", None: "ct"}


def short(name: CgroupName) -> str:
    """The one word that says most: "web/nginx" of a pod, a container, a unit without its ending.

    Without a name it is the runtime and an id ("docker:0123456789ab", "pod:1a2b3c4d"), without
    anything that is known the last part of the path.
    """
    if name.container is not None:
        if name.id is None or name.container != name.id[:SHORT]:
            return f"{name.pod}/{name.container}" if name.pod else name.container
        runtime = "pod" if name.pod else _SHORT_RUNTIMES.get(name.runtime, name.runtime)
        return f"{runtime}:{name.container}"
    if name.pod is not None:
        return f"pod:{name.pod[:8]}"
    last = name.unit or name.cgroup.rstrip("/").rpartition("/")[2]
    return last.rpartition(".")[0] if _UNIT.fullmatch(last) else last or "/"


RETRY_SECONDS = 30.0
"""Until a container that nobody knew is asked for again: it may have been too new."""
FORGET_SECONDS = 600.0
"""Until a name is asked for again: containers can be renamed."""
MOST_NAMES = 4096
"""Most containers whose names are kept, and most that wait to be asked for."""
AT_ONCE = 64
"""How many are asked for by one question."""


class Names:
    """Names with what the runtimes said, and which of them to ask for next.

    `describe` may be called by any thread; `question` and `learn` are for the one that asks.
    `clock` gives monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[str, tuple[str | None, ...]] = {}
        self._due: dict[str, float] = {}
        self._wanted: dict[str, None] = {}
        self._asked: tuple[str, ...] = ()

    def describe(self, path: str) -> CgroupName:
        """What is known by now; what is not will be asked for."""
        name = describe(path)
        if name.id is None:
            return name
        if self._due.get(name.id, 0.0) <= self._clock() and len(self._wanted) < MOST_NAMES:
            self._wanted[name.id] = None
        told = self._told.get(name.id)
        if told is None:
            return name
        container, pod, namespace, runtime = told
        return name._replace(
            container=container or name.container,
            pod=pod or name.pod,
            namespace=namespace,
            runtime=name.runtime or runtime,
        )

    def told(self, path: str) -> CgroupName | None:
        """As `describe`, but None where no runtime said more than the path does."""
        name = self.describe(path)
        return name if name.id in self._told else None

    def question(self) -> list[str]:
        """The ids to ask for now; empty while an answer is due."""
        if self._asked:
            return []
        # Another thread may add to them.
        self._asked = tuple(list(self._wanted)[:AT_ONCE])
        return list(self._asked)

    def learn(self, names: object) -> None:
        """Take in an answer: a mapping of ids to lists; anything else is none."""
        asked, self._asked = self._asked, ()
        told = names if isinstance(names, dict) else {}
        for number in asked:
            self._wanted.pop(number, None)
            words = told.get(number)
            if isinstance(words, list | tuple) and len(words) == 4:
                self._told[number] = tuple(w if isinstance(w, str) else None for w in words)
            known = number in self._told
            self._due[number] = self._clock() + (FORGET_SECONDS if known else RETRY_SECONDS)
        for kept in (self._told, self._due):
            for number in list(kept)[: max(0, len(kept) - MOST_NAMES)]:
                del kept[number]
