# SPDX-License-Identifier: Apache-2.0
"""A running `probetop serve`, and a Prometheus server that scrapes it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from tests.kernel.harness import DEADLINE, eventually
from tests.paths import ROOT

SCRAPE = "250ms"


def fetch(
    url: str, method: str = "GET", body: Any = None, accept: str = "*/*", header: str = ""
) -> bytes:
    """What a server answers; fails the test for any error. `header` is one more, as a line."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Accept": accept, **({"Content-Type": "application/json"} if data else {})}
    if header:
        name, _, headers[name] = header.partition(": ")
    try:
        with urlopen(Request(url, data, headers, method=method), timeout=DEADLINE) as answer:
            return bytes(answer.read())
    except HTTPError as error:
        raise AssertionError(f"{method} {url}: {error.code} {error.read()[:500]!r}") from error


class Process:
    """A process that is ended with the test."""

    process: subprocess.Popen[str]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.terminate()
        try:
            self.process.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()


class Agent(Process):
    """`probetop serve` on a port of its own."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-P", "-m", "tui.cli", "serve", "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [*command, "-i", "0.2", "--linger", "0", *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r"http://(127\.0\.0\.1:\d+)", line)
        if not found:
            self.process.terminate()
            raise AssertionError(f"it said {line!r}")
        self.address = found[1]
        mine = re.search(r"controls it: curl -H @(\S+) ", self.process.stderr.readline())
        assert mine
        self.header = Path(mine[1]).read_text().strip()

    def put(self, path: str, **body: Any) -> dict[str, Any]:
        """Change something; the answer."""
        answer: dict[str, Any] = json.loads(
            fetch(f"http://{self.address}{path}", "PUT", body, header=self.header)
        )
        return answer

    def on(self, probe: str, on: bool = True, **options: Any) -> None:
        """Switch a probe, and wait until it is so."""
        body = {"on": on, **({"options": options} if options else {})}
        answer = self.put(f"/v1/probes/{probe}", **body)
        assert answer["state"] == ("on" if on else "off"), answer

    def metrics(self, accept: str = "text/plain") -> bytes:
        """What it exposes now."""
        return fetch(f"http://{self.address}/metrics", accept=accept)

    def frames(self) -> int:
        """How many readings there were."""
        found = re.search(rb"^probetop_frames_total (\S+)", self.metrics(), re.MULTILINE)
        assert found
        return int(float(found[1]))

    def settled(self) -> int:
        """Wait until all that happened until now is exposed; the number of readings then."""
        wanted = self.frames() + 4
        return eventually("everything is read", lambda: (n := self.frames()) >= wanted and n)


class Prometheus(Process):
    """Debian's server in a directory of its own; it scrapes one agent four times a second."""

    def __init__(self, directory: Path, agent: Agent, *options: str) -> None:
        self.agent = agent
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        rules = ROOT / "deploy/prometheus/probetop.rules.yml"
        config = directory / "prometheus.yml"
        config.write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": SCRAPE, "evaluation_interval": "1s"},
                    "rule_files": [str(rules)],
                    "scrape_configs": [
                        {
                            "job_name": "probetop",
                            "honor_labels": True,
                            "scrape_timeout": SCRAPE,
                            "static_configs": [{"targets": [agent.address]}],
                        }
                    ],
                }
            )
        )
        self.process = subprocess.Popen(
            [
                "prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory}/data",
                f"--web.listen-address={self.address}", "--log.level=warn", *options,
            ],
            stdout=subprocess.DEVNULL,
            stderr=(directory / "log").open("w"),
            text=True,
            cwd=directory,
        )  # fmt: skip
        eventually("Prometheus is ready", self._ready)
        self.scraped()

    def _ready(self) -> bool:
        assert self.process.poll() is None
        try:
            return bool(fetch(f"http://{self.address}/-/ready"))
        except (URLError, OSError, AssertionError):
            return False

    def api(self, path: str, **arguments: str) -> Any:
        """The data of an answer of its API."""
        query = f"?{urlencode(arguments)}" if arguments else ""
        answer = json.loads(fetch(f"http://{self.address}/api/v1/{path}{query}"))
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[tuple[Mapping[str, str], float]]:
        """The series of an instant query, with their values now."""
        data = self.api("query", query=expression)
        assert data["resultType"] == "vector"
        return [(one["metric"], float(one["value"][1])) for one in data["result"] if "value" in one]

    def value(self, expression: str) -> float:
        """The value of the only series of a query; 0 if there is none yet."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return found[0][1] if found else 0.0

    def by(self, label: str, expression: str) -> dict[str, float]:
        """Values by a label that tells the series apart."""
        found = [(labels[label], value) for labels, value in self.query(expression)]
        assert len(dict(found)) == len(found)
        return dict(found)

    def scraped(self) -> None:
        """Wait until it has scraped all that happened until now."""
        wanted = self.agent.settled()
        eventually("it is scraped", lambda: self.value("probetop_frames_total") >= wanted)
        # Samples of one scrape become visible together, once they are committed.
        time.sleep(0.1)
