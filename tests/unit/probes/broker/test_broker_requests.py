# SPDX-License-Identifier: Apache-2.0
"""What the dashboard may send to the broker, and that the broker waits for it in nothing."""

from __future__ import annotations

import copy
import json
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from probes.broker import server as broker
from probes.broker.client import connected
from probes.ipc import outbox, packets
from tests.fuzzing import inputs
from tests.unit.broker_bench import Bench, Play, hanging, never, obedient

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
    b'{"id":1e999,"op":"runs"}', b"\0" * 100, b'"\\ud800"', b" " * packets.MAX_BYTES,
    b"{" * (packets.MAX_BYTES + 1000),
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
        one.write(json.dumps(wrong).encode())
        assert_answers_wrong_messages(one)
    for raw in RAW:
        one.write(raw)
        assert_answers_wrong_messages(one)


@pytest.mark.parametrize("text", ['"' + "\u00e9" * 70_000 + '"', "[" * 900 + "]" * 900])
def test_a_request_that_grows_on_its_way_to_the_loader_is_answered(
    bench: Callable[[Play], Bench], text: str
) -> None:
    """JSON with other characters is longer when it is written again, and deep JSON may fail."""
    one = bench(obedient)
    head = '{"op":"load","id":1,"probe":"one","params":{"targets":'
    one.write((head + text + "}}").encode())
    message, fds = one.answer()
    packets.close_all(fds)
    assert message["id"] == 1
    one.ask(id=2, probe="two")
    message, fds = one.answer()
    packets.close_all(fds)
    assert (message["id"], message["ok"]) == (2, True)


@pytest.mark.parametrize("depth", [40, 900, 960, 985])
def test_deep_parameters_reach_no_loader(bench: Callable[[Play], Bench], depth: int) -> None:
    """A loader has less of the interpreter's stack left, and dies with what others asked for."""
    one = bench(obedient)
    head = '{"op":"load","id":1,"probe":"one","params":{"x":'
    one.write((head + "[" * depth + "]" * depth + "}}").encode())
    one.ask(id=2, probe="two", params={"x": [[[1]]]})
    answers = []
    for _ in range(2):
        message, fds = one.answer()
        packets.close_all(fds)
        answers.append(message)
    assert [(one["id"], one["ok"]) for one in answers] == [(1, False), (2, True)]
    assert "lists within lists" in answers[0]["why"]
    assert len(one.loaders) == 1


def test_the_dashboard_can_send_no_descriptors(bench: Callable[[Play], Bench]) -> None:
    one = bench(never)
    reading, writing = os.pipe()
    for data in (packets.PART, b'{"id":1,"op":"runs"}', b""):
        with pytest.raises(BrokenPipeError):
            socket.send_fds(one.sock, [data], [writing] * 3)
    os.close(writing)
    assert os.read(reading, 1) == b""
    os.close(reading)
    one.ask(op="runs", id=8)
    assert one.answer()[0]["ok"]


def test_half_a_message_keeps_nobody_waiting(
    bench: Callable[[Play], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "LOADER_TIMEOUT", 0.3)
    one = bench(hanging)
    one.ask(id=1, probe="one")
    os.write(one.link.requests, b'{"id":2,')
    message, _ = one.answer()
    assert (message["id"], message["why"]) == (1, "the loader did not answer within 0.3 seconds")
    os.write(one.link.requests, b'"op":"runs"}\n{"id":3,"op":"runs"}\n')
    assert [one.answer()[0]["id"] for _ in range(2)] == [2, 3]
    os.write(one.link.requests, b'{"id":4')


def test_requests_that_come_at_once_are_all_answered(bench: Callable[[Play], Bench]) -> None:
    one = bench(never)
    os.write(one.link.requests, b"".join(b'{"id":%d,"op":"runs"}\n' % n for n in range(100)))
    assert [one.answer()[0]["id"] for _ in range(100)] == list(range(100))


def test_a_pipe_that_closes_ends_the_broker(bench: Callable[[Play], Bench]) -> None:
    one = bench(never)
    os.close(one.link.requests)
    one.link.requests = -1
    one._thread.join(20)
    assert not one._thread.is_alive()


def test_answers_that_are_not_read_keep_nobody_waiting(
    bench: Callable[[Play], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are queued; the loader's time goes on meanwhile, and all comes in order later."""
    monkeypatch.setattr(broker, "LOADER_TIMEOUT", 0.3)
    one = bench(hanging)
    one.ask(id=1, probe="one")
    for number in range(2, 902):
        one.ask(op="search", id=number, query="x" * 2000)
    last = time.monotonic() + 20
    while one.broker.loader is not None and time.monotonic() < last:
        time.sleep(0.01)
    assert one.broker.loader is None
    assert one.broker.outbox.waiting
    ids = [one.answer()[0]["id"] for _ in range(901)]
    assert sorted(ids) == list(range(1, 902))


def test_a_dashboard_that_reads_nothing_cannot_fill_the_broker(
    bench: Callable[[Play], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[BaseException] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: ended.append(args.exc_value))
    one = bench(obedient)
    one.ask(id=1, probe="one")
    asked = 1
    with suppress(OSError, AssertionError):
        os.set_blocking(one.link.requests, False)
        while asked < 100_000 and one._thread.is_alive():
            asked += 1
            with suppress(BlockingIOError):
                one.ask(op="runs", id=asked)
    one._thread.join(20)
    assert not one._thread.is_alive()
    assert isinstance(ended[0], outbox.UnreadError)
    assert asked < 100_000


def test_the_reason_of_the_end_comes_as_soon_as_there_is_room() -> None:
    link, end = connected()
    box = outbox.Outbox(end.answers)
    file = os.memfd_create("x")

    def fill() -> None:
        while True:
            box.put({"text": "x" * 10_000}, [os.dup(file)])

    with pytest.raises(outbox.UnreadError):
        fill()

    def read_some() -> None:
        for _ in range(9):
            received = packets.receive(link.answers)
            assert received is not None
            packets.close_all(received[1])

    reader = threading.Timer(0.05, read_some)
    reader.start()
    box.last({"id": None, "ok": False, "why": "the end"})
    reader.join()
    end.answers.close()
    whys = []
    while (received := packets.receive(link.answers)) is not None:
        message: Any = received[0]
        packets.close_all(received[1])
        whys.append(message.get("why"))
    assert whys[-1] == "the end"
    end.requests.close()
    link.close()
    os.close(file)


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
        one.write(bytes(data))
        one.ask(op="runs", id=123456)
        answered: object = None
        while answered != 123456:
            message, fds = one.answer()
            answered = message["id"]
            packets.close_all(fds)


def test_messages_too_big_are_refused_by_the_sender() -> None:
    ours, theirs = packets.pair()
    with pytest.raises(ValueError, match="message of"):
        packets.send(ours, {"text": "x" * packets.MAX_BYTES})
    assert packets.send(ours, {"text": "x" * (packets.MAX_BYTES - 20)})
    received = packets.receive(theirs)
    assert received is not None
    assert isinstance(received[0], dict)
    assert len(received[0]["text"]) == packets.MAX_BYTES - 20
    theirs.close()
    assert packets.send(ours, {}) is False
    assert packets.receive(ours) is None
    ours.close()
