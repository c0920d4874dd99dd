# SPDX-License-Identifier: Apache-2.0
"""The link by HTTP: requests that stand for commands, and answers that may be anything."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from probes.agent_link import FRAMES, Address, HttpTransport, request
from probes.base import ProbeError
from probes.framing import Decoder, Encoder
from probes.samples import Filters, Frame
from tests.unit.test_recording import make_frames


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
