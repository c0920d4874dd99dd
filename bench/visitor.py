# SPDX-License-Identifier: Apache-2.0
"""Somebody who uses the agent in all ways that there are, and leaves everything as it was."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bench.agent import FRAMES, PROTOBUF, TEXT
from bench.held import children, held, is_zombie, own_children, programs
from bench.measure import BenchError
from bench.typist import TARGETS
from tui.agent import owner_token
from tui.registry import REGISTRY

DEADLINE = 60.0
"""Seconds until something that was asked for is overdue."""
BAD: tuple[tuple[str, str, bytes, int], ...] = (
    ("PUT", "/v1/probes/nothing", b'{"on": true}', 404),
    ("PUT", "/v1/filters", b"{", 400),
    ("PUT", "/v1/interval", b'{"seconds": -1}', 422),
    ("POST", "/v1/latency/targets", b'{"spec": "kprobe:"}', 422),
    ("POST", "/v1/runs", b"x" * 100_000, 413),
    ("GET", "/v1/nowhere", b"", 404),
)
"""Requests that are wrong, and what is to be answered."""


class Visitor:
    """Asks an agent that is bench.soaked, was given the file `told`, and listens on `port`."""

    def __init__(self, pid: int, port: int, told: Path, filters: Mapping[str, Any]) -> None:
        self.pid, self.port, self.told, self.filters = pid, port, told, filters
        self.rounds = 0
        self.wait("all probes are on", self._all_on)
        self.programs = programs(pid)

    def tasks(self) -> Iterator[str]:
        """One round, in parts: each says what was just done and undone."""
        number, self.rounds = self.rounds, self.rounds + 1
        for entry in REGISTRY:
            self.toggle(entry.name)
        yield "probes off and on"
        self.target(TARGETS[number % len(TARGETS)])
        yield "a target"
        self.watch()
        yield "watchers"
        for accept in (TEXT, PROTOBUF, "text/plain"):
            self.ask("GET", "/metrics", accept=accept)
        self.ask("GET", "/v1/snapshot.json")
        self.ask("GET", "/v1/search?q=getppid")
        yield "scrapes and snapshots"
        self.ask("PUT", "/v1/filters", {"comm": "sh"})
        self.ask("PUT", "/v1/filters", self.filters)
        self.run()
        yield "a run"
        for method, path, body, status in BAD:
            self.ask(method, path, body, expect=status)
        yield "wrong requests"

    def held(self) -> dict[str, float]:
        """Figures of the agent and its own children, and the number of all processes."""
        self.wait("no zombie is left", lambda: not any(map(is_zombie, children(self.pid))))
        time.sleep(0.5)
        self.told.write_text("")
        os.kill(self.pid, signal.SIGUSR1)
        self.wait("it tells of its memory", lambda: bool(self.told.read_text()))
        small, large = map(int, self.told.read_text().split())
        below = children(self.pid)
        found = held([self.pid, *own_children(self.pid)])
        found |= {"small objects": small / 1000, "large objects": large / 1e6}
        return {**found, "processes": 1 + len(below)}

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait until something is so; raises BenchError when it is overdue."""
        end = time.monotonic() + DEADLINE
        while not condition():
            if time.monotonic() > end:
                raise BenchError(f"overdue: {what}")
            time.sleep(0.1)

    def connect(self) -> http.client.HTTPConnection:
        """A new connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        accept: str = "*/*",
        expect: int | None = None,
    ) -> bytes:
        """What is answered; raises BenchError unless the status is as expected, or good."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        headers = {"Accept": accept, **({"Content-Type": "application/json"} if data else {})}
        if token := owner_token.find("127.0.0.1", self.port):
            headers["Authorization"] = f"Bearer {token}"
        connection = self.connect()
        with contextlib.closing(connection):
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            said = answer.read()
        if answer.status != expect if expect else answer.status >= 300:
            raise BenchError(f"{method} {path}: {answer.status} {said[:300]!r}")
        return said

    # -- tasks -------------------------------------------------------------------------------

    def _all_on(self) -> bool:
        try:
            probes = json.loads(self.ask("GET", "/v1/probes"))["probes"]
        except OSError:
            return False
        return all(probe["state"] == "on" for probe in probes)

    def toggle(self, name: str) -> None:
        """Off, which is out of the kernel, and on."""
        self.ask("PUT", f"/v1/probes/{name}", {"on": False})
        self.wait(f"{name} is off", lambda: programs(self.pid) != self.programs)
        self.ask("PUT", f"/v1/probes/{name}", {"on": True})
        self.wait(f"{name} is on", lambda: programs(self.pid) == self.programs)

    def target(self, spec: str) -> None:
        """One more thing to time, and away with it."""
        self.ask("POST", "/v1/latency/targets", {"spec": spec})
        self.ask("DELETE", f"/v1/latency/targets?spec={quote(spec)}")
        self.wait(f"{spec} is gone", lambda: programs(self.pid) == self.programs)

    def watch(self) -> None:
        """Clients that read for a moment and hang up, and one that never reads."""
        for accept in ("text/event-stream", FRAMES) * 2:
            connection = self.connect()
            connection.request("GET", "/v1/frames", headers={"Accept": accept})
            if not connection.getresponse().read1(1000):
                raise BenchError("no frame came")
            connection.close()
        silent = self.connect()
        silent.request("GET", "/v1/frames", headers={"Accept": "text/event-stream"})
        time.sleep(0.5)
        silent.close()

    def run(self) -> None:
        """A measurement for a second, fetched and deleted."""
        made = json.loads(self.ask("POST", "/v1/runs", {"seconds": 1, "probes": ["syscalls"]}))
        path = f"/v1/runs/{made['id']}"

        def done() -> bool:
            return bool(json.loads(self.ask("GET", path))["state"] == "done")

        self.wait("the run is done", done)
        self.ask("DELETE", path)
