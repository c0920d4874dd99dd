# SPDX-License-Identifier: Apache-2.0
"""Which process is charged, and what it is called: one name for all threads, in all panes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from probes.core.frame import Filters, Frame
from probes.core.process_keys import pid_of
from probes.execs.probe import ExecProbe
from probes.latency.probe import LatencyProbe
from probes.pmc.probe import PmcProbe
from probes.probe import Probe
from probes.report.stream import dumps, stream_object
from probes.syscalls.probe import SyscallProbe
from probes.syscalls.sample import SyscallSample
from tests.kernel.harness import Live, Work, eventually

pytestmark = pytest.mark.kernel

Program = Callable[[str], Path]
PATHS = {
    "syscalls": "probes.syscalls.probe:SyscallProbe",
    "latency": "probes.latency.probe:LatencyProbe",
    "execs": "probes.execs.probe:ExecProbe",
    "pmc": "probes.pmc.probe:PmcProbe",
}
CLASSES: dict[str, type[Probe]] = {
    "syscalls": SyscallProbe,
    "latency": LatencyProbe,
    "execs": ExecProbe,
    "pmc": PmcProbe,
}
TARGETS = ("runq", "offcpu", "syscall:getppid", "tracepoint:raw_syscalls:sys_enter")
ALL = {"latency": {"targets": TARGETS}}


def everything(filters: Filters | None = None) -> Live:
    """All probes, with latency targets of each kind that tells of processes."""
    return Live("syscalls", "latency", "pmc", paths=PATHS, options=ALL, filters=filters)


def shown(before: Frame | None, after: Frame) -> Mapping[str, Any]:
    """The stream's object, as a script reads it."""
    probes: Mapping[str, Any] = json.loads(dumps(stream_object(before, after, CLASSES)))["probes"]
    return probes


def names_of(before: Frame, after: Frame, pid: int) -> dict[str, list[str]]:
    """What the stream calls a process, by probe or target: one entry for each of its rows."""
    probes = shown(before, after)
    rows = {name: probes[name]["processes"] for name in ("syscalls", "pmc")}
    rows |= {target["spec"]: target["behind"] for target in probes["latency"]["targets"]}
    return {
        what: [row["comm"] for row in found if row["pid"] == pid] for what, found in rows.items()
    }


def test_a_process_has_its_leaders_name_everywhere_until_it_changes_it(program: Program) -> None:
    with everything() as live, Work(program("thread_names")) as work:
        for name in ("main-name", "new-name"):
            if name == "new-name":
                work.work()
            before = live.settled()
            work.work()
            after = live.settled()
            found = names_of(before, after, work.pid)
            assert found == {
                what: [name] for what in ("syscalls", "pmc", "runq", "offcpu", *TARGETS[2:])
            }


def test_a_filter_by_name_takes_in_all_threads(program: Program) -> None:
    with everything(Filters(comm="main-name")) as live, Work(program("thread_names")) as work:
        before = live.settled()
        work.work()
        after = live.settled()
        probes = shown(before, after)
        calls = {row["syscall"]: row["count"] for row in probes["syscalls"]["rows"]}
        assert calls["getppid"] == 3000
        counts = {target["spec"]: target["count"] for target in probes["latency"]["targets"]}
        assert counts["syscall:getppid"] == 3000
        for what, rows in names_of(before, after, work.pid).items():
            assert rows == ["main-name"], what
        work.work()
        after = live.settled()
        work.work()
        probes = shown(after, live.settled())
        assert not [row for row in probes["syscalls"]["rows"] if row["syscall"] == "getppid"]


def test_a_filter_by_a_threads_own_name_takes_in_nothing(program: Program) -> None:
    with everything(Filters(comm="worker-one")) as live, Work(program("thread_names")) as work:
        before = live.settled()
        work.work()
        probes = shown(before, live.settled())
        assert not [row for row in probes["syscalls"]["rows"] if row["syscall"] == "getppid"]
        for _ in range(2):
            work.work()


def test_a_new_program_has_its_own_name_whatever_it_was_before() -> None:
    """Rows of before the execution, and of another CPU, do not bring the old name back."""
    with Live("syscalls", "pmc", paths=PATHS) as live:
        before = live.settled()
        pids = set()
        for _ in range(100):
            command = ["/bin/sh", "-c", "echo $$; exec /bin/true"]
            said = subprocess.run(command, check=True, capture_output=True).stdout
            pids.add(int(said))
        probes = shown(before, live.settled())
    for probe in ("syscalls", "pmc"):
        rows = [row for row in probes[probe]["processes"] if row["pid"] in pids]
        assert {row["comm"] for row in rows} == {"true"}
        assert len(rows) == len(pids)


def next_frame(live: Live) -> Frame:
    """A Frame that is made now, whatever the interval is."""
    seen = len(live.frames)
    live.source.hurry()
    eventually("there is another Frame", lambda: len(live.frames) > seen)
    return live.frames[-1]


def read_now(live: Live) -> Frame:
    """A Frame that holds all that happened until now."""
    return [next_frame(live) for _ in range(3)][-1]


def test_a_pid_that_is_used_again_is_another_process(program: Program) -> None:
    """The two processes run within one interval."""
    with (
        Live("syscalls", "latency", "pmc", paths=PATHS, options=ALL, interval=5.0) as live,
        Work(program("reuse")) as work,
    ):
        before = read_now(live)
        (pid,) = work.work()
        after = read_now(live)
    sample = cast(SyscallSample, after.samples["syscalls"])
    calls = {
        sample.comms[number]: counts.n
        for (number, name), counts in sample.matrix.items()
        if pid_of(number) == pid and name == "getppid"
    }
    assert calls == {"alpha": 1000, "beta": 500}
    found = names_of(before, after, pid)
    for what in ("syscalls", "pmc", *TARGETS[2:]):
        assert sorted(found[what]) == ["alpha", "beta"], (what, found)
    # They wait for a CPU before they run for the first time, and have their parent's name then.
    for what in ("runq", "offcpu"):
        assert set(found[what]) <= {"alpha", "beta", "reuse"}, what
    targets = {target["spec"]: target for target in shown(before, after)["latency"]["targets"]}
    behind = targets["syscall:getppid"]["behind"]
    counts = {row["comm"]: row["count"] for row in behind if row["pid"] == pid}
    assert counts == {"alpha": 1000, "beta": 500}


def test_execveat_is_counted_as_what_it_is(program: Program) -> None:
    with Live("syscalls") as live, Work(program("chain")) as work:
        work.work()
        calls = live.syscalls().matrix
        found = {name: n for (number, name), n in calls.items() if number == work.pid}
    # With the one that began it.
    assert (found["execve"].n, found["execveat"].n) == (6, 5)
