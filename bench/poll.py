# SPDX-License-Identifier: Apache-2.0
"""What one poll takes of a machine of 256 CPUs, simulated: from maps to a pane's lines.

    .venv/bin/python -m bench.poll [ROUNDS]

Every table says how many processes are known and how many of them had something to count since
the last poll, for that is what a poll's cost depends on.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Protocol

from bench.simulated import Counters, Latency, Maps, Syscalls
from probes.core.frame import Frame, Host
from probes.probe import Probe
from probes.report.windows import continues
from tui.panes.base import Pane
from tui.panes.latency import LatencyPane
from tui.panes.pmc import PmcPane
from tui.panes.syscalls import SyscallPane

Table = tuple[str, Sequence[str], list[Sequence[str]]]
"""A heading, the names of the columns, and rows of cells."""
CPUS, PROCESSES, TARGETS = 256, 16_384, 100
MANY_CPUS = 1024
"""What the largest machines have, of which less is measured."""
ACTIVE = (0, 500, 2_000, 16_384)
"""How many of the processes are active between two polls."""
PARTS = ("read", "Sample", "graphs", "table", "lines")
POLL = "poll"
"""What the poller does, which is the first two; the others are the pane's."""
MANY = f"{ACTIVE[2]:,}"
"""A busy machine of that size."""
WIDTH, HEIGHT = 118, 40
GARBAGE = (50_000, 20, 20)
"""How often garbage is looked for, as in the dashboard."""
WARM = 3
"""Polls before those that count: a pane keeps what it saw for some intervals."""


class Machine(Protocol):
    """A probe, and work for it to count."""

    @property
    def maps(self) -> Maps:
        """What both sides see."""

    def adopt(self) -> None:
        """The probe takes the maps over."""

    @property
    def probe(self) -> Probe:
        """The probe that reads."""

    def work(self, active: int) -> None:
        """So many processes are active."""


def of_one(machine: Machine, pane: Pane, active: int, rounds: int) -> list[float]:
    """Milliseconds of each of PARTS and of their sum, each of the fastest round."""
    machine.work(PROCESSES)
    frames = [_frame(machine.probe, 0.0, None)]
    best = [float("inf")] * len(PARTS)
    whole = float("inf")
    for number in range(1, WARM + rounds + 1):
        machine.work(active)
        gc.collect()
        spent = _poll(machine.probe, pane, frames, number / 100)
        if number > WARM:
            best = list(map(min, best, spent))
            whole = min(whole, sum(spent))
    return [*best, whole]


def _poll(probe: Probe, pane: Pane, frames: list[Frame], now: float) -> list[float]:
    times = [time.thread_time()]

    def done() -> None:
        times.append(time.thread_time())

    probe.drain()
    done()
    frames.append(_frame(probe, now, frames[-1]))
    done()
    before, after = frames[-2:]
    pane.tick(before, after)
    done()
    pane.show(before, after, 1.0)
    done()
    pane.lines(WIDTH, HEIGHT)
    done()
    return [1000 * (b - a) for a, b in pairwise(times)]


def _frame(probe: Probe, now: float, last: Frame | None) -> Frame:
    before = last.samples[probe.name] if last is not None else None
    sample = probe.read(now)
    # As the live source does it.
    since = before.since if before is not None and continues(before, sample) else now
    sample = replace(sample, since=since)
    return Frame(time=now, mono=now, interval=1.0, host=Host(), samples={probe.name: sample})


def of_polls(rounds: int) -> Table:
    """A poll of each probe, by how many processes were active."""
    thresholds = gc.get_threshold()
    gc.set_threshold(*GARBAGE)
    try:
        return _of_polls(rounds)
    finally:
        gc.set_threshold(*thresholds)


def _machines(cpus: int) -> dict[str, tuple[Callable[[], Machine], Callable[[], Pane]]]:
    return {
        "system calls": (lambda: Syscalls(cpus, PROCESSES), SyscallPane),
        "counters": (lambda: Counters(cpus, PROCESSES), PmcPane),
        f"latency, {TARGETS} targets": (lambda: Latency(cpus, PROCESSES, TARGETS), LatencyPane),
    }


def of_many_cpus(rounds: int) -> Table:
    """The maps of the largest machines: their memory, taking them over, and a poll."""
    rows: list[Sequence[str]] = []
    active = ACTIVE[2]
    for name, (make, pane) in _machines(MANY_CPUS).items():
        machine = make()
        size = sum([len(memory) for memory in machine.maps.memory.values()])
        started = min([_start(make) for _ in range(rounds)])
        cells = of_one(machine, pane(), active, rounds)
        numbers = (started, cells[0] + cells[1], cells[-1])
        rows.append((name, f"{size / (1 << 20):.1f}", *[f"{ms:.2f}" for ms in numbers]))
    title = (
        f"{MANY_CPUS:,} CPUs and {PROCESSES:,} processes, {active:,} of them active, simulated: "
        f"MiB, and ms, fastest of {rounds} rounds"
    )
    return title, ("probe", "maps", "start", POLL, "all"), rows


def _start(make: Callable[[], Machine]) -> float:
    """Milliseconds to take over maps, and for the first poll of maps that are empty."""
    machine = make()
    begun = time.thread_time()
    machine.adopt()
    machine.probe.drain()
    spent = 1000 * (time.thread_time() - begun)
    machine.probe.release()
    return spent


def _of_polls(rounds: int) -> Table:
    rows: list[Sequence[str]] = []
    for name, (machine, pane) in _machines(CPUS).items():
        for active in ACTIVE:
            cells = of_one(machine(), pane(), active, rounds)
            poll = cells[0] + cells[1]
            rows.append((name, f"{active:,}", *[f"{cell:.2f}" for cell in (poll, *cells)]))
    title = (
        f"One poll of {CPUS} CPUs and {PROCESSES:,} processes, simulated: ms of CPU time, "
        f"fastest of {rounds} rounds"
    )
    return title, ("probe", "active", POLL, *PARTS, "all"), rows


def main() -> int:
    """Prints the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for title, head, rows in (of_polls(rounds), of_many_cpus(rounds)):
        print(title)
        for row in (head, *rows):
            print("".join([f"{cell:>10}" if at else f"{cell:<22}" for at, cell in enumerate(row)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
