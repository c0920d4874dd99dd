# SPDX-License-Identifier: Apache-2.0
"""Dashboards in a terminal of our own: what they send, what they take, how soon they are there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil

from bench.hooks import AT_START
from bench.intervals import heading, of_median
from bench.measure import HERE, ROOT, BenchError
from bench.tables import spread

HEADINGS = {
    "syscalls": ("share",),
    "execs": ("argv",),
    "latency": ("p90",),
    "pmc": ("ctx/s", "IPC"),
}
"""Headings of the panes' tables, one of which is drawn once the probe is on."""
Dashboards = dict[str, tuple[list[str], dict[str, str]]]
"""Command and environment of dashboards, by their names."""
_SEQUENCE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[PX^_\]].*?(?:\x1b\\|\x07)|[ -/]*[0-~])", re.S)


class Taken(NamedTuple):
    """What a dashboard took: per cent of one CPU, bytes a second, MB (PSS), processes."""

    cpu: float
    bytes: float
    memory: float
    processes: int


def columns(rounds: int) -> tuple[str, ...]:
    """The names of what `cells` tells of so many rounds."""
    return ("% of a CPU", heading(rounds), "bytes/s", "MB (PSS)", "processes")


def cells(taken: Sequence[Taken]) -> tuple[str, ...]:
    """Medians of what a dashboard took; of memory and processes the most."""
    cpu = of_median([one.cpu for one in taken])
    sent = median([one.bytes for one in taken])
    most = max(one.memory for one in taken), max(one.processes for one in taken)
    return (f"{cpu.median:.2f}", spread(cpu, ".2f"), f"{sent:.0f}", f"{most[0]:.0f}", str(most[1]))


class Began(NamedTuple):
    """Milliseconds from the start to the first frame and to all probes on, and to quit."""

    frame: float
    probes: float
    quit: float


def readable(data: bytes) -> str:
    """What a terminal was sent, without what is no text."""
    return _SEQUENCE.sub(b"", data).decode(errors="replace")


def probetop_command() -> list[str]:
    """What a user types, where this checkout is set up; else the same less its set-up."""
    stamp = ROOT / ".venv" / "stamp-run"
    if stamp.is_file() and stamp.read_text().startswith(f"{ROOT}\n"):
        return [str(ROOT / "run.sh")]
    return [sys.executable, "-m", "tui.cli"]


def dashboards(home: Path, has: Callable[[str], object]) -> Dashboards:
    """Command and environment of what is compared; all renew the screen once a second.

    `home` is an empty folder, where peers find no settings of the user's.
    """
    ours = probetop_command()
    at_home = {"XDG_CONFIG_HOME": str(home), "HOME": str(home)}
    out: Dashboards = {
        "probetop": (ours, {}),
        "probetop --latency": ([*ours, "--latency"], {}),
    }
    if has("htop"):
        out["htop"] = (["htop", "-d", "10"], at_home)
    if has("btop"):
        (home / "btop").mkdir(exist_ok=True)
        (home / "btop" / "btop.conf").write_text("update_ms = 1000\n")
        out["btop"] = (["btop"], at_home)
    if has("glances"):
        out["glances"] = (["glances", "-t", "1", "--disable-check-update"], at_home)
    return out


@contextmanager
def machine_with(load: str, seconds: float) -> Iterator[None]:
    """The machine as it is ("idle"), or with bench/workload.py at work for so long at most."""
    if load == "idle":
        yield
        return
    script = str(HERE / "workload.py")
    process = subprocess.Popen(["/usr/bin/python3", script, "--seconds", str(seconds)])
    try:
        time.sleep(3)
        yield
    finally:
        process.terminate()
        process.wait(20)


class Terminal:
    """A program in a pseudo-terminal, whose output is read, counted and thrown away."""

    def __init__(
        self, command: Sequence[str], columns: int, rows: int, environment: Mapping[str, str]
    ) -> None:
        self.master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("=4H", rows, columns, 0, 0))
        common = {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        ours = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLORTERM")}
        self.begun = time.monotonic()
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=ROOT,
            start_new_session=True,
            env={**ours, **common, **environment},
        )
        os.close(slave)
        self.received = 0

    def read(self, seconds: float, on_data: Callable[[bytes], object] = bytes) -> None:
        """Read for this long, or until `on_data` returns True or the program has ended."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            ready, _, _ = select.select([self.master], [], [], min(left, 0.05))
            if not ready:
                if self.process.poll() is not None:
                    return
                continue
            try:
                data = os.read(self.master, 65536)
            except OSError:  # EIO: nobody has it open any more
                return
            self.received += len(data)
            if on_data(data) is True:
                return

    def tree(self) -> list[psutil.Process]:
        """The program and what it has started."""
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]

    def close(self) -> None:
        """End it, if it has not ended."""
        if self.process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in reversed(self.tree()):
                    process.send_signal(signal.SIGKILL)
            self.read(1.0)
        self.process.wait(5)
        os.close(self.master)


def cpu_ns(processes: Sequence[psutil.Process]) -> dict[Path, int]:
    """Nanoseconds on a CPU by thread, by the scheduler's own account."""
    out: dict[Path, int] = {}
    for process in processes:
        for path in Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                out[path] = int(path.read_text().split()[0])
    return out


def memory(processes: Sequence[psutil.Process]) -> float:
    """MB of their own and their part of what they share."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return total / 1e6


def taken(
    command: Sequence[str],
    size: tuple[int, int],
    settle: float,
    seconds: float,
    environment: Mapping[str, str],
) -> Taken:
    """What a dashboard takes over some seconds, once it has had `settle` seconds to start."""
    terminal = Terminal(command, *size, environment)
    try:
        terminal.read(settle)
        if terminal.process.poll() is not None:
            raise BenchError("it ended at once")
        processes = terminal.tree()
        cpu, received, begun = cpu_ns(processes), terminal.received, time.monotonic()
        terminal.read(seconds)
        spent = time.monotonic() - begun
        if terminal.process.poll() is not None:
            raise BenchError("it ended by itself")
        processes = terminal.tree()
        # A thread that began meanwhile counts from zero; one that ended takes its part along.
        used = sum([ns - cpu.get(path, 0) for path, ns in cpu_ns(processes).items()])
        share = used / spent / 1e7
        return Taken(
            share, (terminal.received - received) / spent, memory(processes), len(processes)
        )
    finally:
        terminal.close()


def began(size: tuple[int, int] = (120, 40)) -> Began:
    """How long probetop takes to show itself, to have all probes on the screen, and to quit."""
    terminal = Terminal(probetop_command(), *size, {})
    seen = bytearray()
    times: dict[str, float] = {}
    wanted = {"frame": ("System calls",), **{name: HEADINGS[name] for name in AT_START}}

    def look(data: bytes) -> bool:
        seen.extend(data)
        text = readable(bytes(seen))
        for name, words in wanted.items():
            if name not in times and any(word in text for word in words):
                times[name] = (time.monotonic() - terminal.begun) * 1000
        return len(times) == len(wanted)

    try:
        terminal.read(20, look)
        if len(times) < len(wanted):
            raise BenchError(f"probetop showed {sorted(times)} only")
        terminal.read(1.0)
        asked = time.monotonic()
        os.write(terminal.master, b"q")
        while terminal.process.poll() is None and time.monotonic() < asked + 10:
            terminal.read(0.01)
        quit_ms = (time.monotonic() - asked) * 1000
        return Began(times["frame"], max(times[name] for name in AT_START), quit_ms)
    finally:
        terminal.close()
