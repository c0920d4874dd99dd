# SPDX-License-Identifier: Apache-2.0
"""Asks the container runtimes of this machine what a container's id is the name of.

Files first, which cannot keep anybody waiting: the state that containerd, CRI-O, podman and
docker keep of each container, and the links that the kubelet makes to its logs. Then the
sockets of docker and podman. Only for root; everything that is read is bounded and checked.
"""

from __future__ import annotations

import glob
import http.client
import json
import os
import re
import socket
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from probes.host import lookup

MOST_BYTES = 2_000_000
"""Of a file or of an answer; a container's state has some ten thousand."""
TIMEOUT = 1.0
"""Seconds for a runtime to answer; one that does not is not asked again at once."""
MOST_IDS = 64
"""Most containers that are asked for at once."""

_ID = re.compile(r"[0-9a-f]{12,64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}")
SOCKETS = (("run/docker.sock", "docker"), ("run/podman/podman.sock", "podman"))
_STATES = (
    ("run/containerd/io.containerd.runtime.v2.task/*/{}/config.json", "containerd"),
    ("run/k3s/containerd/io.containerd.runtime.v2.task/*/{}/config.json", "containerd"),
    ("run/containers/storage/overlay-containers/{}/userdata/config.json", None),
    ("var/lib/containers/storage/overlay-containers/{}/userdata/config.json", None),
)
_LIST = "containers/storage/overlay-containers/containers.json"
_MOST_HOMES = 100
_POD = ("io.kubernetes.pod.name", "io.kubernetes.cri.sandbox-name", "io.kubernetes.cri-o.KubeName")
_NAMESPACE = (
    "io.kubernetes.pod.namespace",
    "io.kubernetes.cri.sandbox-namespace",
    "io.kubernetes.cri-o.Namespace",
)
_CONTAINER = ("io.kubernetes.container.name", "io.kubernetes.cri.container-name")


class Told(NamedTuple):
    """What a runtime calls a container; None for what it did not say."""

    container: str | None = None
    pod: str | None = None
    namespace: str | None = None
    runtime: str | None = None


def roots() -> list[str]:
    """Where the machine's files are: here, where a container mounts them, where process 1 is."""
    found: dict[tuple[int, int], str] = {}
    for root in ("/", "/host/", "/proc/1/root/"):
        with suppress(OSError):
            there = os.stat(f"{root}run")
            found.setdefault((there.st_dev, there.st_ino), root)
    return list(found.values())


def ask(ids: Sequence[str], places: Sequence[str] | None = None) -> dict[str, Told]:
    """What is known of containers, by id; those that nobody knows are left out."""
    places = roots() if places is None else places
    wanted = [number for number in ids if _ID.fullmatch(number)][:MOST_IDS]
    found: dict[str, Told] = {}
    for root in places:
        lists: dict[str, str] | None = None
        for number in [number for number in wanted if number not in found]:
            told = _docker_state(root, number) or _state(root, number) or _log(root, number)
            if told is None or told.container is None:
                lists = _listed(root) if lists is None else lists
                if name := lists.get(number):
                    told = (told or Told())._replace(container=name)
            if told is not None:
                found[number] = told
    _ask_sockets(wanted, places, found)
    return found


def _named(text: Any) -> str | None:
    """A name, if it is one that a runtime would give."""
    return text if isinstance(text, str) and _NAME.fullmatch(text) else None


def _read(path: str) -> Any:
    """The JSON value of a file; None for what is no such file, or not readable."""
    with suppress(OSError):
        return _parsed(os.open(path, os.O_PATH | os.O_CLOEXEC))
    return None


def _parsed(found: int) -> Any:
    """As `_read`, for an O_PATH descriptor, which is closed.

    Opening a device or a pipe that somebody made has effects, so only files are opened.
    """
    try:
        with suppress(OSError, ValueError, RecursionError):
            if stat.S_ISREG(os.fstat(found).st_mode):
                with open(f"/proc/self/fd/{found}", "rb") as file:
                    data = file.read(MOST_BYTES + 1)
                return json.loads(data) if len(data) <= MOST_BYTES else None
    finally:
        os.close(found)
    return None


