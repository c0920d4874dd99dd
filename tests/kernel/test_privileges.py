# SPDX-License-Identifier: Apache-2.0
"""What the dashboard's process may still do, from /proc, and that it works all the same."""

from __future__ import annotations

import json
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from probes.core import kernel
from tests.kernel.harness import Dashboard, eventually, status_of
from tests.paths import ROOT

pytestmark = pytest.mark.kernel

NOBODY = pwd.getpwnam("nobody")
NONE = "0" * 16
PROBETOP = (sys.executable, "-m", "tui.cli")


def tree(pid: int) -> set[int]:
    """A process and all that came from it."""
    found, new = set[int](), {pid}
    while new:
        found |= new
        new = {child for pid in new for child in _children(pid)} - found
    return found


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def open_files(pid: int) -> set[str]:
    """What a process has open; nothing of one that has ended."""
    found = set[str]()
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


def assert_powerless(pid: int, uid: int, gid: int) -> None:
    """Every thread of the process: this user four times over, and no capability at all."""
    threads = os.listdir(f"/proc/{pid}/task")
    assert len(threads) >= 2
    for thread in threads:
        status = status_of(int(thread))
        assert set(status["Uid"].split()) == {str(uid)}
        assert set(status["Gid"].split()) == {str(gid)}
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert status[name] == NONE, name
        assert status["NoNewPrivs"] == "1"
        # 2 is a filter.
        assert status["Seccomp"] == "2"


def assert_counts(dashboard: Dashboard) -> None:
    """New calls arrive, as they can only through the maps."""
    first = dashboard.states(syscalls="on", execs="on")
    dashboard.line("more calls", lambda line: line.get("calls", 0) > first["calls"])
    subprocess.run(["/bin/true"], check=True)
    dashboard.line("one more execution", lambda line: line.get("execs", 0) > first["execs"])


def test_plain_root_becomes_nobody() -> None:
    """Without any capability uid 0 would still own the machine's files."""
    with Dashboard() as dashboard:
        assert_counts(dashboard)
        assert_powerless(dashboard.pid, NOBODY.pw_uid, 65534)
        broker = dashboard.broker()
        assert broker is not None
        # The other side of the socket is the one with the power.
        assert status_of(broker)["CapEff"] != NONE
        assert dashboard.end() == ""


def test_what_root_records_is_roots(tmp_path: Path) -> None:
    """The process that reads is nobody, who may write nothing there."""
    for name, arguments in {"a.ptrec": ("record",), "a.json": ("snapshot",)}.items():
        path = tmp_path / name
        for more in ((), ("--force",)):
            command = [*PROBETOP, *arguments, str(path), "--seconds", "1", *more]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            assert (done.returncode, path.stat().st_uid) == (0, 0), done.stderr
            assert path.stat().st_mode & 0o777 == 0o600
            assert path.stat().st_size > 1000
    assert len(os.listdir(tmp_path)) == 2


