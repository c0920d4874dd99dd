# SPDX-License-Identifier: Apache-2.0
"""The broker's request loop, with loaders that the test plays in processes of their own."""

from __future__ import annotations

import copy
import gc
import json
import os
import random
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest

from probes import bpfsys, broker, child, ipc, namer, searcher, units
from probes.broker import Broker
from probes.child import Child, Limits
from tests.fuzzing import inputs

Play = Callable[[socket.socket, int], None]
PATHS = {"one": "package.one:One", "two": "package.two:Two"}


class Bench:
    """A broker that serves in a thread, and the dashboard's end of its socket."""

    def __init__(self, play: Play) -> None:
        self.sock, theirs = ipc.pair()
        self.sock.settimeout(20)
        self.loaders: list[int] = []

        def spawn(log: int) -> Child:
            started = child.start(lambda sock: play(sock, log), Limits(), [log], quiet=False)
            self.loaders.append(started.pid)
            return started

        self.broker = Broker(theirs, PATHS, spawn)
        self._theirs = theirs
        self._thread = threading.Thread(target=self.broker.serve)
        self._thread.start()

    def ask(self, fds: Sequence[int] = (), **message: object) -> None:
        assert ipc.send(self.sock, {"op": "load", **message}, fds)

    def answer(self) -> tuple[dict[str, Any], list[int]]:
        received = ipc.receive(self.sock)
        assert received is not None
        assert isinstance(received[0], dict)
        return received[0], received[1]

    def end(self) -> None:
        """Close the dashboard's end; the broker must return of itself."""
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
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
    while (received := ipc.receive(sock)) is not None:
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
        ipc.send(sock, answer, fds)
        ipc.close_all(fds)


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
    was = message["facts"]["was"]
    assert was == {"id": 5, "path": "package.two:Two", "params": {"latency": True}}
    (fd,) = fds
    assert os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:map")
    os.close(fd)


def names_of(fds: Iterable[int]) -> list[str]:
    return [os.readlink(f"/proc/self/fd/{fd}").split(":")[1].split()[0] for fd in fds]


def test_programs_and_links_stay_with_the_broker(bench: Callable[[Play], Bench]) -> None:
    one = bench(obedient)
    one.ask(id=1, probe="one")
    message, fds = one.answer()
    assert names_of(fds) == ["map"]
    ipc.close_all(fds)
    unit = one.broker.units._units[message["unit"]]
    assert names_of(unit.programs) == ["program"]
    assert names_of(unit.held) == ["held"]
    assert [group for group, _ in unit.links] == [7, None]
    one.ask(op="detach", id=2, unit=message["unit"], groups=[7, 8])
    one.ask(op="detach", id=2, unit=message["unit"] + 1)
    one.ask(op="runs", id=3)
    assert one.answer()[0] == {"id": 3, "ok": True, "runs": {str(message["unit"]): [0, 0, 0]}}
    assert [group for group, _ in unit.links] == [None]
    one.ask(op="detach", id=4, unit=message["unit"])
    one.ask(op="runs", id=5)
    assert one.answer()[0]["runs"] == {}


def test_a_loader_that_tells_of_other_descriptors_is_not_believed(
    bench: Callable[[Play], Bench],
) -> None:
    def lies(sock: socket.socket, log: int) -> None:
        received = ipc.receive(sock)
        assert received is not None
        answer = {"id": 1, "ok": True, "maps": ["a"], "programs": 2, "links": [1]}
        ipc.send(sock, answer, [log])

    one = bench(lies)
    one.ask(id=1, probe="one")
    message, fds = one.answer()
    assert (message["ok"], fds) == (False, [])
    assert "1 descriptors are not what it tells of" in message["why"]