def _in_homes(root: str) -> Iterator[Any]:
    """The list of containers of each home that has one.

    What is below a home is its user's: nothing leads out of it, neither links nor mounts, for root
    would go wherever that user likes, and wait for ever at a file system of theirs.
    """
    try:
        homes = os.open(f"{root}home", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        for name in os.listdir(homes)[:_MOST_HOMES]:
            with suppress(OSError, ValueError):
                home = lookup.open_below(homes, name, lookup.NO_SYMLINKS)
                try:
                    if not lookup.may_wait(home, 1):
                        how = lookup.NO_SYMLINKS | lookup.BENEATH | lookup.NO_XDEV
                        yield _parsed(lookup.open_below(home, f".local/share/{_LIST}", how))
                finally:
                    os.close(home)
    finally:
        os.close(homes)


def _mapping(value: Any, *names: str) -> Mapping[str, Any]:
    """What is at names, one in another, of a JSON value; empty for what is no object."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _first(labels: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for key in names if (name := _named(labels.get(key)))), None)


def _of_labels(labels: Mapping[str, Any], name: str | None, runtime: str | None) -> Told | None:
    """Kubernetes' names where they are, else the container's own."""
    pod = _first(labels, _POD)
    told = Told(_first(labels, _CONTAINER) or name, pod, _first(labels, _NAMESPACE), runtime)
    return told if pod or told.container else None


def _docker_state(root: str, number: str) -> Told | None:
    state = _read(f"{root}var/lib/docker/containers/{number}/config.v2.json")
    return _of_docker(state, "docker") if state is not None else None


def _of_docker(state: Any, runtime: str) -> Told | None:
    name = _mapping(state).get("Name")
    name = name.removeprefix("/") if isinstance(name, str) else None
    return _of_labels(_mapping(state, "Config", "Labels"), _named(name), runtime)


def _state(root: str, number: str) -> Told | None:
    """From the OCI bundle of a container that runs."""
    for pattern, runtime in _STATES:
        for path in _some(root + pattern.format(number)):
            notes = _mapping(_read(path), "annotations")
            maker = notes.get("io.container.manager")
            known = {"libpod": "podman", "cri-o": "cri-o"}.get(str(maker))
            told = _of_labels(notes, None, runtime or known)
            if told is not None:
                return told
    return None


def _log(root: str, number: str) -> Told | None:
    """From the kubelet's link to its log: POD_NAMESPACE_CONTAINER-ID.log."""
    for path in _some(f"{root}var/log/containers/*-{number}.log"):
        words = os.path.basename(path).removesuffix(f"-{number}.log").split("_")
        if len(words) == 3 and all(map(_named, words)):
            return Told(words[2], words[0], words[1])
    return None


def _listed(root: str) -> dict[str, str]:
    """The names of podman's containers, of root and of users, by id."""
    names: dict[str, str] = {}
    for entries in (_read(f"{root}var/lib/{_LIST}"), *_in_homes(root)):
        for entry in entries if isinstance(entries, list) else ():
            number, given = _mapping(entry).get("id"), _mapping(entry).get("names")
            name = _named(given[0]) if isinstance(given, list) and given else None
            if isinstance(number, str) and name:
                names.setdefault(number, name)
    return names


def _some(pattern: str, most: int = 100) -> Iterator[str]:
    for at, path in enumerate(glob.iglob(pattern)):
        if at == most:
            return
        yield path


class _Unix(http.client.HTTPConnection):
    """A connection to a socket in the file system."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self.path)


def _ask_sockets(wanted: Sequence[str], places: Sequence[str], found: dict[str, Told]) -> None:
    for root in places:
        for name, runtime in SOCKETS:
            for number in [number for number in wanted if number not in found]:
                try:
                    told = _of_docker(_get(root + name, number), runtime)
                except (OSError, http.client.HTTPException, ValueError, RecursionError):
                    # Nobody there, or one who does not answer: nor would it the next time.
                    break
                if told is not None:
                    found[number] = told


def _get(path: str, number: str) -> Any:
    connection = _Unix(path)
    try:
        connection.request("GET", f"/containers/{number}/json")
        answer = connection.getresponse()
        data = answer.read(MOST_BYTES)
        return json.loads(data) if answer.status == 200 else None
    finally:
        connection.close()
