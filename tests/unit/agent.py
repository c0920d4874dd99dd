# SPDX-License-Identifier: Apache-2.0
"""An agent on a port of this machine, with a made-up Source in the place of the kernel."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Self, TypeVar

from probes.core.frame import NO_FILTERS, Filters, Frame
from probes.host.filter_watch import FilterWatch
from probes.host.privileges import User
from probes.latency.sample import LatencySample, Target
from probes.live.names import Naming
from probes.live.probe_state import Standing
from probes.live.source import LiveSource
from probes.symbols import target_spec
from tests.pilot.fake import FakeSource
from tui.agent.command import page_files
from tui.agent.http.api import application
from tui.agent.http.server import Server
from tui.agent.http.sockets import open_socket, tls
from tui.agent.options import Listen, ServeOptions, Token
from tui.agent.owner_token import OwnerFile
from tui.agent.sd_notify import Notifier
from tui.agent.service import assemble, authorizer_of
from tui.agent.setup import Setup
from tui.registry import names
from tui.settings.options import Options

T = TypeVar("T")
OWN = "own-own-own-own-own-own"
READ, CONTROL = "read-read-read-read", "control-control-control"
TOKENS = (Token("read", READ), Token("control", CONTROL))
DEADLINE = 60.0


def eventually(what: str, condition: Callable[[], T]) -> T:
    """The first true value of `condition`; fails the test when the deadline has passed."""
    end = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < end, f"still not: {what}"
        time.sleep(0.01)
    return value


class AgentSource(FakeSource):
    """Says where its probes stand as a live one does; `broken` targets fail with why and fix."""

    def __init__(self) -> None:
        super().__init__()
        self.traced = {"runq": Target(spec="runq", state="on", mechanism="tracepoint")}
        self.broken: dict[str, tuple[str, str]] = {}
        self.failing: dict[str, tuple[str, str]] = {}
        self.settling = True
        self.naming = Naming()
        self.filter_watch = FilterWatch(NO_FILTERS)
        self.helped: Callable[[str], dict[str, Any]] = lambda name: {
            "ok": True,
            "result": {"name": name},
        }

    def frame(self) -> Frame:
        frame = super().frame()
        samples = dict(frame.samples)
        latency = samples["latency"]
        if isinstance(latency, LatencySample) and latency.state == "on":
            samples["latency"] = replace(latency, targets={**latency.targets, **self.traced})
        for name, (why, fix) in self.failing.items():
            samples[name] = type(samples[name])(state="failed", why=why, fix=fix)
        return replace(frame, mono=time.monotonic(), time=time.time(), samples=samples)

    def set_option(self, probe: str, option: str, value: object) -> None:
        self._command("set_option", probe, option, value)
        if option == "add":
            spec = target_spec.parse(str(value)).text
            why, fix = self.broken.get(spec, (None, None))
            self.traced[spec] = Target(
                spec=spec, state="failed" if why else "on", mechanism="uprobe", why=why, fix=fix
            )
        elif option == "remove":
            del self.traced[str(value)]

    def set_filters(self, filters: Filters) -> None:
        self.count(FilterWatch(filters))

    def count(self, watch: FilterWatch) -> None:
        super().set_filters(watch.filters)
        self.filter_watch = watch

    def hurry(self) -> None:
        """A Frame, from the thread that a real one would be from."""
        threading.Thread(target=self.push).start()

    def stand(self, on_standing: Callable[[Mapping[str, Standing]], None]) -> None:
        """Where they stand, at once."""
        standings = {}
        for name, on in self.on.items():
            why, fix = self.failing.get(name, (None, None))
            state: Any = "failed" if on and why else "on" if on else "off"
            targets = self.traced if name == "latency" else {}
            standings[name] = Standing(state, self.settling, why, fix, None, dict(targets))
        on_standing(standings)

    def help(self, name: str, on_answer: Callable[[dict[str, Any]], None]) -> None:
        """What `helped` says."""
        on_answer(self.helped(name))


class Answer:
    """What came back."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    def json(self) -> Any:
        return json.loads(self.body)

    def refused(self, status: int) -> str:
        """Why it was, with this status."""
        assert self.status == status, (self.status, self.body)
        value = self.json()
        assert value.keys() == {"why", "fix"}
        assert value["why"]
        assert len(self.body.splitlines()) == 1
        why: str = value["why"]
        return why


