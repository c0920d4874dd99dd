# SPDX-License-Identifier: Apache-2.0
"""A link by HTTP: Frames and commands of a far `probetop serve`, by its public interface."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, NamedTuple, Self
from urllib.parse import quote, urlencode

import probes
from probes.core.errors import ProbeError
from probes.remote.answers import NONSENSE, error_response, line, search_response

FRAMES = "application/vnd.probetop.frames"
CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 40.0
LOOK_SECONDS = 0.5
"""How often it is looked whether a read takes too long."""
RECEIVED = 1 << 17
"""Bytes of Frames that may have come without being read."""
MOST_ANSWER, MOST_ERROR = 1 << 22, 1 << 16
"""Bytes of an answer to a command, and of one that refuses it."""


class Address(NamedTuple):
    """Where an agent listens: a host and port, or the path of a Unix socket."""

    host: str
    port: int = 9435
    path: str | None = None
    tls: ssl.SSLContext | None = None


class _Response(http.client.HTTPResponse):
    """An answer whose trailer is not read: one without an end would keep its reader for ever."""

    def _read_and_discard_trailer(self) -> None:
        pass


class _OverUnix(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=CONNECT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Watchdog:
    """Cuts off a server that takes longer for its whole answer: one byte now and then is none.

    The timeout of a socket is for each read alone. `cut` tells whether it did so.
    """

    def __init__(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self._sock: socket.socket | None = None
        self.cut = False

    def watch(self, sock: socket.socket) -> None:
        """Begin."""
        self._sock = sock
        self._timer.start()

    def _cut(self) -> None:
        self.cut = True
        with suppress(OSError):
            assert self._sock is not None
            self._sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()


class ReadLimit:
    """As Watchdog, for the reads of one connection one after the other, by one thread for all.

    `begin` a read that may take so many seconds, `end` it: that tells whether it was cut off.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._due = float("inf")
        self._cut = False
        self._over = threading.Event()
        threading.Thread(target=self._look, name="read limit", daemon=True).start()

    def begin(self, seconds: float) -> None:
        """A read begins."""
        self._due = time.monotonic() + seconds

    def end(self) -> bool:
        """It has ended."""
        self._due = float("inf")
        return self._cut

    def close(self) -> None:
        """There are no more."""
        self._over.set()

    def _look(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            if time.monotonic() >= self._due:
                self._cut = True
                with suppress(OSError):
                    self._sock.shutdown(socket.SHUT_RDWR)
                return


class HttpTransport:
    """Talks to an agent, which keeps what it is told. `token` is sent with every request."""

    remembers = True

    def __init__(self, target: str, address: Address, token: str | None = None) -> None:
        self.target = target
        self._address = address
        self._headers = {"User-Agent": f"probetop/{probes.__version__}"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"

    def client(self) -> http.client.HTTPConnection:
        """A connection that is not open yet."""
        client = self._client()
        client.response_class = _Response
        return client

    def _client(self) -> http.client.HTTPConnection:
        address = self._address
        if address.path is not None:
            return _OverUnix(address.path)
        if address.tls is not None:
            return http.client.HTTPSConnection(
                address.host, address.port, timeout=CONNECT_SECONDS, context=address.tls
            )
        return http.client.HTTPConnection(address.host, address.port, timeout=CONNECT_SECONDS)

    def ask(
        self,
        watchdog: Watchdog,
        method: str,
        path: str,
        body: Any = None,
        accept: str = "application/json",
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """One request; raises ProbeError where it is refused or nobody answers in time."""
        client = self.client()
        headers = {**self._headers, "Accept": accept}
        data = None
        if body is not None:
            data = json.dumps(body).encode("ascii")
            headers["Content-Type"] = "application/json"
        try:
            client.connect()
            client.sock.settimeout(ANSWER_SECONDS)
            watchdog.watch(client.sock)
            if accept == FRAMES:
                # What is on its way is what a slow link shows too late.
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED)
            client.request(method, path, data, headers)
            answer = client.getresponse()
            if answer.status >= 300:
                raise self._refused(answer)
            return client, answer
        except ssl.SSLCertVerificationError as error:
            client.close()
            why = f"{self.target}: its certificate is not trusted ({error.verify_message})"
            raise ProbeError(why, "give its authority's with --ca-file") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            client.close()
            # What is no HTTP is part of the error's text.
            words = line(getattr(error, "strerror", None) or str(error)) or type(error).__name__
            raise ProbeError(
                f"{self.target}: {words}", "see whether an agent runs there"
            ) from error
        except ProbeError:
            client.close()
            raise

    def _refused(self, answer: http.client.HTTPResponse) -> ProbeError:
        why, fix = f"it answers {answer.status}", "see whether an agent runs there"
        with suppress(OSError, ValueError, http.client.HTTPException):
            why, fix = error_response(_content(answer, MOST_ERROR)) or (why, fix)
        if answer.status == 401:
            fix = "give its token with --token-file"
        return ProbeError(f"{self.target}: {why}", fix)

    def connect(
        self, answered: Callable[[Mapping[str, Any]], None], *, ask: bool
    ) -> HttpConnection:
        """Begin to read Frames; raises ProbeError."""
        with Watchdog(ANSWER_SECONDS) as watchdog:
            client, answer = self.ask(watchdog, "GET", "/v1/frames", accept=FRAMES)
        if answer.getheader("Content-Type") != FRAMES:
            client.close()
            raise ProbeError(f"{self.target}: no agent answers there", "see where it listens")
        return HttpConnection(self, client, answer, answered)


class HttpConnection:
    """Frames on one connection; commands, one after the other, each on one of its own."""

    def __init__(
        self,
        transport: HttpTransport,
        client: http.client.HTTPConnection,
        answer: http.client.HTTPResponse,
        answered: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._transport = transport
        self._client, self._answer = client, answer
        # The answer takes the socket along, where the server is to close it.
        self._sock = client.sock or _socket_of(answer)
        self._answered = answered
        self._limit = ReadLimit(self._sock)
        self._commands: SimpleQueue[Mapping[str, Any] | None] = SimpleQueue()
        threading.Thread(target=self._work, name="commands", daemon=True).start()

    def receive(self, seconds: float) -> bytes:
        """Bytes of the Frames."""
        self._sock.settimeout(seconds)
        data, failed = b"", None
        self._limit.begin(seconds)
        try:
            data = self._answer.read1(1 << 18)
        except http.client.HTTPException as error:
            failed = error
        except ValueError as error:  # closed by hang_up
            raise ConnectionResetError(0, "closed") from error
        finally:
            cut = self._limit.end()
        if not data and cut:
            raise TimeoutError("no byte of a frame has come")
        if failed is not None:
            why = line(str(failed)) or "the agent has ended"
            raise ConnectionResetError(0, why) from failed
        return data

    def send(self, command: Mapping[str, Any]) -> None:
        """To be asked for by and by."""
        self._commands.put(command)

    def why(self) -> ProbeError | None:
        """Nobody says."""
        return None

    def hang_up(self) -> None:
        """End it."""
        self._commands.put(None)
        self._limit.close()
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of it."""
        self.hang_up()
        self._answer.close()
        self._client.close()

    def _work(self) -> None:
        while (command := self._commands.get()) is not None:
            number = command["id"]
            try:
                self._answered({"id": number, "ok": True, **self._ask(command)})
            except ProbeError as error:
                self._answered({"id": number, "ok": False, "why": error.why, "fix": error.fix})
            except Exception as error:  # whatever one answer does, further commands are sent
                why = f"{self._transport.target}: {line(repr(error))}"
                self._answered({"id": number, "ok": False, "why": why, "fix": NONSENSE.fix})

    def _ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        method, path, body = request(command)
        with Watchdog(ANSWER_SECONDS) as watchdog:
            client, answer = self._transport.ask(watchdog, method, path, body)
            try:
                said = _content(answer, MOST_ANSWER)
            except (OSError, ValueError, http.client.HTTPException) as error:
                raise NONSENSE from error
            finally:
                client.close()
        if command["op"] != "search":
            return {}
        return {"found": [list(found) for found in search_response(said)]}


def request(command: Mapping[str, Any]) -> tuple[str, str, Any]:
    """The method, path and body that stand for a command."""
    name = command["op"]
    if name == "search":
        return "GET", "/v1/search?" + urlencode({"q": command["query"]}), None
    if name == "filters":
        return "PUT", "/v1/filters", command["filters"]
    if name == "interval":
        return "PUT", "/v1/interval", {"seconds": command["seconds"]}
    probe = quote(command["probe"], safe="")
    if name == "toggle":
        return "PUT", f"/v1/probes/{probe}", {"on": command["on"]}
    option, value = command["option"], command["value"]
    if (probe, option) == ("latency", "add"):
        return "POST", "/v1/latency/targets", {"spec": value}
    if (probe, option) == ("latency", "follow"):
        return "POST", "/v1/latency/targets", {"spec": value, "follow": True}
    if (probe, option) == ("latency", "remove"):
        return "DELETE", "/v1/latency/targets?" + urlencode({"spec": value}), None
    value = list(value) if isinstance(value, tuple) else value
    return "PUT", f"/v1/probes/{probe}", {"options": {option: value}}


def _content(answer: http.client.HTTPResponse, most: int) -> bytes:
    """The first `most` bytes of an answer.

    A chunk whose size is negative makes HTTPResponse.read take all that ever comes; read1 takes
    no more than a buffer at a time. Raises ValueError for a size that is no number.
    """
    data = b""
    while len(data) < most and (more := answer.read1(1 << 16)):
        data += more
    return data[:most]


def _socket_of(answer: http.client.HTTPResponse) -> socket.socket:
    found: socket.socket = answer.fp.raw._sock  # type: ignore[attr-defined]
    return found
