# SPDX-License-Identifier: Apache-2.0
"""In a pid namespace of its own a filter by pid takes the pid that is seen there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.paths import ROOT

pytestmark = pytest.mark.kernel

SCRIPT = """
mkfifo "$1/in" "$1/out"
"$2" 100000000 < "$1/in" > "$1/out" &
exec 3> "$1/in" 4< "$1/out"
read -r word pid <&4
echo "$pid"
(while kill -0 $pid 2> /dev/null; do echo >&3; sleep 0.05; done) &
"$3" -m tui.cli stream --seconds 3 --budget 0 --probes syscalls,execs,pmc -p "$pid"
kill $pid
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is missing")
def test_a_filter_by_pid_is_of_the_namespace_and_says_so(
    program: Callable[[str], Path], tmp_path: Path
) -> None:
    command = ["unshare", "--pid", "--fork", "--mount-proc", "/bin/sh", "-c", SCRIPT, "sh"]
    arguments = [str(tmp_path), str(program("thread_names")), sys.executable]
    done = subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    first, *lines = done.stdout.splitlines()
    assert lines, done.stderr
    frames = [json.loads(line) for line in lines]
    processes = [row for frame in frames for row in frame["probes"]["syscalls"]["processes"]]
    assert {row["comm"] for row in processes} <= {"main-name", "new-name"}
    assert processes, (first, done.stderr)
    notices = [notice for frame in frames for notice in frame.get("notices", [])]
    assert {(n["kind"], n["pid"]) for n in notices} == {("pid_of_namespace", int(first))}
