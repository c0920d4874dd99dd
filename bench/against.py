# SPDX-License-Identifier: Apache-2.0
"""Is this tree slower than another commit? Both in one run, by turns.

    sudo ./run.sh bench --against COMMIT [--quick]

Absolute times differ by tens of per cent between two machines, and between two minutes of one,
and no counter of instructions is there in most virtual machines: bytecodes would leave out what
Python's C code does, the verifier's instructions are not those that an event executes. So all is
ratios of measurements that are as near in time as possible: polls of both take turns within a
second, both draw the same recording at the same time, what calls and switches cost is
the difference to nothing attached in the same round. Of each the median ratio and its interval
(order statistics) are told, and it is slower only if the whole interval is above 1.1: noise makes
the interval wide, and then it is said that nobody knows.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench import measure
from bench.commit import HERE_NOW, Side, SideError, check_out
from bench.hooks import AT_START, attached_by
from bench.intervals import heading, of_median
from bench.measure import BenchError
from bench.screen import Terminal, cpu_ns
from bench.tables import NONE, Table, spread

LIMIT = 1.10
"""Times the cost of the other commit that this tree may have at most."""
LEAST_DRAWN = 2000
"""Bytes of a screen that stands."""
RECORDING = Path("tui") / "demo" / "shop.ptrec"
FASTER = b">>>>"
"""The keys for 16 times the recording's speed."""
QUIET_SECONDS, DEADLINE = 0.6, 20.0
"""The recording is at its end when nothing is drawn for so long; so long it may take."""
POLLS = {"syscalls": "system calls", "pmc": "counters", "latency": "latency"}
WISHES: dict[str, Mapping[str, object]] = {
    "all probes, calls timed": {"on": AT_START, "options": {"syscalls": {"latency": True}}},
    "system calls, counted": {"on": ("syscalls",)},
    "runq": {"on": ("latency",), "options": {"latency": {"targets": ("runq",)}}},
}
"""What is attached: the first, which has all programs, in a short run too."""

SLOWER = "slower"

Say = Callable[[str], object]


class Pair(NamedTuple):
    """One thing, measured of this tree and of the other at about the same time."""

    ours: float
    theirs: float


Pairs = dict[str, list[Pair]]
"""By what was measured, with its unit."""


def _attached_round(folder: Path, wish: str, sides: tuple[Side, Side], number: int) -> Pairs:
    """The cost that each side's probes add to a call and to a switch."""
    programs = measure.compiled(folder, "spin", "switch")
    cpu = max(os.sched_getaffinity(0))
    timings: dict[str, Callable[[], float]] = {
        "a call, ns": lambda: measure.timed(programs["spin"], cpu, 200, 5_000),
        "a switch, ns": lambda: measure.timed(programs["switch"], cpu, 300, 300),
    }
    found: dict[str, dict[str, float]] = {name: {} for name in timings}
    # Who comes first changes from round to round, as does what grows or falls within one.
    order: list[Side | None] = [None, *(sides if number % 2 else sides[::-1])]
    for side in order:
        with ExitStack() as stack:
            if side is not None:
                words = {"on": AT_START, "options": {}, "always": False, **WISHES[wish]}
                try:
                    stack.enter_context(attached_by(side, words))
                except BenchError as error:
                    raise SideError(side, error) from error
            for name, timing in timings.items():
                found[name][side.name if side else ""] = timing()
    ours, theirs = sides
    return {
        f"{wish}: {name}": [Pair(f[ours.name] - f[""], f[theirs.name] - f[""])]
        for name, f in found.items()
    }


class _Worker:
    """A side's bench.worker."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.process = subprocess.Popen(
            [side.python, "-P", "-m", "bench.worker"],
            cwd=side.root, env=side.environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def ask(self, probe: str) -> list[float]:
        """Milliseconds of a poll, and of its cells; raises BenchError."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(f"{probe}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        said = self.process.stdout.readline().split()
        if len(said) != 2:
            raise SideError(self.side, f"bench.worker does not poll {probe}")
        return [float(word) for word in said]

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


def of_poll(sides: tuple[Side, Side], probe: str, rounds: int) -> Pairs:
    """One poll of a large machine, and the cells of its pane."""
    found: Pairs = {}
    with ExitStack() as stack:
        workers = []
        for side in sides:
            workers.append(_Worker(side))
            stack.callback(workers[-1].close)
        for number in range(rounds + 1):
            turn = workers if number % 2 else workers[::-1]
            answers = {worker.side.name: worker.ask(probe) for worker in turn}
            if number == 0:  # machines are made, modules are imported
                continue
            pairs = zip(*(answers[side.name] for side in sides), strict=True)
            for what, pair in zip(("poll", "cells"), pairs, strict=True):
                found.setdefault(f"{POLLS[probe]}: {what}, ms", []).append(Pair(*pair))
    return found


@contextmanager
def _replaying(side: Side, recording: Path) -> Iterator[Terminal]:
    command = [side.python, "-P", "-m", "tui.cli", "replay", str(recording)]
    terminal = Terminal(command, 120, 40, {"PYTHONPATH": str(side.root)})
    reader = threading.Thread(target=terminal.read, args=(60.0,), daemon=True)
    reader.start()
    try:
        yield terminal
    finally:
        terminal.process.kill()
        reader.join()
        terminal.close()


