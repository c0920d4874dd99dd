# SPDX-License-Identifier: Apache-2.0
"""The link by HTTP: requests that stand for commands, and answers that may be anything."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http.client import HTTPException
from typing import Any

import pytest

from probes.core.errors import ProbeError
from probes.core.frame import Filters, Frame
from probes.recording.framing import Decoder, Encoder
from probes.remote import http as agent_link
from probes.remote.answers import NONSENSE
from probes.remote.http import FRAMES, Address, HttpTransport, Watchdog, request
from tests.unit.probes.recording.test_recording import make_frames


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        (
            {"op": "toggle", "probe": "pmc", "on": False},
            ("PUT", "/v1/probes/pmc", {"on": False}),
        ),
        (
            {"op": "option", "probe": "latency", "option": "add", "value": "u:a&b c"},
            ("POST", "/v1/latency/targets", {"spec": "u:a&b c"}),
        ),
        (
            {"op": "option", "probe": "latency", "option": "follow", "value": "u:a&b c"},
            ("POST", "/v1/latency/targets", {"spec": "u:a&b c", "follow": True}),
        ),
        (
            {"op": "option", "probe": "latency", "option": "remove", "value": "u:a&b c"},
            ("DELETE", "/v1/latency/targets?spec=u%3Aa%26b+c", None),
        ),
        (
            {"op": "option", "probe": "pmc", "option": "events", "value": ("cycles",)},
            ("PUT", "/v1/probes/pmc", {"options": {"events": ["cycles"]}}),
        ),
        (
            {"op": "filters", "filters": Filters(pid=7)._asdict()},
            ("PUT", "/v1/filters", {"pid": 7, "comm": None, "uid": None, "cgroup": None}),
        ),
        ({"op": "interval", "seconds": 2.0}, ("PUT", "/v1/interval", {"seconds": 2.0})),
        ({"op": "search", "query": "a b/?"}, ("GET", "/v1/search?q=a+b%2F%3F", None)),
        ({"op": "toggle", "probe": "../x", "on": True}, ("PUT", "/v1/probes/..%2Fx", {"on": True})),
    ],
)
def test_commands_as_requests(command: Mapping[str, Any], asked: tuple[str, str, Any]) -> None:
    assert request(command) == asked


class Handler(http.server.BaseHTTPRequestHandler):
    """Sends Frames, and answers as the path says."""

    protocol_version = "HTTP/1.1"
    frames: tuple[Frame, ...] = tuple(make_frames(3))
    seen: list[tuple[str, str, str | None]] = []  # noqa: RUF012
    kind = FRAMES
    hold = threading.Event()

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.seen.append(("GET", self.path, self.headers.get("Authorization")))
        if self.path != "/v1/frames":
            self.reply(
                200, {"found": [{"spec": "a", "mechanism": "uprobe", "note": "", "cost": 1}]}
            )
            return
        self.send_response(200)
        self.send_header("Content-Type", self.kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        encoder = Encoder()
        for data in [encoder.frame(frame) for frame in self.frames]:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.hold.wait(10)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/nonsense"):
            self.reply(500, None)
        elif self.path.endswith("/pmc"):
            self.reply(200, {})
        else:
            self.reply(404, {"why": "there is no\x1b probe", "fix": "choose another"})

    def reply(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode() if value is not None else b"<html>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    Handler.seen, Handler.kind = [], FRAMES
    Handler.hold.clear()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    Handler.hold.set()
    made.shutdown()
    made.server_close()


def transport(server: http.server.HTTPServer, token: str | None = None) -> HttpTransport:
    port = server.server_address[1]
    return HttpTransport("http://far", Address("127.0.0.1", port), token)


def wait_for(answers: list[Any], count: int) -> None:
    end = time.monotonic() + 10
    while len(answers) < count:
        assert time.monotonic() < end, answers
        time.sleep(0.01)


def test_frames_and_answers(server: http.server.ThreadingHTTPServer) -> None:
    answers: list[Mapping[str, Any]] = []
    connection = transport(server, "secret").connect(answers.append, ask=True)
    decoder = Decoder()
    got: list[Any] = []
    while len(got) < 3:
        got += list(decoder.feed(connection.receive(10)))
    assert got == list(Handler.frames)
    for number, probe in enumerate(("pmc", "nothing", "nonsense")):
        connection.send({"id": number, "op": "toggle", "probe": probe, "on": True})
    connection.send({"id": 3, "op": "search", "query": "a"})
    wait_for(answers, 4)
    assert answers[0] == {"id": 0, "ok": True}
    assert answers[1]["why"] == "http://far: there is no? probe"
    assert answers[1]["fix"] == "choose another"
    assert answers[2]["why"] == "http://far: it answers 500"
    assert answers[3]["found"] == [["a", "uprobe", "", 1]]
    assert {seen[2] for seen in Handler.seen} == {"Bearer secret"}
    connection.close()


MALFORMED: tuple[bytes, ...] = (
    b"",
    b"[]",
    b"7",
    b"{}",
    b"null",
    b'{"found": 5}',
    b'{"found": [5]}',
    b'{"found": [{"spec": 1, "mechanism": "a", "note": "", "cost": 1}]}',
    b'{"found": [{"spec": "a", "mechanism": "a", "note": "", "cost": NaN}]}',
    b'{"found": [{"spec": "\\ud800", "mechanism": "a", "note": "", "cost": 1}]}',
    b'{"found": ' + b"[" * 50_000,
    b'{"found": [' + b",".join([b'{"spec": "a", "mechanism": "b"}'] * 1001) + b"]}",
    b"\xff\xfe",
)


def test_after_a_malformed_answer_further_commands_are_sent(
    server: http.server.ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = list(MALFORMED)

    def reply(handler: Handler, status: int, value: Any) -> None:
        data = left.pop(0) if left else json.dumps(value).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    monkeypatch.setattr(Handler, "reply", reply)
    answers: list[Mapping[str, Any]] = []
    connection = transport(server).connect(answers.append, ask=True)
    for number in range(len(MALFORMED) + 1):
        connection.send({"id": number, "op": "search", "query": "a"})
    wait_for(answers, len(MALFORMED) + 1)
    assert {answer["why"] for answer in answers[:-1]} == {"its answer cannot be understood"}
    assert answers[-1]["found"] == [["a", "uprobe", "", 1]]
    connection.close()


@pytest.mark.parametrize("status", [200, 404])
def test_an_answer_that_drips_is_cut_off(
    server: http.server.ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(agent_link, "ANSWER_SECONDS", 0.3)

    def reply(handler: Handler, _: int, value: Any) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        while not handler.hold.wait(0.02):
            handler.wfile.write(b" ")

    first = Handler.reply
    monkeypatch.setattr(Handler, "reply", reply)
    answers: list[Mapping[str, Any]] = []
    connection = transport(server).connect(answers.append, ask=True)
    connection.send({"id": 0, "op": "search", "query": "a"})
    wait_for(answers, 1)
    assert not answers[0]["ok"]
    monkeypatch.setattr(Handler, "reply", first)
    connection.send({"id": 1, "op": "search", "query": "a"})
    wait_for(answers, 2)
    assert answers[1]["ok"]
    connection.close()


@pytest.mark.parametrize(
    "body", [b"[" * 60_000, b'{"why": 5}', b'{"why": "a\x1b[31m\\n"}', b"\xff"]
)
def test_a_refusal_may_say_anything(
    server: http.server.ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    def reply(handler: Handler, _: int, value: Any) -> None:
        handler.send_response(503)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    monkeypatch.setattr(Handler, "reply", reply)
    answers: list[Mapping[str, Any]] = []
    connection = transport(server).connect(answers.append, ask=True)
    for number in range(2):
        connection.send({"id": number, "op": "toggle", "probe": "pmc", "on": True})
    wait_for(answers, 2)
    assert all(answer["why"].isprintable() for answer in answers)
    connection.close()


def test_hanging_up_wakes_the_reader(server: http.server.ThreadingHTTPServer) -> None:
    connection = transport(server).connect(lambda answer: None, ask=True)
    ended: list[object] = []

    def read() -> None:
        try:
            while connection.receive(10):
                pass
            ended.append(None)
        except OSError as error:
            ended.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.05)
    connection.hang_up()
    thread.join(10)
    assert ended
    connection.close()


def test_a_read_starts_no_thread(
    server: http.server.ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = transport(server).connect(lambda answer: None, ask=True)
    started: list[object] = []
    monkeypatch.setattr(threading.Thread, "start", started.append)
    assert connection.receive(10)
    assert started == []
    connection.close()


def test_silence_is_a_timeout(server: http.server.ThreadingHTTPServer) -> None:
    connection = transport(server).connect(lambda answer: None, ask=True)
    decoder, got = Decoder(), 0
    while got < 3:
        got += len(list(decoder.feed(connection.receive(10))))
    with pytest.raises(TimeoutError):
        connection.receive(0.1)
    connection.close()


def test_something_else_that_answers(server: http.server.ThreadingHTTPServer) -> None:
    Handler.kind = "text/html"
    with pytest.raises(ProbeError, match="no agent answers there"):
        transport(server).connect(lambda answer: None, ask=True)


def test_nobody_answers(server: http.server.ThreadingHTTPServer, tmp_path: object) -> None:
    nobody = HttpTransport("unix:/x", Address("localhost", path=f"{tmp_path}/none"))
    with pytest.raises(ProbeError, match="unix:/x: No such file"):
        nobody.connect(lambda answer: None, ask=True)


def _fetch(address: Address) -> None:
    """Ask, and read the whole answer, as a command does; raises ProbeError in any case."""
    with Watchdog(10) as watchdog:
        client, answer = HttpTransport("x", address).ask(watchdog, "GET", "/v1/search")
        try:
            agent_link._content(answer, agent_link.MOST_ANSWER)
        except (ValueError, OSError, HTTPException) as error:
            raise NONSENSE from error
        finally:
            client.close()
        raise NONSENSE


@pytest.mark.parametrize(
    "said",
    [b"0\r\n" + b"a: b\r\n" * 50, b"1"],
    ids=["a trailer without an end", "a size that drips"],
)
def test_who_sends_no_byte_of_a_frame_is_silent(said: bytes) -> None:
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            client, _ = listening.accept()
            with client, suppress(OSError):
                client.recv(65536)
                kind = FRAMES.encode()
                head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: "
                client.sendall(head + kind + b"\r\n\r\n")
                while not ended.wait(0.05):
                    client.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        address = Address("127.0.0.1", listening.getsockname()[1])
        connection = HttpTransport("x", address).connect(lambda answer: None, ask=True)
        got: list[object] = []

        def read() -> None:
            try:
                got.append(connection.receive(0.5))
            except TimeoutError as error:
                got.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        reader.join(10)
        came_back = not reader.is_alive()
        ended.set()
        connection.close()
        thread.join(10)
        reader.join(10)
    assert came_back
    assert got[0] == b"" or isinstance(got[0], TimeoutError)


@pytest.mark.parametrize("status", [b"200 OK", b"404 Not Found"])
@pytest.mark.parametrize("size", [b"-1", b"-5", b"x", b"ffffffffffffffff"])
def test_chunks_of_impossible_sizes_take_no_memory(status: bytes, size: bytes) -> None:
    sent = 0
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            nonlocal sent
            client, _ = listening.accept()
            client.settimeout(5)
            with client, suppress(OSError):
                client.recv(65536)
                head = b"HTTP/1.1 " + status + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
                client.sendall(head + size + b"\r\n")
                while sent < 64 << 20:
                    sent += client.send(b"x" * 65536)

        thread = threading.Thread(target=serve)
        thread.start()
        address = Address("127.0.0.1", listening.getsockname()[1])
        with pytest.raises(ProbeError):
            _fetch(address)
        thread.join(20)
        assert not thread.is_alive()
    # Some megabytes lie in the sockets' buffers.
    assert sent < 32 << 20


@pytest.mark.parametrize(
    "said",
    [b"HTTP/9\x1b[31m\x07 200 fine\r\n\r\n", b"\x1b]0;title\x07\r\n", b"HTTP/1.1 \x9b2J x\r\n\r\n"],
)
def test_what_is_no_http_is_told_without_control_characters(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.recv(1 << 16)
                peer.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        address = Address("127.0.0.1", listening.getsockname()[1])
        with pytest.raises(ProbeError) as caught:
            HttpTransport("there", address).connect(lambda value: None, ask=True)
        thread.join(20)
    assert caught.value.why.startswith("there: ")
    assert caught.value.why.isprintable(), caught.value.why
