# SPDX-License-Identifier: Apache-2.0
"""Connections: slow ones, too many of them, and what is no HTTP."""

from __future__ import annotations

import gc
import json
import selectors
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.unit.agent import OWN, READ, TOKENS, Served, eventually
from tui.agent.http import admission, request_context, server

MINE = f"Authorization: Bearer {OWN}\r\n".encode()
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
    monkeypatch.setattr(request_context, "BODY_SECONDS", 0.2)
    head = (
        b"PUT /v1/filters HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        + MINE
        + b"Content-Length: 10\r\n\r\n{"
    )
    assert b"400 Bad Request" in served.raw(head)


def test_an_idle_connection_is_closed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.server._config, "timeout_keep_alive", 0.1)
    with served.connect() as sock:
        sock.sendall(GET + b"\r\n")
        assert closed(sock)


@pytest.mark.parametrize("reset", [True, False])
def test_nothing_is_kept_of_connections_that_have_ended(
    monkeypatch: pytest.MonkeyPatch, reset: bool
) -> None:
    """Whoever connects again and again would fill the memory until timers or the collector run."""
    monkeypatch.setattr(server, "KEEP_SECONDS", 3600)
    gc.collect()
    gc.disable()
    try:
        with Served(as_owner=False) as served:
            for _ in range(50):
                with served.connect() as sock:
                    sock.sendall(b"GET /v1/runs HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    assert sock.recv(4096).startswith(b"HTTP/1.1 401 ")
                    linger = struct.pack("ii", int(reset), 0)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            eventually("all connections are forgotten", lambda: not connections())
    finally:
        gc.enable()


def connections() -> list[object]:
    """Connections in memory, also those that only the garbage collector would free."""
    return [one for one in gc.get_objects() if type(one) is server.Connection]


def test_a_body_that_nobody_reads_is_thrown_away_up_to_a_limit(served: Served) -> None:
    head = b"DELETE /v1/probes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += MINE
    with served.connect() as sock:
        sock.sendall(head + b"Content-Length: 5\r\n\r\n12345" + GET + b"\r\n")
        data = b""
        while b'"ok"' not in data:
            data += sock.recv(65536)
        assert b"405 Method" in data
    with served.connect() as sock:
        sock.sendall(head + b"Content-Length: 99999999\r\n\r\n")
        assert cut_off(sock, b"x" * 65536, 0)


STREAM = b"GET /v1/frames HTTP/1.1\r\nHost: localhost\r\n" + MINE + b"\r\n"


def streams(served: Served, count: int) -> list[socket.socket]:
    """Connections that are being answered."""
    held = [served.connect() for _ in range(count)]
    for sock in held:
        sock.sendall(STREAM)
        assert sock.recv(12) == b"HTTP/1.1 200"
    return held


def test_there_are_only_so_many_connections(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "MOST_CONNECTIONS", 3)
    held = streams(served, 3)
    # Those that are refused make no room for others by that.
    held += [served.connect() for _ in range(server.MOST_REFUSED + 3)]
    # Also a head, and whatever follows, is not read.
    with served.connect() as one:
        one.sendall(GET + b"\r\n")
        answer = b"".join(iter(lambda: one.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["why"] == "too many connections"
    assert served.server.connections <= 3 + server.MOST_REFUSED + 1
    for sock in held:
        sock.close()
    eventually("they are gone", lambda: served.server.connections == 0)
    assert served.get("/healthz").status == 200


def never_late(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection ends because its time has passed."""
    monkeypatch.setattr(server, "HEAD_SECONDS", 3600.0)
    monkeypatch.setattr(served.server._config, "timeout_keep_alive", 3600)


@pytest.mark.parametrize("begin", [b"", b"GET /hea", GET, GET + b"\r\n"])
def test_half_sent_heads_keep_nobody_out(
    served: Served, monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    """More of them than there may be connections, and nobody waits for their time to pass."""
    never_late(served, monkeypatch)
    held = [served.connect() for _ in range(admission.MOST_CONNECTIONS + 20)]
    for sock in held:
        try:
            sock.sendall(begin)
        except ConnectionError:
            continue  # it has had to go already
    for _ in range(5):
        assert served.get("/v1/filters").status == 200
    assert served.server.connections <= admission.MOST_OF_ONE
    assert served.server.counts.evicted >= 84
    # Who came last is still there, the first are gone.
    assert closed(held[0])
    held[-1].sendall(GET.removeprefix(begin) + b"\r\n" if begin != GET + b"\r\n" else begin)
    assert held[-1].recv(12) == b"HTTP/1.1 200"
    for sock in held:
        sock.close()


def test_who_does_not_read_makes_room(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MOST_OF_ONE", 3)
    held = streams(served, 3)
    for sock in held:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connections = list(served.server._state.connections)
    for one in connections:
        # Few frames fill these: who has too many to come is dropped before it has stalled.
        one.transport.set_write_buffer_limits(0)
        theirs = one.transport.get_extra_info("socket")
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    def stalled() -> bool:
        served.source.push()
        return any(getattr(one, "_stalled_since", None) for one in connections)

    eventually("one has stalled", stalled)
    assert served.get("/v1/filters").status == 200
    for sock in held:
        sock.close()


def keep_asking(address: tuple[str, int], request: bytes, count: int, end: threading.Event) -> None:
    """Strangers who are never without an answer to come, and come again when they are cut off."""
    with selectors.DefaultSelector() as selector:
        for _ in range(count):
            selector.register(socket.create_connection(address, 20), *BOTH)
        while not end.is_set():
            for key, ready in selector.select(0.1):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                try:
                    if ready & selectors.EVENT_WRITE:
                        sock.send(request * 100, socket.MSG_DONTWAIT)
                    if ready & selectors.EVENT_READ and not sock.recv(1 << 18):
                        raise ConnectionResetError
                except BlockingIOError:
                    pass
                except ConnectionError:
                    selector.unregister(sock)
                    sock.close()
                    selector.register(socket.create_connection(address, 20), *BOTH)
        for key in list(selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()


BOTH = (selectors.EVENT_READ | selectors.EVENT_WRITE,)


@pytest.mark.parametrize("path", [b"/v1/interval", b"/v1/snapshot.json"])
def test_strangers_who_keep_asking_keep_nobody_out(served: Served, path: bytes) -> None:
    """Those that are answered, and those that are answered with 401."""
    end, count = threading.Event(), admission.MOST_OF_ONE
    request = b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
    thread = threading.Thread(target=keep_asking, args=(served.address, request, count, end))
    thread.start()
    try:
        eventually("all are there", lambda: served.server.connections >= count)
        assert [served.get("/v1/filters").status for _ in range(20)] == [200] * 20
    finally:
        end.set()
        thread.join(20)


def test_strangers_who_are_answered_for_long_keep_nobody_out(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_late(served, monkeypatch)
    stream = STREAM.replace(MINE, b"")
    held = []
    for number in range(admission.MOST_OF_ONE):
        held.append(served.connect())
        # One of them is of the owner, who is known by its first request.
        held[-1].sendall(STREAM if number == 0 else stream if number <= 10 else GET)
        assert number > 10 or held[-1].recv(12) == b"HTTP/1.1 200"
    more = [served.connect() for _ in range(3)]
    for sock in more:
        sock.sendall(STREAM)
        assert sock.recv(12) == b"HTTP/1.1 200"
    assert served.server.counts.evicted == 3
    assert all(closed(sock) for sock in held[1:4])
    for sock in (held[0], held[4], more[0]):
        sock.setblocking(False)
        with suppress(BlockingIOError):
            assert sock.recv(1)
    for sock in held + more:
        sock.close()


def test_who_shows_no_token_is_closed_after_some_requests() -> None:
    request = b"GET /v1/interval HTTP/1.1\r\nHost: localhost\r\n"
    read = f"Authorization: Bearer {READ}\r\n\r\n".encode()
    most, last = (
        server.MOST_DENIED,
        b"GET /healthz HTTP/1.1\r\nConnection: close\r\nHost: a\r\n\r\n",
    )
    with Served(tokens=TOKENS) as served:
        assert served.raw((request + b"\r\n") * most).count(b"HTTP/1.1 401 ") == most
        many = served.raw(request + read + (request + b"\r\n") * (most + 1) + last)
        assert many.count(b"HTTP/1.1 401 ") == most + 1
        assert many.count(b"HTTP/1.1 200 ") == 2


class Peer:
    """A connection as `admission` knows it, of somebody known."""

    def __init__(
        self, group: str, waits_since: float | None = None, *, made: float = 0, known: bool = True
    ) -> None:
        self.group, self.waits_since = group, waits_since
        self.made, self.known = made, known


def test_the_oldest_stranger_gives_way_though_it_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "MOST_CONNECTIONS", 6)
    monkeypatch.setattr(admission, "MOST_OF_ONE", 4)
    known = Peer("a", 1.0)
    busy = [Peer("b", made=float(n), known=False) for n in (4, 2, 3)]
    came, other = Peer("b", 9.0, made=9, known=False), Peer("c", made=1, known=False)
    assert admission.to_evict(Peer("b"), [came, *busy]) == (True, busy[1])
    assert admission.to_evict(Peer("d"), [known, other, came, *busy]) == (True, busy[1])
    assert admission.to_evict(Peer("d"), [known] * 5 + [other]) == (True, other)
    assert admission.to_evict(Peer("a"), [known] * 4 + [other]) == (True, known)


def test_the_peer_with_the_most_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MOST_CONNECTIONS", 6)
    monkeypatch.setattr(admission, "MOST_OF_ONE", 4)
    one, many = Peer("a", 1.0), [Peer("b", float(n)) for n in (4, 2, 3)]
    busy = Peer("b", None)
    assert admission.to_evict(Peer("c"), [one, *many]) == (True, None)
    assert admission.to_evict(Peer("b"), [one, *many, busy]) == (True, many[1])
    # "a" has waited longer, but "b" has three of them.
    assert admission.to_evict(Peer("c"), [one, *many, busy, Peer("d")]) == (True, many[1])
    assert admission.to_evict(Peer("c"), [Peer("b")] * 6) == (False, None)
    assert admission.to_evict(Peer("b"), [Peer("b")] * 4 + [Peer("a", 1.0)]) == (False, None)


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("127.0.0.1", "loopback"),
        ("127.9.8.7", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.5", "loopback"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("nonsense", "gone"),
    ],
)
def test_peers_are_grouped_by_what_one_machine_may_choose(address: str, group: str) -> None:
    class Sock:
        family = socket.AF_INET6

        def getpeername(self) -> tuple[str, int]:
            return address, 1

    assert admission.group_of(Sock()) == group


def test_only_so_many_handshakes_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MOST_HANDSHAKES", 3)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        limited = admission.HandshakeLimit(listening)
        address = listening.getsockname()
        clients, accepted = [], []
        for number in range(6):
            clients.append(socket.create_connection(address, 10))
            accepted.append(limited.accept()[0])
            if number == 0:
                limited.complete(accepted[0].fileno())
        # The first is complete, three are pending, and two had to go for them.
        ends = [clients[number].recv(1, socket.MSG_DONTWAIT) for number in (1, 2)]
        assert ends == [b"", b""]
        for number in (0, 3, 4, 5):
            clients[number].setblocking(False)
            with pytest.raises(BlockingIOError):
                clients[number].recv(1)
        for sock in (*clients, *accepted, limited):
            sock.close()


def test_small_answers_are_sent_at_once(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(GET + b"\r\n")
        assert sock.recv(12) == b"HTTP/1.1 200"
        (connection,) = served.server._state.connections
        theirs = connection.transport.get_extra_info("socket")
        assert theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


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