class Served:
    """An agent that runs in a thread until the end of the block.

    It is asked by the user who started it; not `as_owner`: by anybody else on this machine.
    `owner` is the uid of that user, ours if it is None.
    """

    def __init__(
        self, linger: float = 0.0, *, as_owner: bool = True, owner: int | None = None, **serve: Any
    ) -> None:
        self.source = AgentSource()
        listen = serve.pop("listen", Listen(port=0))
        options = Options(probes=names())
        user = User(65534, 65534, None)
        serving = ServeOptions(listen=listen, linger=linger, **serve)
        # It is the source of this machine in all that the agent asks of it.
        source: Any = self.source
        live: LiveSource = source
        starter = User(os.getuid() if owner is None else owner, os.getgid(), None)
        setup = Setup(options, serving, {}, user, Notifier({}), starter)
        self.as_owner = as_owner and not serving.tokens and listen.path is None
        if self.as_owner:
            setup.own = OwnerFile(OWN, "", -1, -1)
        self.page_files = setup.page_files = page_files()
        self._sock = open_socket(serving, user, starter)
        self.address = listen.path or self._sock.getsockname()
        self.loop = asyncio.new_event_loop()
        self.agent = self.loop.run_until_complete(self._made(setup, live))
        self.server = Server(application(self.agent, authorizer_of(setup)))
        self.loop.run_until_complete(self.server.start(self._sock, tls(serving)))
        self._thread = threading.Thread(target=self.loop.run_forever)

    async def _made(self, setup: Setup, source: LiveSource) -> Any:
        agent = assemble(setup, source)
        agent.hub.start()
        agent.control.apply()
        return agent

    def __enter__(self) -> Self:
        self._thread.start()
        self.source.push()
        eventually("there is a frame", lambda: self.agent.hub.number == 1)
        self.source.push()
        eventually("there are two", lambda: self.agent.hub.number == 2)
        return self

    def __exit__(self, *error: object) -> None:
        self.run(self._stopped)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(DEADLINE)
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        for fd in self.page_files:
            os.close(fd)

    async def _stopped(self) -> None:
        self.agent.streams.end()
        self.agent.control.close()
        await self.agent.runs.close()
        await self.server.stop()

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Have the agent's loop carry out a coroutine function."""
        return asyncio.run_coroutine_threadsafe(function(*args), self.loop).result(DEADLINE)

    def connect(self) -> socket.socket:
        """A connection to it."""
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        sock = socket.socket(family)
        sock.settimeout(DEADLINE)
        sock.connect(self.address)
        return sock

    def raw(self, data: bytes) -> bytes:
        """All that comes back for these bytes, until the agent closes."""
        with self.connect() as sock:
            sock.sendall(data)
            return b"".join(iter(lambda: sock.recv(65536), b""))

    def open(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> http.client.HTTPResponse:
        """The beginning of an answer; what is not bytes is sent as JSON."""
        client = http.client.HTTPConnection("localhost", timeout=DEADLINE)
        client.sock = self.connect()
        all_headers = dict(headers or {})
        if self.as_owner:
            all_headers.setdefault("Authorization", f"Bearer {OWN}")
        if isinstance(body, dict | list):
            body = json.dumps(body).encode()
            all_headers.setdefault("Content-Type", "application/json")
        client.request(method, path, body, all_headers, **more)
        return client.getresponse()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """An answer; `Content_Type` is a header of that name."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with self.open(method, path, body, named) as response:
            return Answer(response)

    def get(self, path: str, **headers: str) -> Answer:
        """The answer to a GET."""
        return self.ask("GET", path, **headers)
