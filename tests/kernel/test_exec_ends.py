# SPDX-License-Identifier: Apache-2.0
"""How programs with threads end: one exit each, with the process's own code, name and age."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probes.core.frame import Filters
from probes.execs.probe import ExecProbe
from probes.execs.sample import ExecEvent, ExecSample, ExitEvent
from tests.kernel.harness import Live, Work

pytestmark = pytest.mark.kernel

Program = Callable[[str], Path]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with Live("execs") as source:
        yield source


def ends(live: Live, since: int, pid: int) -> list[ExitEvent]:
    """The exits of a process since the event of that number."""
    events = live.events()[since:]
    return [event for event in events if isinstance(event, ExitEvent) and event.pid == pid]


CASES = [
    ("return", 0, 7),
    ("return", 1, 7),
    ("return", 4, 7),
    ("return", 16, 7),
    ("thread", 0, 5),
    ("thread", 8, 5),
    ("last", 0, 5),
    ("leader", 0, None),
    ("exec", 4, 7),
]


@pytest.mark.parametrize(("how", "threads", "code"), CASES)
def test_each_program_with_threads_has_one_exit(
    live: Live, program: Program, how: str, threads: int, code: int | None
) -> None:
    ending = program("ends")
    since = len(live.events())
    statuses: dict[int, int] = {}
    for _ in range(20):
        with Work(ending, how, str(threads)) as work:
            work.go()
            statuses[work.pid] = work.process.wait(20)
            work.end()
    live.settled()
    assert code is None or set(statuses.values()) == {code}
    for pid, status in statuses.items():
        (end,) = ends(live, since, pid)
        # What wait(2) told is right, whichever thread the kernel takes the code from.
        assert (end.exit_code, end.signal) == (status, 0)
        assert end.comm == ("exe" if how == "exec" else "ends")


def test_a_killed_process_has_its_own_name_and_age_not_its_youngest_threads(
    program: Program,
) -> None:
    """The process is older than the probe, and its threads are young."""
    with Work(program("ends"), "wait", "16") as work:
        begun = time.monotonic()
        with Live("execs") as live:
            waited = time.monotonic() - begun
            work.go()
            assert work.stdout.readline() == "begun\n"
            work.process.send_signal(signal.SIGKILL)
            assert work.process.wait(20) == -signal.SIGKILL
            work.end()
            live.settled()
            (end,) = ends(live, 0, work.pid)
    assert (end.comm, end.signal) == ("ends", signal.SIGKILL)
    assert end.duration is not None
    assert end.duration >= waited * 1e9


def test_a_parents_name_is_its_processs_whichever_thread_starts_the_program(
    live: Live, program: Program
) -> None:
    starter = program("thread_spawn")
    since = len(live.events())
    with Work(starter, "/bin/true") as work:
        work.work()
        assert work.end() == 0
    live.settled()
    started = [
        event
        for event in live.events()[since:]
        if isinstance(event, ExecEvent) and event.ppid == work.pid
    ]
    assert [(event.comm, event.parent, event.ret) for event in started] == [
        ("true", "thread_spawn", 0),
        ("true", "thread_spawn", 0),
    ]
    assert os.getpid() != work.pid


def test_a_setuid_program_has_both_users_and_a_filter_by_user_takes_either(
    program: Program, tmp_path: Path
) -> None:
    """nobody runs a program of user 4242 that has the setuid bit."""
    directory = Path(tempfile.mkdtemp(prefix="probetop-setuid-", dir="/var/tmp"))
    try:
        directory.chmod(0o755)
        tool = directory / "tool"
        shutil.copy(program("tiny"), tool)
        os.chown(tool, 4242, 4242)
        tool.chmod(0o4755)
        for user in (None, 65534, 4242, 4243):
            with Live("execs", filters=Filters(uid=user)) as live:
                subprocess.run([tool], user=65534, check=True)
                live.settled()
                found = [
                    (event.uid, event.euid)
                    for event in live.events()
                    if isinstance(event, ExecEvent) and event.comm == "tool"
                ]
                assert found == ([] if user == 4243 else [(65534, 4242)])
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize(("length", "cut"), [(127, False), (128, True)])
def test_paths_that_are_cut_say_so(
    live: Live, program: Program, tmp_path: Path, length: int, cut: bool
) -> None:
    since = len(live.events())
    name = tmp_path / ("x" * (length - len(str(tmp_path)) - 1))
    for there in (False, True):
        if there:
            shutil.copy(program("tiny"), name)
        subprocess.run([name], check=False) if there else missing(name)
    live.settled()
    found = [
        event
        for event in live.events()[since:]
        if isinstance(event, ExecEvent) and event.ppid == os.getpid()
    ]
    assert [event.ret for event in found] == [-2, 0]
    for event in found:
        assert (event.path, event.path_truncated) == (str(name)[:127], cut)
        shown = ExecProbe.contract(None, ExecSample(events=(event,)), 1.0)["events"]
        assert [(one["truncated"], one["path_truncated"]) for one in shown] == [(cut, cut)]


def missing(path: Path) -> None:
    """Fail to execute what is not there."""
    with pytest.raises(FileNotFoundError):
        os.posix_spawn(path, [str(path)], {})
