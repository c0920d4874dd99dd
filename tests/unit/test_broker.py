# SPDX-License-Identifier: Apache-2.0
"""The broker's request loop, with loaders that the test plays in processes of their own."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from probes import bpfsys, broker, ipc, searcher
from probes.broker import Broker

Play = Callable[[socket.socket, int], None]
PATHS = {"one": "package.one:One", "two": "package.two:Two"}


def forked(play: Play) -> Callable[[socket.socket, socket.socket, int], int]:
    """A way to start loaders that run `play` with their socket and their log."""

    def spawn(ours: socket.socket, theirs: socket.socket, log: int) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                play(theirs, log)
            finally:
                os._exit(0)
        return pid

    return spawn


class Bench:
    """A broker that serves in a thread, and the dashboard's end of its socket."""

    def __init__(self, play: Play) -> None:
        self.sock, theirs = ipc.pair()
        self.sock.settimeout(20)
        self.loaders: list[int] = []
        spawn = forked(play)

        def counted(ours: socket.socket, other: socket.socket, log: int) -> int:
            # As the real one does: it must not keep the dashboard's end open.
            self.loaders.append(spawn(ours, other, log))
            return self.loaders[-1]

        self.broker = Broker(theirs, PATHS, counted)
        self._theirs = theirs
        self._thread = threading.Thread(target=self.broker.serve)
        self._thread.start()

    def ask(self, **message: object) -> None:
        assert ipc.send(self.sock, message)

    def answer(self) -> tuple[ipc.Message, list[int]]:
        received = ipc.receive(self.sock)
        assert received is not None
        return received

    def end(self) -> None:
        """Close the dashboard's end; the broker must return of itself."""
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._theirs.close()


@pytest.fixture
def bench() -> Iterator[Callable[[Play], Bench]]:
    made: list[Bench] = []
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
    """Answers every request with what it was, and the log's descriptor."""
    while (received := ipc.receive(sock)) is not None:
        request = received[0]
        ipc.send(sock, {"id": request["id"], "ok": True, "was": request, "by": os.getpid()}, [log])


def never(sock: socket.socket, log: int) -> None:
    raise AssertionError


def test_request_reaches_the_loader_and_its_descriptors_come_back(
    bench: Callable[[Play], Bench],
) -> None:
    one = bench(obedient)
    one.ask(id=5, probe="two", params={"latency": True})
    message, fds = one.answer()
    assert message["ok"] is True
    # Code is named by the broker alone; the dashboard gives a name and parameters.
    assert message["was"] == {"id": 5, "path": "package.two:Two", "params": {"latency": True}}
    (fd,) = fds
    os.write(fd, b"shared")
    os.close(fd)


def test_a_batch_is_one_loaders_work_in_order(bench: Callable[[Play], Bench]) -> None:
    one = bench(obedient)
    names = [f"probe{number}" for number in range(6)]
    one.broker.paths |= dict.fromkeys(names, "nowhere:Nothing")
    for number, name in enumerate(names):
        one.ask(id=number, probe=name)
    answers = [one.answer() for _ in names]
    for _, fds in answers:
        ipc.close_all(fds)
    assert [message["id"] for message, _ in answers] == list(range(6))
    assert len({message["by"] for message, _ in answers}) == len(one.loaders)
    # Left without work a loader ends: its memory is the compiler's.
    end = time.monotonic() + 20
    while one.broker.loader is not None and time.monotonic() < end:
        time.sleep(0.01)
    assert one.broker.loader is None


def test_of_several_requests_for_a_probe_the_last_is_answered(
    bench: Callable[[Play], Bench],
) -> None:
    one = bench(obedient)
    for number in range(6):
        one.ask(id=number, probe="one")
    answered = []
    while 5 not in answered:
        message, fds = one.answer()
        ipc.close_all(fds)
        answered.append(message["id"])
    # What was under way is finished; what waited behind it is not begun.
    assert answered == sorted(set(answered))


