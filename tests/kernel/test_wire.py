# SPDX-License-Identifier: Apache-2.0
"""Terminals that stop, stand still, change their size or go away; the probes outlast none."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from probes.execs.sample import ExecSample
from probes.recording.file import Reader
from tests.kernel.harness import (
    eventually,
    held_programs,
    left_in_kernel,
    program_ids,
    programs_of,
    status_of,
)
from tests.kernel.terminal import PROBETOP, Grid, Tty
from tests.kernel.test_lifecycle import assert_gone

pytestmark = pytest.mark.kernel

OPTIONS = ("-i", "0.2", "--probes", "syscalls,execs")
WARM_SECONDS, STOP_SECONDS = 15.0, 8.0


@pytest.fixture
def busy() -> Iterator[None]:
    """Programs that start and end, and system calls, all the time."""
    script = "while :; do /bin/true; sleep 0.01; done"
    with subprocess.Popen(["sh", "-c", script], start_new_session=True) as child:
        yield
        os.killpg(child.pid, signal.SIGKILL)


def started() -> Tty:
    """A dashboard on the running kernel, whose probes are on and drawn."""
    tty = Tty(*PROBETOP, *OPTIONS)
    try:
        tty.shows("argv")
        tty.shows("share")
    except BaseException:
        tty.close()
        raise
    return tty


def rss(pid: int) -> float:
    """MB of memory that a process has."""
    return int(status_of(pid)["VmRSS"].split()[0]) / 1024


def stop_reading(tty: Tty) -> None:
    """Do not read until the program has written more than the terminal holds."""
    wire = eventually("its wire has begun", lambda: wchan(tty.pid))
    assert "tty" in wire or "wait_woken" in wire


def wchan(pid: int) -> str:
    """Where a thread that waits for the terminal stands in the kernel; "" if none does."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        where = (task / "wchan").read_text()
        call = (task / "syscall").read_text().split()
        if call[:2] == [str(WRITE), "0x2"]:
            return where
    return ""


WRITE = {"x86_64": 1, "aarch64": 64}[os.uname().machine]


