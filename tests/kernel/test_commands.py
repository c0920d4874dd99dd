# SPDX-License-Identifier: Apache-2.0
"""`stream` and `record` as commands, on the running kernel."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from probes.recording.file import Reader
from tests.folders import tmp_path as tmp_path
from tests.kernel.harness import eventually, held_programs
from tests.paths import ROOT

pytestmark = pytest.mark.kernel

COMMAND = [sys.executable, "-m", "tui.cli"]
FIELDS = {
    "syscalls": {"state", "lost", "cost", "rows", "processes"},
    "execs": {"state", "lost", "cost", "events"},
}


@contextmanager
def started(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """`probetop ARGUMENTS`, killed in the end if it still runs."""
    child = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def test_stream_prints_the_contract_and_ends_after_its_seconds(steady_calls: int) -> None:
    with started("stream", "-i", "0.2", "--seconds", "1", "--budget", "0") as child:
        out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, "")
    objects = [json.loads(line) for line in out.splitlines()]
    assert len(objects) == 5
    for obj in objects:
        assert set(obj["probes"]) >= set(FIELDS)
        for name, fields in FIELDS.items():
            probe = obj["probes"][name]
            assert probe["state"] == "on"
            assert fields <= set(probe)
        rows = {row["syscall"]: row for row in obj["probes"]["syscalls"]["rows"]}
        fields = {"syscall", "count", "errors", "errnos", "p50", "p99", "total"}
        assert set(rows["getppid"]) >= fields
        pids = {row["pid"] for row in obj["probes"]["syscalls"]["processes"]}
        assert steady_calls in pids


def test_only_the_named_probe_runs() -> None:
    with started("stream", "-i", "0.2", "--seconds", "0.2", "--probes", "execs") as child:
        out, _ = child.communicate(timeout=60)
    probe = json.loads(out)["probes"]
    assert probe["execs"]["state"] == "on"
    assert (probe["syscalls"]["state"], probe["syscalls"]["rows"]) == ("off", None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_a_stream_with_status_0(number: signal.Signals) -> None:
    with started("stream", "-i", "0.2") as child:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())
        child.send_signal(number)
        _, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (0, "")


def test_a_reader_that_leaves_ends_the_stream_quietly() -> None:
    # Another program's load is no reason to speak: what is given up is said on stderr.
    with started("stream", "-i", "0.1", "--budget", "0") as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline()
        child.stdout.close()
        assert child.wait(timeout=30) == 0
        assert child.stderr.read() == ""


def test_a_reader_that_leaves_ends_the_stream_before_the_next_interval() -> None:
    """As `| head -1` does, with an interval that is longer than any test."""
    with started("stream", "-i", "3600", "--budget", "0") as child:
        assert child.stdout is not None
        eventually("its probes are attached", lambda: len(held_programs(child.pid)) > 3)
        child.stdout.close()
        assert child.wait(timeout=30) == 0


@pytest.mark.usefixtures("steady_calls")
def test_a_recording_belongs_to_the_user_who_ran_sudo(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    path = tmp_path / "a.ptrec"
    with started(
        "record", str(path), "-i", "0.2", "--seconds", "1", SUDO_UID="65534", SUDO_GID="65534"
    ) as child:
        _, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    info = path.stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777) == (65534, 65534, 0o600)
    with Reader(path) as reader:
        frames = list(reader)
        assert reader.damage is None
    assert len(frames) >= 5
    assert frames[-1].samples["syscalls"].cost.events > 0
    assert frames[-1].interval == 0.2


def test_a_folder_that_the_user_may_not_write_to_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    path = tmp_path / "a.ptrec"
    with started("record", str(path), SUDO_UID="65534", SUDO_GID="65534") as child:
        _, err = child.communicate(timeout=60)
    assert child.returncode == 1
    assert err.count("\n") == 1
    assert "Permission denied; choose a folder that you may write to" in err
    assert not path.exists()


def test_a_killed_recorder_leaves_a_whole_recording(tmp_path: Path) -> None:
    path = tmp_path / "a.ptrec"
    with started("record", str(path), "-i", "0.05") as child:
        eventually("a recording grows", lambda: path.exists() and path.stat().st_size > 5000)
        child.kill()
        child.wait()
    with Reader(path) as reader:
        assert len(list(reader)) > 0