def test_a_low_limit_of_open_files_is_raised_or_told(tmp_path: Path) -> None:
    command = [*PROBETOP, "stream", "--seconds", "1"]
    for limit, hard in (("64:4096", 4096), ("64:64", 64)):
        done = subprocess.run(
            ["prlimit", f"--nofile={limit}", *command],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if hard == 64 and "CAP_SYS_RESOURCE" not in kernel.capabilities():
            assert done.returncode == 1
            assert done.stderr.startswith("probetop: open files: 64 are allowed, and ")
            assert done.stderr.count("\n") == 1
        else:
            assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stderr


def test_under_sudo_it_is_the_invoking_user() -> None:
    with Dashboard(SUDO_UID=str(NOBODY.pw_uid), SUDO_GID=str(NOBODY.pw_gid)) as dashboard:
        assert_counts(dashboard)
        assert_powerless(dashboard.pid, NOBODY.pw_uid, NOBODY.pw_gid)
        groups = {int(word) for word in status_of(dashboard.pid)["Groups"].split()}
        assert groups == set(os.getgrouplist("nobody", NOBODY.pw_gid))


def test_sudo_of_a_user_without_a_name() -> None:
    with Dashboard(SUDO_UID="54321", SUDO_GID="54322") as dashboard:
        assert_counts(dashboard)
        assert_powerless(dashboard.pid, 54321, 54322)


def test_run_as_a_user() -> None:
    with Dashboard({"run_as": "nobody"}, SUDO_UID="0", SUDO_GID="0") as dashboard:
        assert_counts(dashboard)
        assert_powerless(dashboard.pid, NOBODY.pw_uid, NOBODY.pw_gid)
        # What was given up is the dashboard's: probes still go off and on.
        dashboard.command(toggle=("execs", False))
        dashboard.states(execs="off", syscalls="on")
        dashboard.command(toggle=("execs", True))
        assert_counts(dashboard)


def test_run_as_nobody_that_there_is() -> None:
    with Dashboard({"run_as": "no-such-user"}) as dashboard:
        assert dashboard.process.wait(20) == 1
        line = dashboard.line("an error", lambda line: True) if not dashboard.lines else None
        said = line or dashboard.lines[0]
        assert "no-such-user" in said["error"]
        assert said["fix"]


def test_the_users_log_is_the_users() -> None:
    """A log that root wrote would be root's for good."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        log = Path(directory, "log")
        paths = {"execs": "tests.kernel.broken:Prints"}
        with Dashboard({"run_as": "nobody", "log": str(log), "paths": paths}) as dashboard:
            dashboard.states(execs="failed", syscalls="on")
            assert dashboard.end() == ""
        assert "the last line" in log.read_text()
        assert log.stat().st_uid == NOBODY.pw_uid


def test_nothing_that_the_caller_had_open_stays_open(tmp_path: Path) -> None:
    """Neither in the process that draws, nor in the broker, its loaders and helpers."""
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    seen: set[int] = set()
    config = tmp_path / "config"
    config.write_text("interval = 0.2\n")
    # A file that an argument names by its number can be read, and is closed then.
    script = f'exec 9<{secret} 250<{secret} 600<{secret} 63<{config}; exec "$@"'
    command = [*PROBETOP, "stream", "--config", "/dev/fd/63", "--seconds", "2"]
    child = subprocess.Popen(
        ["bash", "-c", script, "bash", *command], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    # What it has open before its own first lines run is nobody's doing yet; its broker comes later.
    eventually("there is a broker", lambda: tree(child.pid) - {child.pid})
    while not select.select([child.stdout], [], [], 0)[0]:
        for pid in tree(child.pid):
            seen.add(pid)
            assert str(secret) not in open_files(pid)
    for pid in tree(child.pid):
        assert not {str(secret), str(config)} & open_files(pid)
    assert len(seen) >= 3  # and a loader
    lines = [json.loads(line) for line in child.stdout]
    child.stdout.close()
    assert (child.wait(20), len(lines)) == (0, 10)


def test_polling_makes_no_bpf_call(tmp_path: Path) -> None:
    """Neither while polling, nor when a window of run-time statistics opens and closes."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is missing: install the package strace")
    out = tmp_path / "calls"
    with Dashboard() as dashboard:
        dashboard.states(syscalls="on", execs="on")
        command = [strace, "-f", "-p", str(dashboard.pid), "-e", "trace=bpf,write", "-o", str(out)]
        tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            eventually("frames are seen", lambda: out.exists() and "states" in out.read_text())
            seen = len(dashboard.lines)
            eventually("more frames", lambda: len(dashboard.lines) > seen + 15)
            dashboard.command(toggle=("execs", False))
            dashboard.states(execs="off")
            dashboard.command(toggle=("execs", True))
            dashboard.states(execs="on")
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(20)
    text = out.read_text()
    assert text.count("write(1") > 15
    assert "bpf(" not in text
