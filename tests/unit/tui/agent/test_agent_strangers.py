# SPDX-License-Identifier: Apache-2.0
"""Clients that show no token and send what is dear to read: they are refused before it is read."""

from __future__ import annotations

import gc
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.unit.agent import CONTROL, TOKENS, Served, eventually
from tui.agent.http import admission, server, tls
from tui.agent.http.request_parser import MOST_LINES

HEAD = b"POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def served() -> Iterator[Served]:
    with Served(tokens=TOKENS) as one:
        yield one


def all_of(sock: socket.socket) -> bytes:
    """What comes until the other end closes."""
    data = b""
    try:
        while part := sock.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data


def test_a_body_in_chunks_is_refused_and_the_connection_ends(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(CHUNKED + b"1\r\na\r\n" * 1000 + b"0\r\n\r\n" + GET + b"\r\n")
        head, _, body = all_of(sock).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 411 ")
    assert json.loads(body)["fix"] == "send it with a Content-Length"


def test_chunks_of_a_refused_body_are_not_read(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    take = server.Connection.handle_events

    def handle_events(self: server.Connection) -> None:
        read.append(len(self.conn.trailing_data[0]))
        take(self)

    monkeypatch.setattr(server.Connection, "handle_events", handle_events)
    monkeypatch.setattr(server, "REFUSED_SECONDS", 60.0)
    with served.connect() as sock, suppress(ConnectionResetError, BrokenPipeError):
        for _ in range(2000):
            sock.sendall(CHUNKED + b"1\r\na\r\n" * 1000)
        pytest.fail("it is never cut off")
    assert len(read) == 1, "once it is refused nothing is taken for HTTP"


def test_only_some_kilobytes_of_one_client_are_read_at_a_time(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    take = server.Connection.data_received

    def data_received(self: server.Connection, data: bytes) -> None:
        sizes.append(len(data))
        take(self, data)

    monkeypatch.setattr(server.Connection, "data_received", data_received)
    body = b'{"comm": "' + b"a" * 60_000 + b'"}'
    headers = {"Content_Type": "application/json", "Authorization": "Bearer " + CONTROL}
    assert served.ask("PUT", "/v1/filters", body, **headers).status == 422
    assert sum(sizes) > 60_000
    assert max(sizes) <= 4096


def test_a_head_has_only_so_many_lines(served: Served) -> None:
    lines = b"".join([b"X%d:\r\n" % number for number in range(MOST_LINES - 3)])
    assert served.raw(GET + lines + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert served.raw(GET + lines * 2 + b"\r\n").startswith(b"HTTP/1.1 400 ")


def test_lines_of_a_body_are_not_those_of_a_head(served: Served) -> None:
    body = b'{"seconds": 2' + b"\n" * 1000 + b"}"
    head = b"PUT /v1/interval HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += b"Authorization: Bearer control-control-control\r\nConnection: close\r\n"
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    assert served.raw(head + length + body).startswith(b"HTTP/1.1 200 ")


# -- TLS ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    directory = tmp_path_factory.mktemp("tls")
    cert, key = str(directory / "cert.pem"), str(directory / "key.pem")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    name = ("-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert)
    subprocess.run([*command.split(), *name], check=True, capture_output=True, timeout=60)
    return cert, key


@pytest.fixture
def encrypted(certificate: tuple[str, str]) -> Iterator[Served]:
    with Served(tokens=TOKENS, certificate=certificate[0], key=certificate[1]) as one:
        yield one


def ask(served: Served, certificate: str, head: bytes) -> bytes:
    context = ssl.create_default_context(cafile=certificate)
    with context.wrap_socket(served.connect(), server_hostname="localhost") as sock:
        sock.sendall(head)
        return all_of(sock)


def test_changes_of_keys_without_a_request_end_a_connection(
    encrypted: Served, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each line K has openssl change its key and ask for the other side's new one."""
    monkeypatch.setattr(tls, "MOST_SILENT", 1 << 13)
    openssl = shutil.which("openssl")
    assert openssl is not None
    command = [openssl, "s_client", "-connect", f"127.0.0.1:{encrypted.address[1]}"]
    # The time without a request does not end it.
    with subprocess.Popen(
        [*command, "-tls1_3"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    ) as client:
        assert client.stdin is not None
        eventually("it is connected", lambda: encrypted.server.connections == 1)
        (connection,) = encrypted.server._state.connections

        def ended() -> bool:
            with suppress(BrokenPipeError):
                client.stdin.write(b"K\n")  # type: ignore[union-attr]
            return connection not in encrypted.server._state.connections

        assert isinstance(connection, server.Connection)
        encrypted.loop.call_soon_threadsafe(connection._head.cancel)  # type: ignore[union-attr]
        try:
            eventually("it is cut off", ended)
        finally:
            client.kill()
    last = GET + b"Connection: close\r\n\r\n"
    assert ask(encrypted, certificate[0], last).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_goes_on_asking_is_not_cut_off(
    encrypted: Served, certificate: tuple[str, str]
) -> None:
    head = GET + b"Authorization: Bearer read-read-read-read\r\n"
    data = (head + b"\r\n") * 3000 + head + b"Connection: close\r\n\r\n"
    answer = ask(encrypted, certificate[0], data)
    assert answer.count(b"HTTP/1.1 200 ") == 3001


def test_handshakes_that_come_to_nothing_leave_nothing(
    encrypted: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "MOST_CUT", 10)
    gc.disable()
    try:
        for number in range(60):
            with encrypted.connect() as sock:
                sock.sendall(b"\x16\x03\x01\x00\x01\x00" if number % 2 else b"no TLS")

        def left() -> int:
            named = [type(each).__name__ for each in gc.get_objects()]
            return named.count("BoundedTls") + named.count("SSLProtocol")

        def few() -> bool:
            encrypted.connect().close()
            return left() < 25

        eventually("most are forgotten", few)
    finally:
        gc.enable()
