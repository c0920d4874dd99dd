# SPDX-License-Identifier: Apache-2.0
"""A broker that serves in a thread, and loaders that a test plays in processes of their own."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from probes.broker.client import connected
from probes.broker.server import Broker
from probes.ipc import child_process, packets
from probes.ipc.child_process import Child, Limits

Play = Callable[[socket.socket, int], None]
PATHS = {"one": "package.one:One", "two": "package.two:Two", "fixed": "package.fixed:Fixed"}
FIXED = {"fixed": {"args": False}}


class Bench:
    """A broker that serves in a thread, and the dashboard's end of what connects them."""

    def __init__(self, play: Play) -> None:
        self.link, theirs = connected()
        self.sock = self.link.answers
        self.sock.settimeout(20)
        self.loaders: list[int] = []

        def spawn(log: int) -> Child[socket.socket]:
            started = child_process.start(
                lambda sock: play(sock, log), Limits(), [log], quiet=False
            )
            self.loaders.append(started.pid)
            return started

        self.broker = Broker(theirs, PATHS, spawn, fixed=FIXED)
        self._theirs = theirs
        self._thread = threading.Thread(target=self.broker.serve)
        self._thread.start()

    def ask(self, **message: object) -> None:
        assert self.link.send({"op": "load", **message})

    def write(self, line: bytes) -> None:
        """Send what may be no message."""
        for at in range(0, len(line), 4096):
            os.write(self.link.requests, line[at : at + 4096])
        os.write(self.link.requests, b"\n")

    def answer(self) -> tuple[dict[str, Any], list[int]]:
        received = packets.receive(self.sock)
        assert received is not None
        assert isinstance(received[0], dict)
        return received[0], received[1]

    def end(self) -> None:
        """Close the dashboard's end; the broker must return of itself."""
        if self.sock.fileno() >= 0:
            self.sock.shutdown(socket.SHUT_RDWR)
        self.link.close()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._theirs.close()
        last = time.monotonic() + 20
        while self.broker.closer._pids and time.monotonic() < last:
            self.broker.closer.reap()
            time.sleep(0.01)
        reap_all()


def reap_all() -> None:
    """Wait for children that were killed and took their time."""
    last = time.monotonic() + 20
    while Child._lingering and time.monotonic() < last:
        Child.reap_all()
        time.sleep(0.01)


@pytest.fixture
def bench() -> Iterator[Callable[[Play], Bench]]:
    made: list[Bench] = []
    reap_all()
    # Files of other tests that nobody refers to any more are closed now, not meanwhile.
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))

    def make(play: Play) -> Bench:
        made.append(Bench(play))
        return made[-1]

    yield make
    for one in made:
        one.end()
        for pid in one.loaders:
            with pytest.raises(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    assert len(os.listdir("/proc/self/fd")) == before


def obedient(sock: socket.socket, log: int) -> None:
    """Answers every request with what it was; a map, a program, two links and a held map."""
    while (received := packets.receive(sock)) is not None:
        request: Any = received[0]
        fds = [os.memfd_create(name) for name in ("map", "program", "link", "link", "held")]
        answer = {
            "id": request["id"],
            "ok": True,
            "facts": {"was": request, "by": os.getpid()},
            "maps": ["counters"],
            "programs": 1,
            "links": [7, None],
            "held": 1,
            "groups": [7],
        }
        packets.send(sock, answer, fds)
        packets.close_all(fds)


def never(sock: socket.socket, log: int) -> None:
    raise AssertionError


def open_descriptors() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            os.fstat(int(name))
            found.append(int(name))
    return found


def silent(sock: socket.socket, log: int) -> None:
    packets.receive(sock)
    os.write(log, b"before the end\n")


def hanging(sock: socket.socket, log: int) -> None:
    silent(sock, log)
    time.sleep(1000)