def test_a_search_that_began_meanwhile_keeps_no_loader_alive(
    bench: Callable[[Play], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    def search(sock: socket.socket) -> None:
        while (received := ipc.receive(sock)) is not None:
            ipc.send(sock, {"id": received[0]["id"], "ok": True, "found": []})

    monkeypatch.setattr(searcher, "serve", search)
    read, write = os.pipe()

    def slow(sock: socket.socket, log: int) -> None:
        os.read(read, 1)
        obedient(sock, log)

    one = bench(slow)
    one.ask(id=1, probe="one")
    one.ask(id=2, op="search", query="malloc")
    assert one.answer()[0]["id"] == 2
    (pid,) = one.loaders
    os.write(write, b"g")
    message, fds = one.answer()
    ipc.close_all([*fds, read, write])
    assert message["id"] == 1
    # The loader has nothing more to do, and ends although the searcher goes on.
    end = time.monotonic() + 10
    while one.broker.loader is not None or os.path.exists(f"/proc/{pid}"):
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            raise AssertionError("the loader waits for a socket that the searcher holds")
        time.sleep(0.01)
    assert one.broker.searcher.sock is not None


@pytest.mark.parametrize("probe", ["three", "", None, "one.two:Three"])
def test_unknown_probe_starts_no_loader(bench: Callable[[Play], Bench], probe: object) -> None:
    one = bench(never)
    one.ask(id=9, probe=probe, path="os:abort")
    message, fds = one.answer()
    assert (message["id"], message["ok"], fds) == (9, False, [])
    assert repr(probe) in message["why"]
    assert one.loaders == []


def test_descriptors_from_the_dashboard_are_closed(bench: Callable[[Play], Bench]) -> None:
    one = bench(never)
    read, write = os.pipe()
    assert ipc.send(one.sock, {"id": 1, "probe": "three"}, [write])
    os.close(write)
    one.answer()
    assert os.read(read, 1) == b""
    os.close(read)


def test_statistics_are_a_descriptor(
    bench: Callable[[Play], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bpfsys, "enable_stats", lambda: os.memfd_create("stats"))
    one = bench(never)
    one.ask(id=3, op="stats")
    message, fds = one.answer()
    assert message == {"id": 3, "ok": True}
    assert os.readlink(f"/proc/self/fd/{fds[0]}").startswith("/memfd:stats")
    ipc.close_all(fds)


def test_statistics_may_be_refused(
    bench: Callable[[Play], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(bpfsys, "enable_stats", refuse)
    one = bench(never)
    one.ask(id=3, op="stats")
    message, fds = one.answer()
    assert (message["ok"], fds) == (False, [])
    assert "Operation not permitted" in message["why"]


def silent(sock: socket.socket, log: int) -> None:
    ipc.receive(sock)
    os.write(log, b"before the end\n")


def suicidal(sock: socket.socket, log: int) -> None:
    silent(sock, log)
    os.kill(os.getpid(), signal.SIGSEGV)


def hanging(sock: socket.socket, log: int) -> None:
    silent(sock, log)
    time.sleep(1000)


@pytest.mark.parametrize(
    ("play", "why"),
    [
        (silent, "the loader ended without an answer"),
        (suicidal, "the loader was ended by SIGSEGV"),
        (hanging, "the loader did not answer within 0.3 seconds"),
    ],
)
def test_loader_that_fails_is_one_requests_error(
    bench: Callable[[Play], Bench], monkeypatch: pytest.MonkeyPatch, play: Play, why: str
) -> None:
    monkeypatch.setattr(broker, "LOADER_TIMEOUT", 0.3)
    one = bench(play)
    one.ask(id=1, probe="one")
    one.ask(id=2, probe="two")
    for number in (1, 2):
        message, fds = one.answer()
        assert (message["id"], message["ok"], message["why"], fds) == (number, False, why, [])
        assert "probetop doctor" in message["fix"]
        assert message["log"] == "before the end\n"
    # Each request had a loader of its own, for the one before was gone.
    assert len(set(one.loaders)) == 2


def test_statistics_come_while_a_loader_is_at_work(
    bench: Callable[[Play], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bpfsys, "enable_stats", lambda: os.memfd_create("stats"))
    one = bench(hanging)
    one.ask(id=1, probe="one")
    one.ask(id=2, op="stats")
    message, fds = one.answer()
    assert message == {"id": 2, "ok": True}
    ipc.close_all(fds)
    # The fixture ends the broker here: it must not wait for the loader.


def test_messages_too_big_are_refused_by_the_sender() -> None:
    ours, theirs = ipc.pair()
    with pytest.raises(ValueError, match="message of"):
        ipc.send(ours, {"text": "x" * ipc.MAX_BYTES})
    assert ipc.send(ours, {"text": "x" * (ipc.MAX_BYTES - 20)})
    received = ipc.receive(theirs)
    assert received is not None
    assert len(received[0]["text"]) == ipc.MAX_BYTES - 20
    theirs.close()
    assert ipc.send(ours, {}) is False
    assert ipc.receive(ours) is None
    ours.close()
