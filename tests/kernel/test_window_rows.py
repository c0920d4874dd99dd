# SPDX-License-Identifier: Apache-2.0
"""A window's rows of processes that ended, and were forgotten, within it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from probes.recording.history import History
from probes.report.windows import SINCE_START, Windows
from probes.syscalls import reader as syscall_rows
from probes.syscalls.sample import SyscallSample
from probes.syscalls.view import syscall_view
from tests.kernel.harness import Live, Work

ROUNDS = 5


def test_rows_of_processes_make_up_the_title(
    program: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syscall_rows, "FORGET_EVERY", 0.1)
    pids = set()
    with Live("syscalls") as live:
        first = live.settled()
        for _ in range(ROUNDS):
            with Work(program("calls"), "getppid", "1000") as work:
                work.work()
                pids.add(work.pid)
            # Until it is forgotten: so it is missing in the difference of two Frames.
            live.wait(
                "it is forgotten",
                lambda frame, pid=work.pid: pid not in frame.samples["syscalls"].comms,  # type: ignore[misc]
            )
        live.settled()
        frames = list(live.frames)
    history = History()
    windows = Windows(history)
    for frame in frames:
        history.add(frame)
        windows.keep(frame)
    for seconds in (SINCE_START, frames[-1].mono - first.mono):
        span = windows.span(frames[-1], "syscalls", seconds)
        assert span is not None
        old, new = (frame.samples["syscalls"] for frame in span)
        assert isinstance(old, SyscallSample)
        assert isinstance(new, SyscallSample)
        view = syscall_view(old, new, 1.0)
        rows = {row.pid: row.count for row in view.processes}
        assert sum(rows.values()) + view.ended.n + view.unattributed == view.count
        assert view.ended.n == 0
        mine = {row.pid: row.count for row in view.processes_of("getppid") if row.pid in pids}
        assert mine == dict.fromkeys(pids, 1000)
        assert all(new.comms[pid] == "calls" for pid in pids)
