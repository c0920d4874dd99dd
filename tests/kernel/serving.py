# SPDX-License-Identifier: Apache-2.0
"""The agent as a process: started as a user does, asked over its socket, and ended."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.kernel.harness import DEADLINE, eventually
from tests.paths import ROOT

HOME = {"HOME": "/root", "XDG_CONFIG_HOME": "/nonexistent"}


class Agent:
    """`probetop serve` with these arguments, on a port that is free unless they say otherwise.

    `headers` go with every request: the token that it made for us, if it made one.
    """

    def __init__(self, *arguments: str, root: Path = ROOT, **environment: str) -> None:
        if "--listen" not in arguments:
            arguments = ("--listen", "127.0.0.1:0", *arguments)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("SUDO_")}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tui.cli", "serve", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env={**inherited, **HOME, "PYTHONPATH": str(root), **environment},
        )
        self.pid = self.process.pid
        self.said: list[str] = []
        self.headers: dict[str, str] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.where = eventually("it serves, or has said why not", self._where)
        except BaseException:
            self.kill()
            raise

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.rstrip("\n"))

    def _where(self) -> str:
        for line in self.said:
            found = re.match(r"probetop: serving on (\S+) as", line)
            mine = re.search(r" controls it: curl -H @(\S+) ", self.said[-1])
            if mine:
                name, _, value = Path(mine[1]).read_text().strip().partition(": ")
                self.headers[name] = value
            if found and (mine or "may read" not in line):
                return found[1]
        assert self.process.poll() is None, (self.process.wait(), self.said)
        return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is not None:
            return
        try:
            self.end()
        except subprocess.TimeoutExpired:
            self.kill()
            if error is None:
                raise

    def kill(self) -> None:
        """End it by force; its broker ends with it."""
        self.process.kill()
        self.process.wait()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the status."""
        self.process.send_signal(number)
        status = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return status

    def children(self) -> list[int]:
        """Its processes: the broker, and those that that has."""
        found, left = [], [self.pid]
        while left:
            pid = left.pop()
            with suppress(OSError):
                text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
                left += [int(word) for word in text.split()]
                found += [int(word) for word in text.split()]
        return found

    def connect(self) -> socket.socket:
        """A connection to it."""
        if self.where.startswith("unix:"):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(60)
            sock.connect(self.where.removeprefix("unix:"))
            return sock
        return socket.create_connection(("127.0.0.1", int(self.where.rpartition(":")[2])), 60)

    def open(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> http.client.HTTPResponse:
        """The beginning of an answer."""
        client = http.client.HTTPConnection("localhost")
        client.sock = self.connect()
        sent = {**self.headers, **(headers or {})}
        if body is not None:
            body, sent["Content-Type"] = json.dumps(body), "application/json"
        client.request(method, path, body, sent)
        return client.getresponse()

    def ask(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        """The JSON of an answer with this status."""
        with self.open(method, path, body) as response:
            data = response.read()
            assert response.status == status, (response.status, data[:500])
            return json.loads(data) if data.startswith(b"{") else data

    def get(self, path: str, status: int = 200) -> Any:
        """The JSON of what is at an address."""
        return self.ask("GET", path, status=status)

    def states(self) -> dict[str, str]:
        """The probes' states."""
        return {probe["name"]: probe["state"] for probe in self.get("/v1/probes")["probes"]}

    def all_are(self, state: str, *names: str) -> None:
        """Wait until these probes are in this state."""
        eventually(f"{names} are {state}", lambda: {self.states()[n] for n in names} == {state})


def events(response: http.client.HTTPResponse) -> Any:
    """The objects of server-sent events, as they come."""
    while line := response.readline():
        if line.startswith(b"data: "):
            yield json.loads(line[6:])
