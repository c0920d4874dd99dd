# SPDX-License-Identifier: Apache-2.0
"""probetop's own processes are left out of its numbers, unless it is asked to count them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.kernel.harness import eventually
from tests.paths import ROOT

pytestmark = pytest.mark.kernel
SECONDS = 2


def streamed(*more: str) -> tuple[list[dict[str, Any]], int]:
    """The objects of a short stream of all probes, and the process id of who wrote them."""
    command = [
        *(sys.executable, "-m", "tui.cli", "stream", "--budget", "0", "--seconds", str(SECONDS)),
        *("-i", "0.5", "--probes", "syscalls,execs,latency,pmc", "-f", "syscall:epoll_wait"),
        *more,
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        out, _ = process.communicate(timeout=60)
        return [json.loads(line) for line in out.splitlines()], process.pid


def counted(objects: list[dict[str, Any]], pid: int) -> dict[str, int]:
    """What each probe counted of a process."""
    rows = {
        name: [row for each in objects for row in each["probes"][name]["processes"] or ()]
        for name in ("syscalls", "pmc")
    }
    rows["latency"] = [
        row
        for each in objects
        for target in each["probes"]["latency"]["targets"]
        for row in target["behind"]
    ]
    return {
        name: sum([row.get("count", row.get("context_switches")) for row in found
                   if row["pid"] == pid])
        for name, found in rows.items()
    }  # fmt: skip


def test_own_processes_are_in_no_numbers() -> None:
    objects, pid = streamed()
    assert len(objects) >= 2
    assert counted(objects, pid) == {"syscalls": 0, "pmc": 0, "latency": 0}
    calls = [each["probes"]["syscalls"] for each in objects]
    for each in calls:
        rows, processes = (sum([row["count"] for row in each[name]])
                           for name in ("rows", "processes"))  # fmt: skip
        assert rows == processes + each["unattributed"]


def test_they_are_if_it_is_asked_for() -> None:
    def found() -> bool:
        objects, pid = streamed("--include-self")
        return all(counted(objects, pid).values())

    eventually("each probe has counted it", found)
