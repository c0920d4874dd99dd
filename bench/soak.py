# SPDX-License-Identifier: Apache-2.0
"""Does the dashboard grow? It runs for a while, and somebody types all the time.

    sudo ./run.sh bench soak [--minutes 30] [--agent]

The real dashboard, in a terminal of our own, renews itself twenty times a second; probes go
off and on, targets come and go, rows are filtered, drilled into and sorted, the past is
visited, recordings and exports are made, while storms of programs run. After each task of
keys, when everything is as it was before it, what all its processes hold is measured. It fails,
and says what grew, if memory, descriptors, threads, maps, programs or links do not stay level.
With --agent it is the agent, and somebody who asks it for everything.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.agent import free_port
from bench.flat import FEWEST, grown
from bench.held import LIMITS
from bench.measure import ROOT, BenchError, compiled
from bench.screen import Terminal
from bench.typist import Typist
from bench.visitor import Visitor

INTERVAL, HISTORY = 0.05, 10.0
"""Seconds; the shortest of both that there are."""
SIZE = (120, 40)
NOBODY = 65534
"""Who makes the storms, and whose calls are counted: what others do here is no concern."""
COMMON = ("-i", str(INTERVAL), "-u", str(NOBODY), "--budget", "0")
"""Options of both; what is given up to stay within a budget depends on what others do here."""

STORM = r"""
n=0
while kill -0 "$PPID"; do
    n=$((n + 1))
    "$1" "$3" 1 150 "$2"
    for name in ls cat true uname id no-such-program; do
        "$name" "/no/such/file-$n" >/dev/null 2>&1 </dev/null
    done
    "$4" "$3" 10 2000 >/dev/null
    sleep 0.7
done >/dev/null 2>&1
"""
"""Bursts of short programs ($1 runs $2), some that fail, and system calls ($4), on CPU $3, for
as long as the one who started it is there."""


@contextmanager
def storms(folder: Path) -> Iterator[None]:
    """The load, until the end."""
    made = compiled(folder, "spawn", "idle", "spin")
    cpu = str(max(os.sched_getaffinity(0)))
    words = [str(made["spawn"]), str(made["idle"]), cpu, str(made["spin"])]
    command = ["sh", "-c", STORM, "sh", *words]
    process = subprocess.Popen(command, start_new_session=True, user=NOBODY, group=NOBODY)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def folders() -> Iterator[tuple[Path, Path]]:
    """A folder, and one for files in it: both processes write as other users than ours."""
    with tempfile.TemporaryDirectory(prefix="probetop-soak-") as name:
        folder, files = Path(name), Path(name, "files")
        files.mkdir()
        for one in (folder, files):
            one.chmod(0o777)
        yield folder, files


def measured(
    user: Typist | Visitor, minutes: float, say: Callable[[str], object]
) -> dict[str, list[float]]:
    """What was held after each task of a user, figure by figure, over so many minutes."""
    series: dict[str, list[float]] = {name: [] for name in LIMITS}
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end or len(series["threads"]) < FEWEST:
        for done in user.tasks():
            found = user.held()
            for figure, value in found.items():
                series[figure].append(value)
            texts = [f"{value:.6g} {figure}" for figure, value in found.items()]
            say(f"{done}: {', '.join(texts)}")
    return series


def soak(minutes: float, say: Callable[[str], object]) -> dict[str, list[float]]:
    """What all processes of the dashboard held, figure by figure, over so many minutes.

    Raises BenchError when the dashboard ends, or does not do what a key asks for.
    """
    options = [*COMMON, "--history", str(HISTORY)]
    with folders() as (folder, files):
        told = folder / "told"
        terminal = Terminal([sys.executable, "-m", "bench.soaked", str(told), *options], *SIZE, {})
        try:
            with storms(folder):
                typist = Typist(terminal, *SIZE, files, told, filters=f"user={NOBODY}")
                return measured(typist, minutes, say)
        finally:
            terminal.close()


def soak_agent(minutes: float, say: Callable[[str], object]) -> dict[str, list[float]]:
    """As `soak`, of the agent; raises BenchError when it does not answer as it should."""
    with folders() as (folder, _):
        told, port = folder / "told", free_port()
        options = [*COMMON, "--listen", f"127.0.0.1:{port}"]
        command = [sys.executable, "-m", "bench.soaked", str(told), "serve", *options]
        process = subprocess.Popen(command, cwd=ROOT)
        try:
            with storms(folder):
                visitor = Visitor(process.pid, port, told, {"uid": NOBODY})
                return measured(visitor, minutes, say)
        finally:
            process.terminate()
            process.wait(10)


def main() -> int:
    """Status 1, and what grew, if something did."""
    parser = argparse.ArgumentParser(
        prog="./run.sh bench soak", description="Does probetop grow over time?"
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--agent", action="store_true", help="the agent, not the dashboard")
    args = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("it needs root: run it through sudo")
    try:
        series = (soak_agent if args.agent else soak)(
            args.minutes, lambda line: print(line, flush=True)
        )
    except BenchError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    lines = grown(series, LIMITS)
    print("\n".join(lines or [f"nothing grew, in {len(series['threads'])} measurements"]))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