@pytest.fixture
def entered() -> Iterator[Path]:
    """A folder below /tmp that others may enter: others are not for files of root's dashboard."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.usefixtures("busy")
def test_a_terminal_that_stops_neither_grows_memory_nor_stops_polling(entered: Path) -> None:
    path = entered / "a.ptrec"
    with started() as tty:
        tty.type("r")
        tty.shows("record to")
        tty.type(f"\x15{path}\r")
        tty.shows("REC")
        # What it gathers of a busy machine (history, programs) grows at first, read or not.
        warm = time.monotonic() + WARM_SECONDS
        while time.monotonic() < warm:
            tty.read(0.1)
        stop_reading(tty)
        before, began = rss(tty.pid), time.time()
        time.sleep(STOP_SECONDS)
        grown, stopped = rss(tty.pid) - before, time.time()
        assert grown < 12
        resumed = time.strftime("%H:%M", time.localtime())
        tty.until("a later Frame is shown", lambda: resumed in tty.grid.lines()[0])
        tty.shows("slow link")
        tty.type("r")
        tty.shows("frames,")
        assert_whole(tty)
        tty.type("q")
        tty.until("it has left the other screen", lambda: "\x1b[?1049l" in tty.text)
        assert tty.ended() == 0
    with Reader(path) as reader:
        frames = [frame for frame in reader if began < frame.time < stopped]
        assert reader.damage is None
    assert len(frames) > STOP_SECONDS / 0.2 / 2
    execs = [s for f in frames if isinstance(s := f.samples["execs"], ExecSample)]
    assert sum(len(sample.events) for sample in execs) >= execs[-1].execs - execs[0].execs > 0


def assert_whole(tty: Tty) -> None:
    """What was painted cell by cell is what is painted at once."""
    tty.type(" ")
    tty.shows("PAUSED")
    time.sleep(2.5)  # a line of news in the footer goes away
    tty.settle()
    shown, size = tty.grid.lines(), (tty.grid.columns, tty.grid.rows)
    tty.grid = Grid(*size)
    os.kill(tty.pid, signal.SIGSTOP)
    os.kill(tty.pid, signal.SIGCONT)
    tty.shows("PAUSED")
    tty.settle()
    assert tty.grid.lines() == shown
    tty.type(" ")


@pytest.mark.parametrize("way", ["hang up", "q", "SIGTERM", "SIGHUP", "ctrl+c"])
def test_a_dashboard_ends_whose_terminal_takes_nothing(way: str) -> None:
    before = program_ids()
    with started() as tty:
        tree = tty.tree()
        assert held_programs(tty.pid)
        stop_reading(tty)
        if way == "hang up":
            tty.hang_up()
        elif way.startswith("SIG"):
            os.kill(tty.pid, getattr(signal, way))
        else:
            tty.type("q" if way == "q" else "\x03")
        expected = {"hang up": 129, "SIGTERM": 143, "SIGHUP": 129}.get(way, 0)
        assert tty.ended() == expected
        assert_gone(before, tree)


def test_a_terminal_that_is_read_and_hung_up_ends_it_too() -> None:
    before = program_ids()
    with started() as tty:
        tree = tty.tree()
        tty.hang_up()
        assert tty.ended() == 129
        assert_gone(before, tree)


def test_a_stopped_dashboard_goes_on_where_it_was() -> None:
    with started() as tty:
        programs = held_programs(tty.pid)
        os.kill(tty.pid, signal.SIGSTOP)
        eventually("it stands still", lambda: status_of(tty.pid)["State"].startswith("T"))
        tty.settle()
        time.sleep(1.0)
        tty.grid.cells.clear()
        os.kill(tty.pid, signal.SIGCONT)
        tty.shows("System calls")
        tty.shows("argv")
        assert held_programs(tty.pid) >= programs
        assert "slow link" not in tty.grid.lines()[0]
        tty.type("q")
        tty.settle()
        assert tty.ended() == 0


def test_ctrl_z_gives_the_shell_its_terminal_and_fg_takes_it_back() -> None:
    before = program_ids()
    with Tty("bash", "--norc", "--noprofile", "-i") as shell:
        shell.until("there is a shell", lambda: "shell> " in shell.text)
        shell.type(f"stty -a | md5sum; {' '.join([*PROBETOP, *OPTIONS])}; stty -a | md5sum\n")
        shell.shows("argv")
        for _ in range(2):
            programs = {number for pid in shell.tree() for number in programs_of(pid)}
            assert programs
            shell.type("\x1a")
            shell.until("it is stopped", lambda: "Stopped" in shell.text[-500:])
            assert "\x1b[?1049l" in shell.text[-700:]
            assert program_ids() >= programs
            shell.grid.cells.clear()
            shell.text = ""
            shell.type("fg\n")
            shell.shows("argv")
            shell.shows("q quit")
        shell.text = ""
        shell.type("q")
        shell.until("the shell is back", lambda: "shell> " in shell.text)
        shell.text = ""
        shell.type("kill %1; exit\n")
        shell.settle()
        assert "Stopped" not in shell.text
    eventually("nothing is left", lambda: not left_in_kernel(before))


def test_a_storm_of_sizes_ends_in_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    # What a shell has exported stays as it was, whatever size the window has by now.
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    rng = random.Random(7)
    with started() as tty:
        sizes = [(1, 1), (500, 200), (2, 50), (200, 2), (80, 24)]
        sizes += [(rng.randrange(1, 300), rng.randrange(1, 100)) for _ in range(300)]
        began = rss(tty.pid)
        for size in [*sizes, (110, 33)]:
            tty.resize(*size)
            tty.read(0.001)
        tty.until("it fits", lambda: tty.grid.lines()[32].rstrip().endswith("q quit"))
        assert_whole(tty)
        assert max(map(len, tty.grid.lines())) > 100
        assert rss(tty.pid) - began < 60
        tty.type("q")
        tty.settle()
        assert tty.ended() == 0
