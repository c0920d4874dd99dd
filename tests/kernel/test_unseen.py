# SPDX-License-Identifier: Apache-2.0
"""What docs/accuracy.md says cannot be seen: it happens, and is in no number."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from probes.core.process_keys import pid_of
from probes.core.sample import Counts
from probes.syscalls.sample import SyscallSample
from tests.kernel.harness import Live, Work

pytestmark = pytest.mark.kernel

ASKS_FOR_ITS_CPU = """
import ctypes
ask = ctypes.CDLL(None).sched_getcpu
assert all(ask() >= 0 for _ in range(1000))
"""


def calls_of(sample: SyscallSample, pid: int) -> Mapping[str, Counts]:
    """What a process called."""
    return {name: n for (number, name), n in sample.matrix.items() if pid_of(number) == pid}


def test_the_vdso_makes_no_system_calls() -> None:
    with Live("syscalls") as live:
        process = subprocess.Popen([sys.executable, "-c", ASKS_FOR_ITS_CPU])
        assert process.wait(30) == 0
        found = calls_of(live.syscalls(), process.pid)
    assert found["read"].n > 0
    assert "getcpu" not in found


def test_the_end_of_a_process_is_no_call() -> None:
    with Live("syscalls") as live:
        process = subprocess.Popen(["/bin/true"])
        assert process.wait(30) == 0
        found = calls_of(live.syscalls(), process.pid)
    assert found["execve"].n > 0
    assert not {"exit", "exit_group"} & set(found)


def test_what_a_ring_does_is_no_call_of_the_program(program: Callable[[str], Path]) -> None:
    ring = Path("/proc/sys/kernel/io_uring_disabled")
    if ring.exists() and ring.read_text().strip() == "2":
        pytest.skip("this machine allows no io_uring")
    with Live("syscalls") as live, Work(program("rings"), "300") as work:
        before = live.syscalls()
        assert work.work() == [300]
        after = live.syscalls()
    old, new = calls_of(before, work.pid), calls_of(after, work.pid)
    assert new["io_uring_enter"] == Counts(300, 0)
    assert new.get("openat") == old.get("openat")
