# SPDX-License-Identifier: Apache-2.0
"""Hostile requests, commands and answers: each is answered, and nothing ever ends by one."""

from __future__ import annotations

import contextlib
import json
import random
import socket
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from probes.broker.client import connected
from probes.core.errors import ProbeError
from probes.live.source import LiveSource
from probes.remote import answers
from probes.source import Found
from tests import fuzzing
from tests.unit.agent import OWN, Served
from tui.agent.http.operations import OPERATIONS
from tui.agent.http.schemas import FilterRequest, Interval, ProbeRequest, RunRequest, TargetRequest
from tui.commands import frame_commands
from tui.registry import REGISTRY
from tui.settings.decoding import strict_json, typed

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 5, 1.0, 0.5, -0.0, 2**31, 2**32, 2**63, -(2**63), 2**64, 10**300,
    1e308, -1e308, "", "a", "\0", "\x1b[31m", "\u202e", "\ue000", "runq", "../../x", "-1", "nan",
    "a" * 501, "uprobe:/proc/self/mem:x", "uprobe:libc:malloc+4", "t:a:b@str(arg0)", "*" * 300,
    [], [[]], [None], ["runq", 5], ["runq"] * 65, [["runq"]], {}, {"": ""}, {"targets": 5},
    {"pid": {}}, [{}] * 20,
)  # fmt: skip
RAW: tuple[bytes, ...] = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"1" * 5000, b'"\\ud800"',
    b'"\\udfff\\ud800"', b'"\xff"', b"[" * 3000, b'{"a":' * 3000, b"[" * 3000 + b"]" * 3000,
    b'{"on": true, "on": 5}', b"\xef\xbb\xbf{}", b"nul", b'"', b"01", b"1.", b"{} {}", b"",
)  # fmt: skip
BODIES: tuple[tuple[Any, str, str, Any], ...] = (
    (ProbeRequest, "PUT", "/v1/probes/latency", {"on": True, "options": {"targets": ["runq"]}}),
    (ProbeRequest, "PUT", "/v1/probes/syscalls", {"options": {"latency": True, "sample_every": 4}}),
    (ProbeRequest, "PUT", "/v1/probes/pmc", {"options": {"set": "base", "mode": "all"}}),
    (ProbeRequest, "PUT", "/v1/probes/pmc", {"options": {"events": ["cycles"]}}),
    (ProbeRequest, "PUT", "/v1/probes/execs", {"on": False, "options": {"args": False}}),
    (TargetRequest, "POST", "/v1/latency/targets", {"spec": "uprobe:libc:malloc"}),
    (FilterRequest, "PUT", "/v1/filters", {"pid": 1, "comm": "a", "uid": 0, "cgroup": "/"}),
    (FilterRequest, "PUT", "/v1/filters", {"user": "root"}),
    (Interval, "PUT", "/v1/interval", {"seconds": 1.5}),
    (
        RunRequest,
        "POST",
        "/v1/runs",
        {"seconds": 1, "probes": ["syscalls"], "targets": ["irq"], "filters": {"pid": 1}},
    ),
)
COMMANDS: tuple[Any, ...] = (
    {"op": "alive", "id": 0},
    {"op": "seen", "id": 0, "frames": 3},
    {"op": "search", "id": 1, "query": "malloc"},
    {"op": "toggle", "id": 2, "probe": "pmc", "on": True},
    {"op": "filters", "id": 3, "filters": {"pid": 1, "comm": "a", "uid": None, "cgroup": "/"}},
    {"op": "interval", "id": 4, "seconds": 2},
    *(
        {"op": "option", "id": 5, "probe": probe, "option": option, "value": value}
        for probe, option, value in (
            ("latency", "targets", ["runq", "irq"]),
            ("latency", "add", "func:vfs_read"),
            ("latency", "remove", "runq"),
            ("syscalls", "latency", True),
            ("syscalls", "sample_every", 16),
            ("pmc", "set", "cache"),
            ("pmc", "mode", "user"),
            ("pmc", "events", ["page-faults"]),
            ("execs", "args", False),
        )
    ),
)
ROW = {"spec": "uprobe:libc:malloc", "mechanism": "uprobe", "note": "", "cost": 1.5}
RESPONSES: tuple[Any, ...] = ({"found": [ROW, ROW]}, {"why": "no", "fix": "yes"})
MESSAGES: tuple[Any, ...] = (
    {"id": 1, "ok": True, "found": [["a", "uprobe", "", 1.5], ["b", "", "", None]]},
    {"id": 1, "ok": False, "why": "no", "fix": "yes"},
    {"hello": {"protocol": 1, "version": "0"}},
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a value with each of its keys."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            found += [(value, key), *places(value[key])]
    return found


def mutated(dice: random.Random, template: Any) -> bytes:
    """A template as JSON, changed in one or several ways."""
    value = json.loads(json.dumps(template))
    for _ in range(dice.choice((0, 1, 1, 2, 4))):
        found = places(value)
        if not found:
            break
        container, key = dice.choice(found)
        way = dice.randrange(4)
        if way == 0 and isinstance(container, dict):
            container[dice.choice(("x", "options", "id", "op", "\x1b", ""))] = deepcopy(
                dice.choice(HOSTILE)
            )
        elif way == 1 and isinstance(container, dict):
            del container[key]
        else:
            container[key] = deepcopy(dice.choice(HOSTILE))
    text = json.dumps(value, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
    way = dice.randrange(6)
    if way == 0:
        at = dice.randrange(len(text) + 1)
        return text[:at] + dice.choice(RAW) + text[at + dice.randrange(3) :]
    if way == 1:
        data = bytearray(text)
        for _ in range(dice.randrange(1, 4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        return bytes(data)
    return dice.choice(RAW) if way == 2 and dice.random() < 0.3 else text


@pytest.mark.parametrize("seed", range(4))
def test_bodies_are_decoded_or_refused(seed: int) -> None:
    dice = random.Random(seed)
    taken, reasons = 0, list[str]()
    for _ in range(fuzzing.inputs() // 4):
        kind, _, _, template = dice.choice(BODIES)
        try:
            body = typed(strict_json(mutated(dice, template)), kind, "the body")
            taken += 1
            if isinstance(body, FilterRequest):
                body.checked()
        except ProbeError as error:
            reasons.append(error.why)
    assert all(why.isprintable() and len(why) < 400 for why in reasons)
    assert taken > fuzzing.inputs() // 40


def test_the_agent_answers_every_body() -> None:
    dice, statuses = random.Random(7), set[int]()
    with Served() as served:
        for _ in range(fuzzing.inputs() // 10):
            _, method, path, template = dice.choice(BODIES)
            data = mutated(dice, template)
            if path == "/v1/runs" and served.agent.runs.running():
                for run in served.get("/v1/runs").json()["runs"]:
                    served.ask("DELETE", f"/v1/runs/{run['id']}")
            served.source.traced = {"runq": served.source.traced.get("runq")}  # type: ignore[dict-item]
            served.source.traced = {k: v for k, v in served.source.traced.items() if v}
            answer = served.ask(method, path, data, Content_Type="application/json")
            assert answer.status < 500, (method, path, data, answer.body)
            statuses.add(answer.status)
        assert served.get("/healthz").status == 200
    assert {200, 400, 422} <= statuses


PATHS = (
    *dict.fromkeys(one.path.format(name="latency", id="x") for one in OPERATIONS),
    "/v1/latency/targets?spec=uprobe:libc:malloc",
    "/v1/search?q=malloc",
    "/v1/snapshot.json?seconds=5",
)
WORDS = (
    b"\0", b"\xff", b"%00", b"%ff", b"%f0%9f%98%80", b"%ed%a0%80", b"%", b"%zz", b"?", b"&", b"=",
    b"#", b"//", b"/../", b";", b" ", b"\t", b"\r\n", b"\r\n\r\n", b"HTTP/1.1", b"a" * 3000, b":",
    b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Content-Length: -1\r\n",
    b"Host: localhost\r\n", b"Authorization: Bearer \xe9\r\n", b"Authorization: Basic\r\n",
    b"Origin: \xff\r\n", b"Accept: \xff, */*;q=nan\r\n", b"Connection: upgrade\r\nUpgrade: x\r\n",
    b"Expect: 100-continue\r\n", b"seconds=1e999", b"seconds=nan", b"spec=uprobe:a:0x1",
)  # fmt: skip


def test_the_agent_answers_every_head() -> None:
    """Also addresses and headers that no client would send; streams are cut off."""
    dice, seen = random.Random(19), set[bytes]()
    with Served() as served:
        for number in range(fuzzing.inputs() // 10):
            method = dice.choice(("GET", "GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS"))
            body = b"{}" if method in ("PUT", "POST") else b""
            head = f"{method} {dice.choice(PATHS)} HTTP/1.1\r\nHost: localhost\r\n".encode()
            head += f"Authorization: Bearer {OWN}\r\nConnection: close\r\n".encode()
            head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            data = bytearray(head + body)
            for _ in range(dice.randrange(4)):
                at = dice.randrange(len(data))
                data[at : at + dice.randrange(3)] = dice.choice(WORDS)
            with served.connect() as sock:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionError):
                    status = sock.recv(12)
                    seen.add(status[9:10])
                    # The page is made by somebody who is not there.
                    assert not status.startswith(b"HTTP/1.1 500"), bytes(data)
            if number % 100 == 0:
                assert served.get("/healthz").status == 200
    assert {b"2", b"4"} <= seen


@pytest.fixture
def live() -> Iterator[LiveSource]:
    """The source of this machine with real probes, none of them on: it has no broker."""
    ours, theirs = connected()
    probes = {entry.name: entry.probe_class()() for entry in REGISTRY}
    source = LiveSource(ours, probes, interval=1.0)
    yield source
    source._close()
    theirs.close()


def test_commands_of_a_link_are_carried_out_or_refused(live: LiveSource) -> None:
    """Also what the poller does with them later: an exception there would end polling."""
    dice, done, refused = random.Random(11), set[str](), list[ProbeError]()
    for _ in range(fuzzing.inputs()):
        line = mutated(dice, dice.choice(COMMANDS))
        try:
            _, command = frame_commands.decode(line)
            if isinstance(command, frame_commands.Toggle):
                done.add("toggle")  # it would ask the broker
            elif isinstance(command, frame_commands.Change):
                command.carry_out(live)
                done.add(type(command).__name__)
            live.begin()
        except ProbeError as error:
            refused.append(error)
        for probe in live._slots.values():
            probe.probe.params()
    assert all(answers.line(error.why).isprintable() for error in refused)
    numbers = {e.number for e in refused if isinstance(e, frame_commands.NotACommand)}
    assert all(type(number) is int or number is None for number in numbers)
    assert done == {"toggle", "SetOption", "SetFilters", "SetInterval"}


def test_answers_of_a_link_are_taken_or_dropped() -> None:
    dice, kinds = random.Random(13), set[str]()
    for _ in range(fuzzing.inputs()):
        data = mutated(dice, dice.choice((*RESPONSES, *MESSAGES)))
        try:
            found = answers.search_response(data)
            kinds.add("found")
        except ProbeError:
            found = []
        said = answers.error_response(data)
        if said is not None:
            kinds.add("error")
            assert all(text.isprintable() for text in said)
        try:
            # As messages are parsed, which takes more than JSON has.
            value = json.loads(data)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            answers.protocol_of(value.get("hello"))
            answer = answers.answer_of(value)
            if answer is not None:
                kinds.add("answer")
                found += answers.found_of(answer.found)
        for one in found:
            assert isinstance(one, Found)
            assert one.cost is None or abs(one.cost) < float("inf")
            one.spec.encode("utf-8", "surrogatepass")
    assert kinds == {"found", "error", "answer"}