def test_there_is_a_limit_to_what_is_attached(
    bench: Callable[[Play], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "MOST_UNITS", 2)
    one = bench(obedient)
    for number in (1, 2, 3):
        one.ask(id=number, probe="one")
        message, fds = one.answer()
        ipc.close_all(fds)
        assert message["ok"] is (number < 3)
    assert "2 groups of programs are attached" in message["why"]


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
    assert len({message["facts"]["by"] for message, _ in answers}) == len(one.loaders)
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
            assert isinstance(received[0], dict)
            ipc.send(sock, {"id": received[0]["id"], "ok": True, "found": []})

    monkeypatch.setattr(searcher, "serve", search)

    def slow(sock: socket.socket, log: int) -> None:
        while os.fstat(log).st_size == 0:
            time.sleep(0.01)
        obedient(sock, log)

    one = bench(slow)
    one.ask(id=1, probe="one")
    one.ask(id=2, op="search", query="malloc")
    assert one.answer()[0]["id"] == 2
    (pid,) = one.loaders
    os.pwrite(loader_of(one).log, b"go", 0)
    message, fds = one.answer()
    ipc.close_all(fds)
    assert message["id"] == 1
    # The loader has nothing more to do, and ends although the searcher goes on.
    end = time.monotonic() + 10
    while one.broker.loader is not None or os.path.exists(f"/proc/{pid}"):
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            raise AssertionError("the loader waits for a socket that the searcher holds")
        time.sleep(0.01)
    assert one.broker.searcher.sockets


def loader_of(one: Bench) -> broker.Loader:
    assert one.broker.loader is not None
    return one.broker.loader


@pytest.mark.parametrize("probe", ["three", "", "one.two:Three"])
def test_unknown_probe_starts_no_loader(bench: Callable[[Play], Bench], probe: str) -> None:
    one = bench(never)
    one.ask(id=9, probe=probe)
    message, fds = one.answer()
    assert (message["id"], message["ok"], fds) == (9, False, [])
    assert repr(probe) in message["why"]
    assert one.loaders == []


WRONG: list[object] = [
    [], "x", 5, None, True, {}, {"op": "load"}, {"id": 1}, {"id": 1, "op": "close"},
    {"id": "1", "op": "runs"}, {"id": -1, "op": "runs"}, {"id": 2**70, "op": "runs"},
    {"id": 1.5, "op": "runs"}, {"id": True, "op": "runs"}, {"id": 1, "op": ["load"]},
    {"id": 1, "op": "load", "probe": ["one"]}, {"id": 1, "op": "load", "probe": {"a": 1}},
    {"id": 1, "op": "load", "probe": None}, {"id": 1, "op": "load", "probe": "x" * 1000},
    {"id": 1, "op": "load", "probe": "one", "params": []},
    {"id": 1, "op": "load", "probe": "one", "path": "os:abort"},
    {"id": 1, "op": "detach"}, {"id": 1, "op": "detach", "unit": "1"},
    {"id": 1, "op": "detach", "unit": 1, "groups": 5},
    {"id": 1, "op": "detach", "unit": 1, "groups": [0] * 2000},
    {"id": 1, "op": "measure"}, {"id": 1, "op": "measure", "on": 1},
    {"id": 1, "op": "search"}, {"id": 1, "op": "search", "query": "x" * 2000},
    {"id": 1, "op": "names", "ids": ["a"] * 300}, {"id": 1, "op": "names", "ids": [["a"]]},
    {"id": 1, "op": "help", "name": 3},
]  # fmt: skip
RAW = [
    b"x", b"{", b"\xff\xfe", b"[" * 100_000, b'{"id":' * 20_000, b"1" * 5000, b"NaN",
    b'{"id":1e999,"op":"runs"}', b"\0" * 100, b'"\\ud800"', b" " * ipc.MAX_BYTES,
    b"{" * (ipc.MAX_BYTES + 1000),
]  # fmt: skip


def assert_answers_wrong_messages(one: Bench) -> None:
    """The last message was answered with why not, and the broker goes on."""
    message, fds = one.answer()
    assert (message["ok"], fds) == (False, [])
    assert "does not understand" in message["why"]
    one.ask(op="runs", id=8)
    assert one.answer()[0] == {"id": 8, "ok": True, "runs": {}}
    assert one.loaders == []


def test_wrong_messages_are_answered_and_change_nothing(bench: Callable[[Play], Bench]) -> None:
    one = bench(never)
    for wrong in WRONG:
        one.sock.send(json.dumps(wrong).encode())
        assert_answers_wrong_messages(one)
    for raw in RAW:
        one.sock.send(raw)
        assert_answers_wrong_messages(one)


@pytest.mark.parametrize("text", ['"' + "\u00e9" * 70_000 + '"', "[" * 900 + "]" * 900])
def test_a_request_that_grows_on_its_way_to_the_loader_is_answered(
    bench: Callable[[Play], Bench], text: str
) -> None:
    """JSON with other characters is longer when it is written again, and deep JSON may fail."""
    one = bench(obedient)
    head = '{"op":"load","id":1,"probe":"one","params":{"targets":'
    one.sock.send((head + text + "}}").encode())
    message, fds = one.answer()
    ipc.close_all(fds)
    assert message["id"] == 1
    one.ask(id=2, probe="two")
    message, fds = one.answer()
    ipc.close_all(fds)
    assert (message["id"], message["ok"]) == (2, True)


@pytest.mark.parametrize("depth", [40, 900, 960, 985])
def test_deep_parameters_reach_no_loader(bench: Callable[[Play], Bench], depth: int) -> None:
    """A loader has less of the interpreter's stack left, and dies with what others asked for."""
    one = bench(obedient)
    head = '{"op":"load","id":1,"probe":"one","params":{"x":'
    one.sock.send((head + "[" * depth + "]" * depth + "}}").encode())
    one.ask(id=2, probe="two", params={"x": [[[1]]]})
    answers = []
    for _ in range(2):
        message, fds = one.answer()
        ipc.close_all(fds)
        answers.append(message)
    assert [(one["id"], one["ok"]) for one in answers] == [(1, False), (2, True)]
    assert "lists within lists" in answers[0]["why"]
    assert len(one.loaders) == 1


def test_three_thousand_descriptors_are_closed_and_answered(
    bench: Callable[[Play], Bench],
) -> None:
    one = bench(never)
    reading, writing = os.pipe()
    for _ in range(12):
        socket.send_fds(one.sock, [ipc.PART], [writing] * 250)
    ipc.send(one.sock, {"id": 1, "op": "runs"}, [writing])
    os.close(writing)
    message, _ = one.answer()
    assert "more than 8 descriptors" in message["why"]
    assert os.read(reading, 1) == b""
    os.close(reading)
    one.ask(op="runs", id=8)
    assert one.answer()[0]["ok"]


def test_the_broker_works_with_descriptors_above_1023(bench: Callable[[Play], Bench]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    filled = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    try:
        one = bench(obedient)
        assert one.broker.sock.fileno() > 1023
        one.ask(id=1, probe="one")
        message, fds = one.answer()
        ipc.close_all(fds)
        assert message["ok"]
        one.ask(op="detach", id=2, unit=message["unit"])
    finally:
        ipc.close_all(filled)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_random_messages_never_end_it(bench: Callable[[Play], Bench]) -> None:
    """Valid messages in which something is replaced, cut or doubled at random."""
    one, chance = bench(obedient), random.Random(4)
    odd: list[Any] = [None, -1, 2**64, 1.5, "", "x" * 500, [], {}, [[]], {"a": {}}, True, "\ud800"]
    for _ in range(inputs()):
        good: Any = copy.deepcopy(chance.choice(WRONG[5:]))
        if isinstance(good, dict) and good:
            good[chance.choice([*good, "op", "id"])] = chance.choice(odd)
        data = bytearray(json.dumps(good).encode())
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        if chance.random() < 0.3 and data:
            data[chance.randrange(len(data))] = chance.randrange(256)
        if data and data != ipc.PART:
            one.sock.send(bytes(data))
        one.ask(op="runs", id=123456)
        answered: object = None
        while answered != 123456:
            message, fds = one.answer()
            answered = message["id"]
            ipc.close_all(fds)


def test_descriptors_from_the_dashboard_are_closed(bench: Callable[[Play], Bench]) -> None:
    one = bench(never)
    read, write = os.pipe()
    one.ask([write], id=1, probe="three")
    os.close(write)
    one.answer()
    assert os.read(read, 1) == b""
    os.close(read)


def test_statistics_are_numbers(
    bench: Callable[[Play], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bpfsys, "enable_stats", lambda: os.memfd_create("stats"))
    one = bench(never)
    for number, on in enumerate((True, True, False, False)):
        one.ask(op="measure", id=number, on=on)
        assert one.answer() == ({"id": number, "ok": True, "runs": {}}, [])
        one.ask(op="runs", id=9)
        one.answer()
        held = [os.readlink(f"/proc/self/fd/{fd}") for fd in open_descriptors()]
        assert any("stats" in name for name in held) is on


def open_descriptors() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            os.fstat(int(name))
            found.append(int(name))
    return found


def test_statistics_may_be_refused(
    bench: Callable[[Play], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(bpfsys, "enable_stats", refuse)
    one = bench(never)
    one.ask(id=3, op="measure", on=True)
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


def test_statistics_come_while_a_loader_is_at_work(bench: Callable[[Play], Bench]) -> None:
    one = bench(hanging)
    one.ask(id=1, probe="one")
    one.ask(id=2, op="runs")
    message, _ = one.answer()
    assert message == {"id": 2, "ok": True, "runs": {}}
    # The fixture ends the broker here: it must not wait for the loader.


@pytest.mark.parametrize("what", ["search", "names"])
def test_a_worker_that_hangs_is_killed_and_said(
    bench: Callable[[Play], Bench], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    worker = {"search": searcher, "names": namer}[what]
    monkeypatch.setattr(worker, "serve", lambda sock: hanging(sock, 1))
    monkeypatch.setattr(searcher, "ANSWER_SECONDS", 0.3)
    one = bench(never)
    one.ask(op=what, id=1, **({"query": "x"} if what == "search" else {"ids": ["a"]}))
    message, _ = one.answer()
    assert (message["id"], message["ok"]) == (1, False)
    assert "took more than 0.3 seconds" in message["why"]


@pytest.mark.parametrize("stops", [False, True])
def test_a_broker_that_is_told_to_end_ends_with_its_children(
    bench: Callable[[Play], Bench], monkeypatch: pytest.MonkeyPatch, stops: bool
) -> None:
    """Workers that do not listen, and a loader that hangs, or that is stopped."""
    monkeypatch.setattr(searcher, "serve", lambda sock: hanging(sock, 1))
    one = bench(hanging)
    one.ask(op="search", id=1, query="x")
    one.ask(id=2, probe="one")
    last = time.monotonic() + 20
    while not (one.loaders and one.broker.searcher._child) and time.monotonic() < last:
        time.sleep(0.01)
    assert one.broker.searcher._child is not None
    pids = [*one.loaders, one.broker.searcher._child.pid]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP if stops else 0)
    one.sock.shutdown(socket.SHUT_RDWR)
    one._thread.join(20)
    assert not one._thread.is_alive()
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


def test_messages_too_big_are_refused_by_the_sender() -> None:
    ours, theirs = ipc.pair()
    with pytest.raises(ValueError, match="message of"):
        ipc.send(ours, {"text": "x" * ipc.MAX_BYTES})
    assert ipc.send(ours, {"text": "x" * (ipc.MAX_BYTES - 20)})
    received = ipc.receive(theirs)
    assert received is not None
    assert isinstance(received[0], dict)
    assert len(received[0]["text"]) == ipc.MAX_BYTES - 20
    theirs.close()
    assert ipc.send(ours, {}) is False
    assert ipc.receive(ours) is None
    ours.close()
