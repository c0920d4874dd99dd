# SPDX-License-Identifier: Apache-2.0
"""What the broker has done by children: by name alone, one at a time, within their time."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from probes import ipc
from probes.base import ProbeError
from probes.broker import Broker
from probes.helpers import Helper

HERE = __name__


def says(fds: Sequence[int]) -> dict[str, Any]:
    """A helper: writes to what it is given."""
    for fd in fds:
        os.write(fd, b"done")
    return {"pid": os.getpid(), "fds": len(fds)}


def refuses(fds: Sequence[int]) -> None:
    """A helper that knows why not."""
    raise ProbeError("cannot", "do this")


def crashes(fds: Sequence[int]) -> None:
    """A helper with an error in it."""
    raise RuntimeError("oh")


def dies(fds: Sequence[int]) -> None:
    """A helper that is gone."""
    os._exit(3)


def hangs(fds: Sequence[int]) -> None:
    """A helper that never ends."""
    time.sleep(3600)


HELPERS = {
    name: Helper(f"{HERE}:{name}", 20.0) for name in ("says", "refuses", "crashes", "dies")
} | {
    "hangs": Helper(f"{HERE}:hangs", 0.2),
    "waits": Helper(f"{HERE}:hangs", 3600.0),
    "missing": Helper(f"{HERE}:nothing", 20.0),
}
Ask = Callable[..., None]


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    ours, theirs = ipc.pair()
    ours.settimeout(20)
    before = len(os.listdir("/proc/self/fd"))
    broker = Broker(theirs, {}, helpers=HELPERS)
    thread = threading.Thread(target=broker.serve)
    thread.start()
    yield ours
    ours.shutdown(socket.SHUT_RDWR)
    thread.join(20)
    assert not thread.is_alive()
    # Also those that were at work are gone, and waited for.
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert len(os.listdir("/proc/self/fd")) == before
    ours.close()
    theirs.close()


def ask(sock: socket.socket, name: object, request: int = 1, fds: Sequence[int] = ()) -> None:
    assert ipc.send(sock, {"id": request, "op": "help", "name": name}, fds)


def answer(sock: socket.socket) -> dict[str, Any]:
    received = ipc.receive(sock)
    assert received is not None
    assert not received[1]
    assert isinstance(received[0], dict)
    return received[0]


def test_a_helper_works_in_a_process_of_its_own(sock: socket.socket) -> None:
    fd = os.memfd_create("x")
    ask(sock, "says", 7, [fd])
    value = answer(sock)
    assert (value["id"], value["ok"], value["result"]["fds"]) == (7, True, 1)
    assert value["result"]["pid"] != os.getpid()
    assert os.pread(fd, 10, 0) == b"done"
    os.close(fd)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("refuses", "cannot"),
        ("crashes", "it failed: RuntimeError('oh')"),
        ("dies", "dies ended without an answer"),
        ("hangs", "hangs did not end within 0.2 seconds"),
        ("missing", "it failed: AttributeError"),
        ("os:system", "this cannot be asked for here"),
        (None, "the broker does not understand this message"),
        (["says"], "the broker does not understand this message"),
    ],
)
def test_why_not(sock: socket.socket, name: object, why: str) -> None:
    ask(sock, name, 3)
    value = answer(sock)
    assert (value["id"], value["ok"]) == (3, False)
    assert value["why"].startswith(why)
    ask(sock, "says", 4)
    assert answer(sock)["ok"]


def test_one_at_a_time_of_each(sock: socket.socket) -> None:
    ask(sock, "waits", 1)
    ask(sock, "waits", 2)
    value = answer(sock)
    assert (value["id"], value["ok"]) == (2, False)
    assert "somebody else" in value["why"]
    ask(sock, "says", 3)
    assert answer(sock)["id"] == 3
