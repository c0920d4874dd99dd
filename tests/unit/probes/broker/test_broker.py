# SPDX-License-Identifier: Apache-2.0
"""The broker's request loop, with loaders that the test plays in processes of their own."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from probes.bpf import bpf_syscall, map_memory
from probes.broker import runtime_worker, search_worker, units
from probes.broker import server as broker
from probes.ipc import child_process, cpu_pace, packets
from tests.unit.broker_bench import (
    Bench,
    Play,
    hanging,
    never,
    obedient,
    open_descriptors,
    silent,
)


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


@pytest.mark.parametrize("asked", [{"args": True, "more": 1}, {"more": 1}, {"args": 1, "more": 1}])
def test_fixed_parameters_hold_whatever_is_asked_for(
    bench: Callable[[Play], Bench], asked: dict[str, Any]
) -> None:
    one = bench(obedient)
    one.ask(id=5, probe="fixed", params=asked)
    message, fds = one.answer()
    packets.close_all(fds)
    assert message["facts"]["was"]["params"] == {"args": False, "more": 1}


def names_of(fds: Iterable[int]) -> list[str]:
    return [os.readlink(f"/proc/self/fd/{fd}").split(":")[1].split()[0] for fd in fds]


def test_programs_and_links_stay_with_the_broker(bench: Callable[[Play], Bench]) -> None:
    one = bench(obedient)
    one.ask(id=1, probe="one")
    message, fds = one.answer()
    assert names_of(fds) == ["map"]
    packets.close_all(fds)
    unit = one.broker.units._units[message["unit"]]
    assert names_of(unit.programs) == ["program"]
    assert names_of(unit.held) == ["held"]
    assert [link.group for link in unit.links] == [7, None]
    one.ask(op="detach", id=2, unit=message["unit"], groups=[7, 8])
    one.ask(op="detach", id=2, unit=message["unit"] + 1)
    one.ask(op="runs", id=3)
    assert one.answer()[0] == {"id": 3, "ok": True, "runs": {str(message["unit"]): [0, 0, 0]}}
    assert [link.group for link in unit.links] == [None]
    one.ask(op="detach", id=4, unit=message["unit"])
    one.ask(op="runs", id=5)
    assert one.answer()[0]["runs"] == {}


def test_a_loader_that_tells_of_other_descriptors_is_not_believed(
    bench: Callable[[Play], Bench],
) -> None:
    def lies(sock: socket.socket, log: int) -> None:
        received = packets.receive(sock)
        assert received is not None
        answer = {"id": 1, "ok": True, "maps": ["a"], "programs": 2, "links": [1]}
        packets.send(sock, answer, [log])

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
        packets.close_all(fds)
        assert message["ok"] is (number < 3)
    assert "2 groups of programs are attached" in message["why"]


def test_a_load_for_whose_maps_there_is_no_room_is_refused_and_detached(
    bench: Callable[[Play], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    def large(sock: socket.socket, log: int) -> None:
        """Answers with a map of 3 MiB that no kernel has, and a program."""
        while (received := packets.receive(sock)) is not None:
            request: Any = received[0]
            number, fds = request["id"], [os.memfd_create(name) for name in ("map", "program")]
            answer = {"id": number, "ok": True, "maps": ["m"], "programs": 1}
            packets.send(sock, {**answer, "memory": [[number, 3 << 20]]}, fds)
            packets.close_all(fds)

    held_by_others = {1}
    monkeypatch.setattr(map_memory, "most", lambda: 5 << 20)
    monkeypatch.setattr(bpf_syscall, "map_exists", lambda number: number in held_by_others)
    one = bench(large)

    def load(number: int) -> dict[str, Any]:
        one.ask(id=number, probe="one")
        message, fds = one.answer()
        packets.close_all(fds)
        assert len(fds) == message["ok"]
        assert "memory" not in message
        return message

    assert load(1)["ok"]
    refused = load(2)
    assert refused["why"].endswith("would take 6 MiB of the kernel's memory, and 5 MiB is the most")
    assert list(one.broker.units._units) == [1]
    one.ask(op="detach", id=3, unit=1)
    assert not load(4)["ok"], "the maps of the first are held still"
    held_by_others.clear()
    assert load(5)["ok"]


def test_a_batch_is_one_loaders_work_in_order(bench: Callable[[Play], Bench]) -> None:
    one = bench(obedient)
    names = [f"probe{number}" for number in range(6)]
    one.broker.paths |= dict.fromkeys(names, "nowhere:Nothing")
    for number, name in enumerate(names):
        one.ask(id=number, probe=name)
    answers = [one.answer() for _ in names]
    for _, fds in answers:
        packets.close_all(fds)
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
        packets.close_all(fds)
        answered.append(message["id"])
    # What was under way is finished; what waited behind it is not begun.
    assert answered == sorted(set(answered))


def test_a_search_that_began_meanwhile_keeps_no_loader_alive(
    bench: Callable[[Play], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    def search(sock: socket.socket) -> None:
        while (received := packets.receive(sock)) is not None:
            assert isinstance(received[0], dict)
            packets.send(sock, {"id": received[0]["id"], "ok": True, "found": []})

    monkeypatch.setattr(search_worker, "serve", search)

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
    packets.close_all(fds)
    assert message["id"] == 1
    # The loader has nothing more to do, and ends although the searcher goes on.
    end = time.monotonic() + 10
    while one.broker.loader is not None or os.path.exists(f"/proc/{pid}"):
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            raise AssertionError("the loader waits for a socket that the searcher holds")
        time.sleep(0.01)
    assert one.broker.searcher.sources


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


def test_the_broker_works_with_descriptors_above_1023(bench: Callable[[Play], Bench]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    filled = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    try:
        one = bench(obedient)
        assert one.broker.sock.fileno() > 1023
        one.ask(id=1, probe="one")
        message, fds = one.answer()
        packets.close_all(fds)
        assert message["ok"]
        one.ask(op="detach", id=2, unit=message["unit"])
    finally:
        packets.close_all(filled)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_statistics_are_numbers(
    bench: Callable[[Play], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bpf_syscall, "enable_stats", lambda: os.memfd_create("stats"))
    one = bench(never)
    for number, on in enumerate((True, True, False, False)):
        one.ask(op="measure", id=number, on=on)
        assert one.answer() == ({"id": number, "ok": True, "runs": {}}, [])
        one.ask(op="runs", id=9)
        one.answer()
        held = [os.readlink(f"/proc/self/fd/{fd}") for fd in open_descriptors()]
        assert any("stats" in name for name in held) is on


def test_statistics_may_be_refused(
    bench: Callable[[Play], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(bpf_syscall, "enable_stats", refuse)
    one = bench(never)
    one.ask(id=3, op="measure", on=True)
    message, fds = one.answer()
    assert (message["ok"], fds) == (False, [])
    assert "Operation not permitted" in message["why"]


def suicidal(sock: socket.socket, log: int) -> None:
    silent(sock, log)
    os.kill(os.getpid(), signal.SIGSEGV)


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


def starved(sock: socket.socket, log: int) -> None:
    """Needs little of a CPU that somebody else has."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.setpriority(os.PRIO_PROCESS, 0, 15)
    received = packets.receive(sock)
    assert received is not None
    while time.process_time() < STARVED:
        pass