def _wait_until_quiet(terminals: Sequence[Terminal]) -> None:
    """Until nothing is drawn any more; raises BenchError."""
    end = time.monotonic() + DEADLINE
    seen, since = -1, time.monotonic()
    while time.monotonic() < since + QUIET_SECONDS:
        if time.monotonic() > end:
            raise BenchError("a recording does not come to its end")
        received = sum([terminal.received for terminal in terminals])
        if received != seen:
            seen, since = received, time.monotonic()
        time.sleep(0.05)


def drawn(sides: Sequence[Side], recording: Path) -> list[float]:
    """ms of CPU that each side takes to draw a recording, all at the same time."""
    with ExitStack() as stack:
        terminals = [stack.enter_context(_replaying(side, recording)) for side in sides]
        end = time.monotonic() + DEADLINE
        for side, terminal in zip(sides, terminals, strict=True):
            while terminal.received < LEAST_DRAWN:
                if time.monotonic() > end or terminal.process.poll() is not None:
                    raise SideError(side, "replay draws nothing")
                time.sleep(0.05)
        time.sleep(0.5)
        before = [cpu_ns(terminal.tree()) for terminal in terminals]
        for terminal in terminals:
            os.write(terminal.master, FASTER)
        _wait_until_quiet(terminals)
        spent = [
            sum([ns - old.get(path, 0) for path, ns in cpu_ns(terminal.tree()).items()]) / 1e6
            for terminal, old in zip(terminals, before, strict=True)
        ]
    return spent


def verdict(pairs: list[Pair]) -> tuple[str, str, str]:
    """The median ratio, its interval, and what follows from them."""
    if not pairs or min(pair.theirs for pair in pairs) <= 0:
        return NONE, NONE, "not known: less than the noise"
    ratio = of_median([pair.ours / pair.theirs for pair in pairs])
    if ratio.low > LIMIT:
        text = f"{SLOWER} by {100 * (ratio.median - 1):.0f} %"
    elif ratio.high <= LIMIT:
        text = "not slower"
    else:
        text = "not known: too much noise"
    return f"{ratio.median:.3f}", spread(ratio, ".3f"), text


def as_table(found: Pairs, left_out: Mapping[str, str], sides: tuple[Side, Side]) -> Table:
    """A row for each thing: medians of both sides, their ratio, and whether it is slower."""
    rows: list[tuple[str, ...]] = []
    for name, pairs in found.items():
        ours, theirs = median(p.ours for p in pairs), median(p.theirs for p in pairs)
        rows.append((name, f"{theirs:.2f}", f"{ours:.2f}", *verdict(pairs)))
    rows += [(name, *[NONE] * 4, f"not compared: {why}") for name, why in left_out.items()]
    title = f"{sides[0].name} beside {sides[1].name}, by turns"
    rounds = min(map(len, found.values()), default=1)
    return title, ("what", "other", "this", "ratio", heading(rounds), "result"), [*rows]


def _parts(
    folder: Path, sides: tuple[Side, Side], rounds: int, quick: bool
) -> dict[str, Callable[[], Pairs]]:
    """The comparisons, by their names."""

    def attached(wish: str) -> Pairs:
        found: Pairs = {}
        for number in range(rounds):
            for what, pairs in _attached_round(folder, wish, sides, number).items():
                found.setdefault(what, []).extend(pairs)
        return found

    def draws() -> Pairs:
        found: list[Pair] = []
        for number in range(rounds // 2):
            turn = sides if number % 2 else sides[::-1]
            spent = drawn((*turn, *turn), sides[1].root / RECORDING)
            pairs = (spent[:2], spent[2:])
            found += [Pair(*(pair if number % 2 else pair[::-1])) for pair in pairs]
        return {"the dashboard: a recording drawn, ms": found}

    wishes = [*WISHES][: 1 if quick else None]
    out: dict[str, Callable[[], Pairs]] = {wish: partial(attached, wish) for wish in wishes}
    out |= {f"polls, {text}": partial(of_poll, sides, p, rounds) for p, text in POLLS.items()}
    return {**out, "drawing": draws}


def compare(commit: str, quick: bool, say: Say) -> tuple[Table, bool]:
    """Measures both; True if this tree is slower at something. Raises BenchError.

    What the other commit cannot do is left out, and said; what this tree cannot do is an error.
    """
    found: Pairs = {}
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="probetop-bench-") as name:
        folder = Path(name)
        sides = (HERE_NOW, check_out(commit, folder))
        for part, measured in _parts(folder, sides, 6 if quick else 20, quick).items():
            say(f"  {part}")
            try:
                found |= measured()
            except SideError as error:
                if error.side == HERE_NOW:
                    raise
                left_out[part] = str(error)
    slower = any(verdict(pairs)[2].startswith(SLOWER) for pairs in found.values())
    return as_table(found, left_out, sides), slower
