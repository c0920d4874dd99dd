# SPDX-License-Identifier: Apache-2.0
"""What the agent takes: alone, scraped, and watched, on a machine that works."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple

import psutil

from bench.intervals import heading, of_median
from bench.measure import ROOT, BenchError
from bench.screen import cpu_ns, machine_with, memory, probetop_command
from bench.tables import NONE, Table, spread

DEADLINE = 60.0
FRAMES = "application/vnd.probetop.frames"
TEXT, PROTOBUF = (
    "application/openmetrics-text; version=1.0.0",
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
)


class Reader:
    """A client in a thread of its own: bytes that it was sent, and how long answers took."""

    def __init__(self) -> None:
        self.received = 0
        self.answers: list[float] = []
        self.failed: Exception | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, work: Callable[[Reader], None]) -> None:
        """Work until the end."""

        def run() -> None:
            try:
                work(self)
            except (OSError, http.client.HTTPException, BenchError) as error:
                self.failed = error

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait; True if it is over."""
        return self._stop.wait(seconds)

    def end(self) -> None:
        """Stop, and raise BenchError if it could not work."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(DEADLINE)
        if self.failed is not None:
            raise BenchError(f"a client of the agent failed: {self.failed}")


def _scrape(port: int, accept: str) -> Callable[[Reader], None]:
    """A scraper that asks once a second, on one connection."""

    def work(reader: Reader) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        with contextlib.closing(connection):
            while True:
                begun = time.perf_counter()
                connection.request("GET", "/metrics", headers={"Accept": accept})
                answer = connection.getresponse()
                reader.received += len(answer.read())
                if answer.status != 200:
                    raise BenchError(f"/metrics answers {answer.status}")
                reader.answers.append(1000 * (time.perf_counter() - begun))
                if reader.wait(1.0):
                    return

    return work


def _watch(port: int, accept: str) -> Callable[[Reader], None]:
    """A client of the frames, as they come."""

    def work(reader: Reader) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        with contextlib.closing(connection):
            connection.request("GET", "/v1/frames", headers={"Accept": accept})
            answer = connection.getresponse()
            if answer.status != 200:
                raise BenchError(f"/v1/frames answers {answer.status}")
            while not reader.wait(0):
                data = answer.read1(65536)
                if not data:
                    raise BenchError("the frames ended")
                reader.received += len(data)

    return work


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _ask(port: int, path: str) -> object:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        return json.loads(body) if answer.status == 200 else None


def _all_on(port: int) -> bool:
    try:
        found = _ask(port, "/v1/probes")
    except OSError:
        return False
    return isinstance(found, dict) and all(one["state"] == "on" for one in found["probes"])


@contextmanager
def agent(*options: str) -> Iterator[tuple[int, psutil.Process]]:
    """An agent with all probes on: its port, and its process. Raises BenchError."""
    port = free_port()
    command = [*probetop_command(), "serve", "--listen", f"127.0.0.1:{port}", *options]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + DEADLINE
        while not _all_on(port):
            if process.poll() is not None or time.monotonic() > end:
                raise BenchError("the agent does not run: see ./run.sh serve")
            time.sleep(0.2)
        yield port, psutil.Process(process.pid)
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
        process.wait(DEADLINE)


class Taken(NamedTuple):
    """What an agent took: per cent of one CPU, bytes a second, MB (PSS), ms of the answers."""

    cpu: float
    bytes: float
    memory: float
    answers: list[float]


def _taken(
    process: psutil.Process,
    work: Callable[[Reader], None] | None,
    settle: float,
    seconds: float,
) -> Taken:
    reader = Reader()
    if work is not None:
        reader.begin(work)
    time.sleep(settle)
    tree = [process, *process.children(recursive=True)]
    cpu, received, begun = cpu_ns(tree), reader.received, time.monotonic()
    time.sleep(seconds)
    spent = time.monotonic() - begun
    used = sum([ns - cpu.get(path, 0) for path, ns in cpu_ns(tree).items()])
    bytes_a_second = (reader.received - received) / spent
    used_memory = memory(tree)
    reader.end()
    return Taken(used / spent / 1e7, bytes_a_second, used_memory, reader.answers)


def _row(name: str, taken: Sequence[Taken]) -> Sequence[str]:
    """Medians of all rounds; of memory the most."""
    cpu, sent = of_median([one.cpu for one in taken]), median([one.bytes for one in taken])
    answers = [ms for one in taken for ms in one.answers]
    cells = (f"{cpu.median:.2f}", spread(cpu, ".2f"), f"{sent:.0f}" if sent else NONE)
    most = max(one.memory for one in taken)
    return (name, *cells, f"{most:.0f}", f"{median(answers):.1f}" if answers else NONE)


def of_agent(rounds: int, settle: float, seconds: float, say: Callable[[str], object]) -> Table:
    """The agent with all four probes on, once a second, with one client after the other."""
    with (
        machine_with("workload", 6 * rounds * (seconds + settle) + 60),
        agent("--linger", "0") as (
            port,
            process,
        ),
    ):
        clients: dict[str, Callable[[Reader], None] | None] = {
            "nobody": None,
            "a scrape a second, OpenMetrics": _scrape(port, TEXT),
            "a scrape a second, protobuf": _scrape(port, PROTOBUF),
            "server-sent events": _watch(port, "text/event-stream"),
            "a remote dashboard": _watch(port, FRAMES),
        }
        taken: dict[str, list[Taken]] = {name: [] for name in clients}
        for number in range(rounds):
            for name, work in clients.items():
                say(f"  the agent, and {name}, round {number + 1} of {rounds}")
                taken[name].append(_taken(process, work, settle, seconds))
    title = f"The agent, all probes on, under load, median of {rounds} rounds of {seconds:g} s"
    head = ("who asks", "% of a CPU", heading(rounds), "bytes/s", "MB (PSS)", "ms an answer")
    return title, head, [_row(name, found) for name, found in taken.items()]
