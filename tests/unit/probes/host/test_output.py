# SPDX-License-Identifier: Apache-2.0
"""Standard output and standard error that are full, closed or read by nobody: never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from probes.host.output import reserve_standard_descriptors
from tests.paths import ROOT
from tests.unit.probes.recording.test_recording import make_frames, write

RUN = f"exec {sys.executable} -m tui.cli"
COMMANDS = ("--help", "--version", "doctor", "doctor --json", "stream --help", "diff {0} {0}",
            "diff --json {0} {0}", "serve --help", "attach --help")  # fmt: skip


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("output") / "a.ptrec", make_frames(3))


def shell(command: str, recording: Path) -> tuple[int, str]:
    """The status of a shell's command line, and what it said on standard error."""
    done = subprocess.run(
        ["bash", "-c", command.format(recording)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_device_is_one_line_and_a_status(command: str, recording: Path) -> None:
    status, said = shell(f"{RUN} {command} >/dev/full", recording)
    assert (status, said.count("\n")) == (1, 1)
    assert said.startswith("probetop: cannot write to standard output: No space left on device; ")


@pytest.mark.parametrize("command", COMMANDS)
def test_closed_output_is_one_line_and_status_2(command: str, recording: Path) -> None:
    status, said = shell(f"{RUN} {command} >&-", recording)
    assert (status, said.count("\n")) == (2, 1)
    assert said.startswith("probetop: standard output: closed; ")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pipe_that_nobody_reads_is_left_in_silence(command: str, recording: Path) -> None:
    # The reader has gone before anything is written.
    status, said = shell(f"(sleep 0.3; {RUN} {command}) > >(exec true)", recording)
    assert said == ""
    # The doctor's status tells what this machine allows.
    assert status == 0 or command.startswith("doctor")


@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-", "2>&- <&- >&-", ">/dev/full 2>/dev/full"])
@pytest.mark.parametrize("command", ["--nonsense", "diff /dev/zero {0}", "replay /nowhere"])
def test_complaints_that_nobody_hears_keep_the_status(
    command: str, where: str, recording: Path
) -> None:
    assert shell(f"{RUN} {command} {where}", recording) == (2, "")


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("where", "status"),
    [
        (">/dev/full", 1),
        (">&-", 2),
        ("> >(head -c 1 >/dev/null)", 0),
        (">/dev/full 2>/dev/full", 1),
    ],
)
def test_stream(where: str, status: int, recording: Path) -> None:
    found, said = shell(f"{RUN} stream -i 0.2 --seconds 1 --probes syscalls {where}", recording)
    assert (found, said.count("\n")) == (status, int(status > 0 and "2>" not in where))


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2), (0, 2), ()])
def test_closed_descriptors_are_taken_by_nothing_else(closed: tuple[int, ...]) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        for fd in closed:
            os.close(fd)
        reserve_standard_descriptors()
        fd = os.open("/proc/self/status", os.O_RDONLY)
        taken = all(os.path.exists(f"/proc/self/fd/{n}") for n in (0, 1, 2))
        null = all(os.readlink(f"/proc/self/fd/{n}") == "/dev/null" for n in closed)
        os.write(writing, b"%d %d %d" % (fd > 2, taken, null))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 10) == b"1 1 1"
    os.close(reading)
    os.close(writing)
