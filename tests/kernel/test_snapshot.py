# SPDX-License-Identifier: Apache-2.0
"""`snapshot` and `diff` as commands, on the running kernel."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.folders import tmp_path as tmp_path
from tests.kernel.test_commands import started
from tests.paths import ROOT

pytestmark = pytest.mark.kernel

SHORT = ("-i", "0.2", "--seconds", "1")
NOBODY = {"SUDO_UID": "65534", "SUDO_GID": "65534"}


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that everybody may write to."""
    tmp_path.chmod(0o777)
    return tmp_path


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 40 kB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=40k,mode=777", "tmpfs", str(folder)]
    subprocess.run(command, check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_snapshot_belongs_to_the_user_who_ran_sudo(shared: Path) -> None:
    path = shared / "a.html"
    with started("snapshot", str(path), *SHORT, **NOBODY) as child:
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (0, ""), err
    assert f"kB in {path}" in err
    info = path.stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777) == (65534, 65534, 0o600)
    assert 50_000 < info.st_size < 1_000_000
    page = path.read_text()
    assert page.startswith("<!doctype html>")
    assert "data:image/svg+xml;base64," in page


def test_it_holds_what_was_done(shared: Path) -> None:
    path = shared / "a.json"
    with started(
        "snapshot", str(path), "-i", "0.2", "--seconds", "2", "--probes", "execs"
    ) as child:
        while child.poll() is None:
            subprocess.run(["/bin/true"], check=True)
    summary = json.loads(path.read_text())
    assert summary["seconds"] == pytest.approx(2, abs=0.3)
    programs = {row["program"]: row for row in summary["probes"]["execs"]["programs"]}
    assert programs["true"]["starts"] > 10
    assert programs["true"]["nonzero"] == 0
    assert summary["probes"]["execs"]["lost"] == 0
    assert summary["probes"]["syscalls"]["state"] == "off"


def test_a_full_disk_is_one_line_and_leaves_nothing(tiny: Path) -> None:
    path = tiny / "a.html"
    with started("snapshot", str(path), *SHORT) as child:
        _, err = child.communicate(timeout=60)
    assert child.returncode == 1
    assert err.count("\n") == 1
    assert f"cannot write to {path}: No space left on device; free some space" in err
    assert list(tiny.iterdir()) == []


def test_a_folder_that_the_user_may_not_write_to_is_one_line_at_once(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    path = tmp_path / "a.html"
    with started("snapshot", str(path), "--seconds", "500", **NOBODY) as child:
        _, err = child.communicate(timeout=60)
    assert child.returncode == 1
    assert err.count("\n") == 1
    assert "Permission denied; choose a folder that you may write to" in err
    assert not path.exists()


def test_an_interrupt_writes_what_there_is(shared: Path) -> None:
    path = shared / "a.json"
    with started("snapshot", str(path), "-i", "0.2", "--seconds", "500") as child:
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(6)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=30)
    assert child.returncode == 0, err
    assert json.loads(path.read_text())["seconds"] > 0.5


def test_the_programs_own_files_may_be_out_of_reach(shared: Path) -> None:
    # A checkout in somebody's home, run by root for a user who cannot enter it.
    home = shared / "home"
    for name in ("probes", "tui"):
        shutil.copytree(ROOT / name, home / name, ignore=shutil.ignore_patterns("__pycache__"))
    home.chmod(0o700)
    path = shared / "a.html"
    done = subprocess.run(
        [sys.executable, "-m", "tui.cli", "snapshot", str(path), *SHORT, "--run-as", "nobody"],
        cwd=home, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert path.stat().st_uid == 65534


def test_two_snapshots_are_compared(shared: Path) -> None:
    paths = [str(shared / "a.json"), str(shared / "b.html")]
    # A name that nothing else here has.
    busy_one = shutil.copy("/bin/true", shared / "nobody-else")
    for path, busy in zip(paths, (False, True), strict=True):
        with started("snapshot", path, "-i", "0.2", "--seconds", "2") as child:
            while child.poll() is None:
                subprocess.run([busy_one if busy else "/bin/sleep", "0.1"], check=True)
    with started("diff", *paths, "--json") as child:
        out, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (0, "")
    found = {(c["item"], c["quantity"]): c["change"] for c in json.loads(out)["changes"]}
    assert found["nobody-else", "starts/s"] == "new"
