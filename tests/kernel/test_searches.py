# SPDX-License-Identifier: Apache-2.0
"""A program that is searched for in PATH, seen by the running kernel's events."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from probes.execs.process_log import ExecLog, ExecRow
from tests.kernel.harness import Live

pytestmark = pytest.mark.kernel


def search(live: Live, pid: int) -> tuple[list[ExecRow], int]:
    """The rows of a process that has ended, and how many programs failed to start."""
    live.settled()
    log = ExecLog()
    log.add([event for event in live.events() if event.pid == pid], time.time())
    return list(log.rows), log.failed


def run(program: str, *folders: Path) -> int:
    """Searches a program in folders as a shell does, from a child; the child's process id."""
    path = ":".join(map(str, folders))
    script = f'import os; os.execvpe("{program}", ["{program}", "-x"], {{"PATH": "{path}"}})'
    with subprocess.Popen(["python3", "-S", "-c", script], stderr=subprocess.DEVNULL) as process:
        process.wait()
    return process.pid


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Three folders; the program "tool" is in the last one."""
    made = [tmp_path / name for name in "abc"]
    for folder in made:
        folder.mkdir()
    true = shutil.which("true")
    assert true is not None
    shutil.copy(true, made[-1] / "tool")
    return made


def test_what_was_found_at_last_is_one_row_without_failures(folders: list[Path]) -> None:
    with Live("execs") as live:
        pid = run("tool", *folders)
        rows, failed = search(live, pid)
    (row,) = [row for row in rows if row.args == ("tool", "-x")]
    assert (row.tries, row.path, row.outcome()) == (2, str(folders[-1] / "tool"), "0")
    assert failed == 0


def test_a_script_is_found_under_its_interpreters_arguments(folders: list[Path]) -> None:
    (folders[1] / "script").write_text("#!/bin/sh -e\nexit 3\n")
    (folders[1] / "script").chmod(0o755)
    with Live("execs") as live:
        pid = run("script", *folders)
        rows, failed = search(live, pid)
    path = str(folders[1] / "script")
    (row,) = [row for row in rows if row.path == path]
    assert (row.args, row.tries, row.outcome()) == (("/bin/sh", "-e", path, "-x"), 1, "3")
    assert failed == 0


def test_what_was_found_nowhere_is_one_failure(folders: list[Path]) -> None:
    with Live("execs") as live:
        pid = run("gone", *folders)
        rows, failed = search(live, pid)
    (row,) = [row for row in rows if row.failed]
    assert (row.args, row.tries, row.outcome()) == (("gone", "-x"), 3, "ENOENT")
    assert row.path == str(folders[-1] / "gone")
    assert failed == 1
