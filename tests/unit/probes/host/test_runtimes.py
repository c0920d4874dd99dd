# SPDX-License-Identifier: Apache-2.0
"""What container runtimes tell, from files and sockets as they make them, and from broken ones."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from probes.broker import runtime_worker
from probes.broker import server as broker
from probes.broker.client import BrokerLink, connected
from probes.broker.server import Broker
from probes.execs.sample import ExecEvent, ExecSample
from probes.host import container_runtimes
from probes.host.container_runtimes import Told, ask
from probes.ipc import messages, packets
from probes.live.names import Naming

ID = "0123456789ab" + "cd" * 26
OTHER = "f" * 12 + "01" * 26


@pytest.fixture
def root(tmp_path: Path) -> str:
    return f"{tmp_path}/"


def put(root: str, path: str, value: Any) -> Path:
    file = Path(root, path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(value if isinstance(value, str) else json.dumps(value))
    return file


CONTAINERD = {
    "io.kubernetes.cri.container-name": "nginx",
    "io.kubernetes.cri.container-type": "container",
    "io.kubernetes.cri.sandbox-name": "web-1",
    "io.kubernetes.cri.sandbox-namespace": "shop",
}
CRIO = {
    "io.container.manager": "cri-o",
    "io.kubernetes.container.name": "nginx",
    "io.kubernetes.pod.name": "web-1",
    "io.kubernetes.pod.namespace": "shop",
    "io.kubernetes.cri-o.KubeName": "web-1",
}
POD = {"io.kubernetes.container.name": "nginx", "io.kubernetes.pod.name": "web-1",
       "io.kubernetes.pod.namespace": "shop"}  # fmt: skip
TASK = f"run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json"
BUNDLE = f"run/containers/storage/overlay-containers/{ID}/userdata/config.json"
DOCKER = f"var/lib/docker/containers/{ID}/config.v2.json"


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (TASK, {"annotations": CONTAINERD}, Told("nginx", "web-1", "shop", "containerd")),
        (f"run/k3s/{TASK[4:]}", {"annotations": CONTAINERD},
         Told("nginx", "web-1", "shop", "containerd")),
        (BUNDLE, {"annotations": CRIO}, Told("nginx", "web-1", "shop", "cri-o")),
        (DOCKER, {"Name": "/db", "Config": {"Labels": {}}}, Told("db", None, None, "docker")),
        (DOCKER, {"Name": "/db", "Config": {"Labels": None}}, Told("db", None, None, "docker")),
        (DOCKER, {"Name": "/k8s_x", "Config": {"Labels": POD}},
         Told("nginx", "web-1", "shop", "docker")),
        (f"var/log/containers/web-1_shop_nginx-{ID}.log", "", Told("nginx", "web-1", "shop")),
        ("var/lib/containers/storage/overlay-containers/containers.json",
         [{"id": OTHER, "names": ["x"]}, {"id": ID, "names": ["db"]}], Told("db")),
        ("home/a/.local/share/containers/storage/overlay-containers/containers.json",
         [{"id": ID, "names": ["db"]}], Told("db")),
    ],
)  # fmt: skip
def test_files_of_runtimes(root: str, path: str, value: Any, told: Told) -> None:
    put(root, path, value)
    assert ask([ID, OTHER[:20]], [root]) == {ID: told}


def test_the_first_root_that_knows_counts(tmp_path: Path) -> None:
    here, there = f"{tmp_path}/a/", f"{tmp_path}/b/"
    put(here, DOCKER, {"Name": "/one"})
    put(there, DOCKER, {"Name": "/two"})
    put(there, DOCKER.replace(ID, OTHER), {"Name": "/three"})
    found = ask([ID, OTHER], [here, there])
    assert {number: told.container for number, told in found.items()} == {ID: "one", OTHER: "three"}


@pytest.mark.parametrize(
    "value",
    [
        "", "null", "[]", "{", "7", '"x"', "[" * 100_000, "\0" * 10,
        {"Name": 7}, {"Name": ["/a"]}, {"Name": "/../etc"}, {"Name": "/a b"}, {"Name": "/\x1b[m"},
        {"Name": "/" + "a" * 300},
        {"Name": "/", "Config": {"Labels": {"io.kubernetes.pod.name": {}}}},
        {"Name": "/db", "pad": "x" * container_runtimes.MOST_BYTES},
    ],
    ids=range(16),
)  # fmt: skip
def test_what_no_runtime_wrote_is_nothing(root: str, value: Any) -> None:
    put(root, DOCKER, value)
    put(root, TASK, value)
    put(root, "var/lib/containers/storage/overlay-containers/containers.json", value)
    assert ask([ID], [root]) == {}


def test_a_pipe_keeps_nobody_waiting(root: str) -> None:
    file = put(root, DOCKER, "")
    file.unlink()
    os.mkfifo(file)
    assert ask([ID], [root]) == {}


@pytest.mark.parametrize(
    "number", ["../../etc", "", "xyz", "0123456789a", ID + "0", "*", ID + "\n"]
)
def test_only_ids_are_asked_for(root: str, number: str) -> None:
    put(root, f"var/lib/docker/containers/{number.strip() or 'x'}/config.v2.json", {"Name": "/a"})
    assert ask([number], [root]) == {}


Answer = Callable[[socket.socket, str], None]


@pytest.fixture
def runtime(root: str) -> Iterator[Callable[[Answer], list[str]]]:
    """Starts a runtime on docker's socket; the paths that it is asked for."""
    listener = socket.socket(socket.AF_UNIX)
    Path(root, "run").mkdir()

    def start(answer: Answer) -> list[str]:
        listener.bind(f"{root}run/docker.sock")
        listener.listen()
        asked: list[str] = []

        def serve() -> None:
            with suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    with sock:
                        asked.append(sock.recv(4096).decode().split()[1])
                        answer(sock, asked[-1])

        threading.Thread(target=serve, daemon=True).start()
        return asked

    yield start
    with suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def http(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def test_dockers_socket(root: str, runtime: Callable[[Answer], list[str]]) -> None:
    def answer(sock: socket.socket, path: str) -> None:
        known = ID in path
        body = {"Id": ID, "Name": "/db", "Config": {"Labels": {}}}
        sock.sendall(http("200 OK", json.dumps(body)) if known else http("404 Not Found", "{}"))

    asked = runtime(answer)
    assert ask([OTHER, ID], [root]) == {ID: Told("db", None, None, "docker")}
    assert asked == [f"/containers/{OTHER}/json", f"/containers/{ID}/json"]


@pytest.mark.parametrize(
    "said", [b"", b"nonsense\r\n\r\n", http("200 OK", "no json"), http("200 OK", "[]"),
             http("500 Oh", "{}"), b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1000]
)  # fmt: skip
def test_a_runtime_that_talks_nonsense(
    root: str, runtime: Callable[[Answer], list[str]], said: bytes
) -> None:
    asked = runtime(lambda sock, path: sock.sendall(said))
    assert ask([ID], [root]) == {}
    assert len(asked) == 1


def test_a_runtime_that_hangs_is_not_asked_twice(
    root: str, runtime: Callable[[Answer], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container_runtimes, "TIMEOUT", 0.05)
    gone = threading.Event()

    def hang(sock: socket.socket, path: str) -> None:
        gone.wait(20)

    asked = runtime(hang)
    try:
        assert ask([ID, OTHER], [root]) == {}
    finally:
        gone.set()
    assert len(asked) == 1


@pytest.fixture
def link() -> Iterator[BrokerLink]:
    """A broker that serves in a thread: the dashboard's end."""
    ours, theirs = connected()
    ours.answers.settimeout(20)
    serving = Broker(theirs, {})
    thread = threading.Thread(target=serving.serve)
    thread.start()
    yield ours
    # A child of this process has the dashboard's end too, and closing is not enough.
    ours.answers.shutdown(socket.SHUT_RDWR)
    ours.close()
    thread.join(20)
    theirs.close()
    assert not thread.is_alive()


def test_the_broker_asks_in_a_child(
    root: str, monkeypatch: pytest.MonkeyPatch, link: BrokerLink
) -> None:
    put(root, DOCKER, {"Name": "/db"})
    monkeypatch.setattr(container_runtimes, "roots", lambda: [root])
    path = f"/docker/{ID}"
    naming = Naming()
    event = ExecEvent(
        time=1.0, pid=1, ppid=1, uid=0, comm="a", parent="b", args=(), truncated=False, ret=0,
        cgroup=path,
    )  # fmt: skip
    sample = ExecSample(state="on", events=(event,))
    assert naming.named(sample) == sample
    naming.ask(link)
    naming.ask(link)
    assert link.number() == 2
    received = link.receive()
    assert received is not None
    assert not naming.answered(messages.Answer(id=6, ok=True))
    assert naming.answered(received[0])
    named = naming.named(sample)
    assert isinstance(named, ExecSample)
    assert named.names[path].container == "db"
    # What has not changed is the same object, also when nothing happened.
    again = naming.named(ExecSample(state="on"))
    assert isinstance(again, ExecSample)
    assert again.names is named.names


def test_a_question_that_takes_too_long_is_answered_all_the_same(
    monkeypatch: pytest.MonkeyPatch, link: BrokerLink
) -> None:
    monkeypatch.setattr(runtime_worker, "SECONDS", 1)
    monkeypatch.setattr(container_runtimes, "ask", lambda ids: time.sleep(60))
    link.send({"id": 3, "op": "names", "ids": [ID]})
    received = packets.receive(link.answers)
    assert received is not None
    assert isinstance(received[0], dict)
    assert (received[0]["id"], received[0]["ok"]) == (3, False)
    assert broker.LOADER_TIMEOUT > runtime_worker.SECONDS


def test_what_a_home_links_to_is_not_opened(tmp_path: Path) -> None:
    """Root would open a device of the machine, or wait where a user's file system is silent."""
    kept = tmp_path / "kept.json"
    kept.write_text(json.dumps([{"id": ID, "names": ["theirs"]}]))
    place = "share/containers/storage/overlay-containers"
    for name in ("file", "folder", "whole"):
        (tmp_path / "home" / name).mkdir(parents=True)
    (tmp_path / "elsewhere" / place).mkdir(parents=True)
    shutil.copy(kept, tmp_path / "elsewhere" / place / "containers.json")
    inside = tmp_path / "home" / "file" / ".local" / place
    inside.mkdir(parents=True)
    (inside / "containers.json").symlink_to(kept)
    (tmp_path / "home" / "folder" / ".local").symlink_to(tmp_path / "elsewhere")
    assert container_runtimes.ask([ID], [f"{tmp_path}/"]) == {}
    (inside / "containers.json").unlink()
    shutil.copy(kept, inside / "containers.json")
    assert container_runtimes.ask([ID], [f"{tmp_path}/"])[ID].container == "theirs"


def test_only_files_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    real, flags = os.open, []

    def spy(path: str, how: int, *more: int) -> int:
        flags.append(how)
        return real(path, how, *more)

    monkeypatch.setattr(os, "open", spy)
    assert container_runtimes._read(str(pipe)) is None
    assert flags
    assert all(how & os.O_PATH for how in flags)