STARVED = 0.3


def test_a_loader_that_waits_for_a_cpu_has_more_time(
    bench: Callable[[Play], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A thirtieth of a CPU, as the hog leaves it, makes the work last longer than this.
    monkeypatch.setattr(broker, "LOADER_TIMEOUT", 3.0)
    monkeypatch.setattr(broker, "MOST_WAITED", 60.0)
    hog = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        os.sched_setaffinity(hog.pid, {min(os.sched_getaffinity(0))})
        one = bench(starved)
        one.sock.settimeout(100)
        one.ask(id=1, probe="one")
        message, _ = one.answer()
    finally:
        hog.kill()
        hog.wait()
    assert message["why"] == "the loader ended without an answer"


def test_waiting_for_a_cpu_puts_a_loaders_end_off_by_so_much_only(
    bench: Callable[[Play], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "LOADER_TIMEOUT", 0.3)
    monkeypatch.setattr(broker, "MOST_WAITED", 0.1)
    monkeypatch.setattr(broker, "waited_for_cpu", lambda pid: time.monotonic())
    one = bench(hanging)
    one.ask(id=1, probe="one")
    message, _ = one.answer()
    assert message["why"] == "the loader did not answer within 0.3 seconds"


def test_statistics_come_while_a_loader_is_at_work(bench: Callable[[Play], Bench]) -> None:
    one = bench(hanging)
    one.ask(id=1, probe="one")
    one.ask(id=2, op="runs")
    message, _ = one.answer()
    assert message == {"id": 2, "ok": True, "runs": {}}


@pytest.mark.parametrize("what", ["search", "names"])
def test_a_worker_that_hangs_is_killed_and_said(
    bench: Callable[[Play], Bench], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    worker = {"search": search_worker, "names": runtime_worker}[what]
    monkeypatch.setattr(worker, "serve", lambda sock: hanging(sock, 1))
    monkeypatch.setattr(search_worker, "ANSWER_SECONDS", 0.3)
    one = bench(never)
    one.ask(op=what, id=1, **({"query": "x"} if what == "search" else {"ids": ["a"]}))
    message, _ = one.answer()
    assert (message["id"], message["ok"]) == (1, False)
    assert "took more than 0.3 seconds" in message["why"]


def answers(sock: socket.socket) -> None:
    """A worker that knows nothing, at once."""
    while (received := packets.receive(sock)) is not None:
        message: Any = received[0]
        packets.send(sock, {"id": message["id"], "ok": True, "found": []})


def test_requests_wait_that_take_too_much_and_no_others(
    bench: Callable[[Play], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_worker, "serve", answers)
    one = bench(obedient)
    debts = [one.broker.pace, one.broker.searcher.kind.pace]
    for at, first in enumerate(
        ({"id": 1, "probe": "one"}, {"id": 1, "op": "search", "query": "x"})
    ):
        debts[at].charge(cpu_pace.BURST + 1000)
        other = {"id": 2, "probe": "one"} if at else {"id": 2, "op": "search", "query": "x"}
        one.ask(**first)
        one.ask(**other)
        message, fds = one.answer()
        packets.close_all(fds)
        assert (message["id"], message["ok"]) == (2, True)
        debts[at].charge(-cpu_pace.BURST - 1000)
        # It wakes up for this, and not in an hour.
        one.ask(id=3, op="runs")
        found = [one.answer() for _ in range(2)]
        assert sorted(message["id"] for message, _ in found) == [1, 3]
        for message, fds in found:
            packets.close_all(fds)
            assert message["ok"]


def test_a_request_that_waits_has_its_turn_by_itself(
    bench: Callable[[Play], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_worker, "serve", answers)
    one = bench(obedient)
    for paced in (one.broker.pace, one.broker.searcher.kind.pace):
        paced.charge(cpu_pace.BURST + 0.1)
    one.ask(id=1, probe="one")
    one.ask(id=2, op="search", query="x")
    found = [one.answer() for _ in range(2)]
    assert sorted((message["id"], message["ok"]) for message, _ in found) == [(1, True), (2, True)]
    for _, fds in found:
        packets.close_all(fds)


class Stuck:
    """A child that was killed while a file system held it."""

    def __init__(self, kind: child_process.Kind) -> None:
        self.kind = kind

    def _reap(self, seconds: float) -> None:
        lingering: list[Any] = child_process.Child._lingering
        lingering.append(self)


def test_loaders_that_cannot_be_ended_hold_up_their_own_probe(
    bench: Callable[[Play], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_worker, "serve", answers)
    one = bench(obedient)
    one.ask(id=1, probe="one")
    packets.close_all(one.answer()[1])
    stuck = Stuck(one.broker.kinds["one"])
    for _ in range(child_process.MOST_LINGERING):
        stuck._reap(0)
    try:
        for ask, ok in (
            ({"probe": "one"}, False),
            ({"probe": "two"}, True),
            ({"op": "search", "query": "x"}, True),
        ):
            one.ask(id=2, **ask)
            message, fds = one.answer()
            packets.close_all(fds)
            assert message["ok"] == ok, message
    finally:
        stuck.kind = child_process.Kind()
        lingering: list[Any] = child_process.Child._lingering
        while stuck in lingering:
            lingering.remove(stuck)


@pytest.mark.parametrize("stops", [False, True])
def test_a_broker_that_is_told_to_end_ends_with_its_children(
    bench: Callable[[Play], Bench], monkeypatch: pytest.MonkeyPatch, stops: bool
) -> None:
    """Workers that do not listen, and a loader that hangs, or that is stopped."""
    monkeypatch.setattr(search_worker, "serve", lambda sock: hanging(sock, 1))
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
