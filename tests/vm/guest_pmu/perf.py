# SPDX-License-Identifier: Apache-2.0
"""What `perf stat` counts, for comparison."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.kernel.harness import DEADLINE


@dataclass(frozen=True)
class Count:
    """One event's line: scaled `value` (None: it was not counted), and its share of the time."""

    value: float | None
    share: float


class PerfStat:
    """`perf stat` of events while the block runs, of a process or of all CPUs.

    Then `counts` has them by event, `all` in their order.

    perf writes its lines with fields separated by semicolons: the value, its unit, the event,
    nanoseconds that it ran, percent of the time (perf-stat(1), CSV FORMAT).
    """

    def __init__(self, events: Sequence[str], record: Path, pid: int | None = None) -> None:
        self.record = record
        self.counts: dict[str, Count] = {}
        self.all: list[Count] = []
        whom = ["-a"] if pid is None else ["-p", str(pid)]
        self._command = ["perf", "stat", "-x", ";", "-o", str(record), "-e", ",".join(events)]
        self._command += whom

    def __enter__(self) -> PerfStat:
        ours, theirs = _fifos(self.record.parent)
        # With this delay it waits to be told to begin.
        control = ["--delay=-1", f"--control=fifo:{ours},{theirs}"]
        self._process = subprocess.Popen([*self._command, *control])
        self._control, self._answers = ours.open("w"), theirs.open()
        self._order("enable")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._order("disable")
        finally:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(DEADLINE)
            self._control.close()
            self._answers.close()
        for line in self.record.read_text().splitlines():
            fields = line.split(";")
            if len(fields) < 5:
                continue
            known = fields[0][:1].isdigit()
            value = float(fields[0]) if known else None
            self.all.append(Count(value, float(fields[4]) / 100 if known else 0.0))
            self.counts[fields[2]] = self.all[-1]

    def _order(self, word: str) -> None:
        """A command, done when perf has answered."""
        self._control.write(f"{word}\n")
        self._control.flush()
        assert self._answers.readline().strip("\0\n") == "ack"


def _fifos(directory: Path) -> tuple[Path, Path]:
    paths = directory / "perf-control", directory / "perf-answers"
    for path in paths:
        if not path.exists():
            os.mkfifo(path)
    return paths
