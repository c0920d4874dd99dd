# SPDX-License-Identifier: Apache-2.0
"""One table of loads: what each did, and what all probes together show of it.

It is done alone, and beside programs that make calls, faults, executions and switches on every
CPU. What is shown must be what was done, to the last one.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest

from probes.core.frame import Filters, Frame
from probes.core.process_keys import pid_of
from probes.execs.sample import ExitEvent
from probes.latency.probe import LatencyProbe
from probes.latency.sample import LatencySample
from probes.pmc.sample import PmcSample
from probes.syscalls.probe import SyscallProbe
from probes.syscalls.sample import SyscallSample
from tests.kernel.harness import PATHS, Live, Work
from tests.kernel.timing import sleeps_asked_for

pytestmark = pytest.mark.kernel

ALL = {
    **PATHS,
    "latency": "probes.latency.probe:LatencyProbe",
    "pmc": "probes.pmc.probe:PmcProbe",
}
TARGET = "tracepoint:syscalls:sys_enter_getppid"
STRESS = ("stress-ng", "--quiet", "--timeout", "300", "--switch", "1", "--fault", "1",
          "--exec", "1", "--get", "1", "--pipe", "1")  # fmt: skip
Shown = Callable[[Frame, int], int]


class Row(NamedTuple):
    """A load: a workload with its arguments, and numbers that are known beside how they show."""

    name: str
    command: tuple[str, ...]
    expected: tuple[tuple[int, Shown], ...]


def calls(name: str, errors: bool = False) -> Shown:
    """Calls of a process by name, or those that failed."""

    def shown(frame: Frame, pid: int) -> int:
        sample = cast(SyscallSample, frame.samples["syscalls"])
        found = [
            counts.errors if errors else counts.n
            for (process, call), counts in sample.matrix.items()
            if pid_of(process) == pid and call == name
        ]
        return sum(found)

    return shown


def timed(spec: str) -> Shown:
    """Events of a target by a process."""

    def shown(frame: Frame, pid: int) -> int:
        sample = cast(LatencySample, frame.samples["latency"])
        found = [
            spent.n
            for (of, process), spent in sample.processes.items()
            if of == spec and pid_of(process) == pid
        ]
        return sum(found)

    return shown


def reading(event: str) -> Shown:
    """A counter of a process."""

    def shown(frame: Frame, pid: int) -> int:
        sample = cast(PmcSample, frame.samples["pmc"])
        found = [
            one.value
            for (process, name), one in sample.readings.items()
            if pid_of(process) == pid and name == event
        ]
        return sum(found)

    return shown


TABLE = [
    Row("calls", ("calls", "getppid", "100000"),
        ((100_000, calls("getppid")), (100_000, timed(TARGET)))),
    Row("calls of four threads", ("calls", "threads", "20000"), ((80_000, calls("getppid")),)),
    Row("calls that fail", ("calls", "openat", "5000"),
        ((5000, calls("openat")), (5000, calls("openat", errors=True)))),
    Row("page faults", ("counters", "faults"), ((3000, reading("page-faults")),)),
]  # fmt: skip


@pytest.fixture(scope="module", params=["alone", "beside others"])
def live(request: pytest.FixtureRequest) -> Iterator[Live]:
    """All probes, with nothing given up, on a quiet machine and on a busy one."""
    stress: subprocess.Popen[bytes] | None = None
    if request.param != "alone":
        if shutil.which("stress-ng") is None:
            pytest.skip("stress-ng is missing: install the package stress-ng")
        stress = subprocess.Popen(STRESS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        options: dict[str, dict[str, Any]] = {"latency": {"targets": [TARGET]}}
        with Live(*ALL, paths=ALL, options=options, interval=0.2) as source:
            yield source
    finally:
        if stress is not None:
            stress.terminate()
            stress.wait(30)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_what_was_done_is_shown(live: Live, program: Callable[[str], Path], row: Row) -> None:
    name, *arguments = row.command
    with Work(program(name), *arguments) as work:
        before = live.settled()
        if name == "counters":
            work.stdin.write("3000\n")
            work.stdin.flush()
            work.done()
        else:
            work.work()
        after = live.settled()
    for expected, shown in row.expected:
        assert shown(after, work.pid) - shown(before, work.pid) == expected


@pytest.mark.parametrize("interval", [0.05, 0.5])
def test_the_longest_call_is_exact(calls: Path, interval: float) -> None:
    """Runs whose longest sleeps differ: the maximum of each, and of all that came since.

    No sleep is shorter than what was asked for, and the clocks around it are read outside of it;
    a bucket of durations is thirty times as wide as what the two clocks may differ by.
    """
    spec = "syscall:clock_nanosleep"
    options: dict[str, dict[str, Any]] = {
        "syscalls": {"latency": True},
        "latency": {"targets": [spec]},
    }
    bounds: list[tuple[int, int]] = []
    states: list[Frame] = []
    filters = Filters(comm="calls")
    with Live("syscalls", "latency", paths=ALL, options=options, filters=filters,
              interval=interval) as live:  # fmt: skip
        states.append(live.settled())
        for count in (40, 3, 25, 2, 1):
            with Work(calls, "sleeps", str(count)) as work:
                said = work.work()
            bounds.append((sleeps_asked_for(count)[-1], said[2]))
            states.append(live.settled())
    for begin in range(len(bounds)):
        for end in range(begin + 1, len(states)):
            low, high = (max([bound[side] for bound in bounds[begin:end]]) for side in (0, 1))
            for row in longest_of(states[begin], states[end], spec):
                assert row["max_exact"] is True
                assert low * 0.999 <= row["max"] <= high * 1.001, (begin, end, row)


def longest_of(before: Frame, after: Frame, spec: str) -> list[dict[str, Any]]:
    """The rows of a system call, and of the target that is the same, in a stream object."""
    old, new = before.samples, after.samples
    call = SyscallProbe.contract(old["syscalls"], new["syscalls"], 1)["rows"]
    target = LatencyProbe.contract(old["latency"], new["latency"], 1)["targets"]
    found = [row for row in call if row["syscall"] == spec.partition(":")[2]]
    found += [row for row in target if row["spec"] == spec]
    assert len(found) == 2
    return found


def test_each_program_that_ended_has_its_status(live: Live) -> None:
    """A hundred programs with a status each, of which every fifth is killed."""
    wanted: dict[int, tuple[int, int]] = {}
    since = len(live.events())
    for number in range(100):
        how = "kill -9 $$" if number % 5 == 0 else f"exit {number}"
        process = subprocess.Popen(["/bin/sh", "-c", how])
        process.wait(60)
        wanted[process.pid] = (0, 9) if number % 5 == 0 else (number, 0)
    live.settled()
    ends = [event for event in live.events()[since:] if isinstance(event, ExitEvent)]
    found = [(end.pid, (end.exit_code, end.signal)) for end in ends if end.pid in wanted]
    assert sorted(found) == sorted(wanted.items())
