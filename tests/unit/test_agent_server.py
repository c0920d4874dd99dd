# SPDX-License-Identifier: Apache-2.0
"""Connections: slow ones, too many of them, and what is no HTTP."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import pytest

from tests.unit.agent import Served, eventually
from tui.agent import answers, server

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def served() -> Iterator[Served]:
    with Served() as one:
        yield one


def closed(sock: socket.socket) -> bool:
    """Whether the other end closes; what comes before is thrown away."""
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def cut_off(sock: socket.socket, data: bytes, pause: float) -> bool:
    """Whether the other end closes while these bytes are sent over and over."""
    for _ in range(2000):
        try:
            sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return True
        time.sleep(pause)
    return False


@pytest.mark.parametrize("begin", [b"", b"G", GET, GET + b"\r\n" + GET])
def test_a_head_takes_only_so_long(
    served: Served, monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(served.server._config, "timeout_keep_alive", 0.3)
    with served.connect() as sock:
        sock.sendall(begin)
        assert closed(sock)
    assert served.get("/healthz").status == 200


def test_a_head_that_drips_takes_no_longer(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.3)
    with served.connect() as sock:
        sock.sendall(GET)
        assert cut_off(sock, b"X-A: b\r\n", 0.01)


def test_a_body_takes_only_so_long(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "BODY_SECONDS", 0.2)
    head = (
        b"PUT /v1/filters HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 10\r\n\r\n{"
    )
    assert b"400 Bad Request" in served.raw(head)


def test_an_idle_connection_is_closed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.server._config, "timeout_keep_alive", 0.1)
    with served.connect() as sock:
        sock.sendall(GET + b"\r\n")
        assert closed(sock)


def test_a_body_that_nobody_reads_is_thrown_away_up_to_a_limit(served: Served) -> None:
    head = b"DELETE /v1/probes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with served.connect() as sock:
        sock.sendall(head + b"Content-Length: 5\r\n\r\n12345" + GET + b"\r\n")
        data = b""
        while b'"ok"' not in data:
            data += sock.recv(65536)
        assert b"405 Method" in data
    with served.connect() as sock:
        sock.sendall(head + b"Content-Length: 99999999\r\n\r\n")
        assert cut_off(sock, b"x" * 65536, 0)


def test_there_are_only_so_many_connections(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 3)
    held = [served.connect() for _ in range(3)]
    eventually("they are there", lambda: served.server.connections == 3)
    # Also a head, and whatever follows, is not read.
    with served.connect() as one:
        one.sendall(GET + b"\r\n")
        answer = b"".join(iter(lambda: one.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["why"] == "too many connections"
    for sock in held:
        sock.close()
    eventually("they are gone", lambda: served.server.connections == 0)
    assert served.get("/healthz").status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
        b"\r\n\r\n\0\0\0\0\r\n\r\n",
    ],
)
def test_what_is_no_http_is_told_so_and_closed(served: Served, data: bytes) -> None:
    with served.connect() as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while part := sock.recv(65536):
                answer += part
        except ConnectionResetError:
            pass
    if answer:
        first, _, body = answer.partition(b"\r\n\r\n")
        assert first.startswith(b"HTTP/1.1 4")
        assert json.loads(body)["fix"]
    assert served.get("/healthz").status == 200


def test_requests_one_behind_the_other(served: Served) -> None:
    last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = served.raw((GET + b"\r\n") * 20 + last)
    assert answer.count(b"HTTP/1.1 200 ") == 21


def test_an_upgrade_is_not_made(served: Served) -> None:
    data = GET + b"Connection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n"
    assert served.raw(data).startswith(b"HTTP/1.1 200 ")
