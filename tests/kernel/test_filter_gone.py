# SPDX-License-Identifier: Apache-2.0
"""A filtered process that ends and a cgroup that is removed are said, and nobody takes their place.

The kernel is made to use a pid again through ns_last_pid, so that the new process has it at once.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.frame import NO_FILTERS, Filters, Frame, Notice
from probes.core.sample import Counts
from probes.core.syscall_names import name_of
from probes.execs.sample import ExecEvent
from probes.host.filter_watch import FilterWatch
from probes.latency.sample import LatencySample
from probes.pmc.sample import PmcSample
from probes.syscalls.sample import SyscallSample
from tests.kernel.harness import PATHS, Live, Work, eventually

pytestmark = pytest.mark.kernel

Program = Callable[[str], Path]
NUMBER = name_of(500, False, kernel.arch() or "")
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
TRIES = 50
ALL = {
    **PATHS,
    "latency": "probes.latency.probe:LatencyProbe",
    "pmc": "probes.pmc.probe:PmcProbe",
}


@pytest.fixture(scope="module")
def live(program: Program) -> Iterator[Live]:
    """All four probes; the latency probe times a function of a workload."""
    target = f"uprobe:{program('functions')}:shared"
    options = {"latency": {"targets": [target]}}
    with Live(*ALL, paths=ALL, options=options) as source:
        yield source


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """The path of a cgroup that does not exist yet."""
    root = kernel.cgroup2()
    if root is None:
        pytest.skip("no cgroup2 hierarchy is mounted")
    path = root / f"probetop-gone-{os.getpid()}"
    yield path
    if path.exists():
        path.rmdir()


def filtered(live: Live, filters: Filters) -> Frame:
    live.source.set_filters(filters)
    return live.wait("the filters hold", lambda frame: frame.filters == filters)


def noticed(live: Live, kind: str) -> Notice:
    """The notice of this kind, as soon as a Frame has one."""
    frame = live.wait(f"{kind} is said", lambda f: any(n.kind == kind for n in f.notices))
    return next(notice for notice in frame.notices if notice.kind == kind)


def reborn(pid: int, *command: str | Path) -> Work | None:
    """A process that has the pid of one that has ended; None if somebody else took it."""
    for _ in range(TRIES):
        LAST_PID.write_text(str(pid - 1))
        work = Work(*command)
        if work.pid == pid:
            return work
        work.end()
        if Path(f"/proc/{pid}").exists():
            return None
    return None


def replaced(live: Live, first: Path, *second: str | Path) -> Work:
    """Filter by a process, end it, and give its pid to another one."""
    for _ in range(TRIES):
        with Work(first, "number", "0") as work:
            filtered(live, Filters(pid=work.pid))
        noticed(live, "process_ended")
        again = reborn(work.pid, *second)
        if again is not None:
            return again
    raise AssertionError("the pid was always taken by somebody else")


def matrix(live: Live) -> dict[tuple[int, str], Counts]:
    sample = live.settled().samples["syscalls"]
    return dict(cast(SyscallSample, sample).matrix)


def test_the_end_of_a_filtered_process_is_said(live: Live, calls: Path) -> None:
    with Work(calls, "number", "30", "goner") as work:
        frame = filtered(live, Filters(pid=work.pid))
        assert frame.notices == ()
        work.work()
        before = frame.time
    notice = noticed(live, "process_ended")
    assert (notice.pid, notice.comm) == (work.pid, "goner")
    assert before <= notice.time <= live.settled().time
    assert matrix(live)[work.pid, NUMBER] == Counts(30, 30)
    # It stands as long as the filter does, and says the same.
    assert live.settled().notices == (notice,)
    assert live.settled().filters == Filters(pid=work.pid)
    assert filtered(live, NO_FILTERS).notices == ()
    with Work(calls, "number", "7") as other:
        other.work()
        assert matrix(live)[other.pid, NUMBER] == Counts(7, 7)


def test_system_calls_of_a_process_with_the_same_pid_do_not_count(live: Live, calls: Path) -> None:
    with replaced(live, calls, calls, "number", "50") as again:
        before = matrix(live)
        again.work()
        assert matrix(live) == before
        # Meant anew, it is the one that counts.
        filtered(live, Filters(pid=again.pid))
    noticed(live, "process_ended")
    with Work(calls, "number", "60") as other:
        filtered(live, Filters(pid=other.pid))
        other.work()
        assert matrix(live)[other.pid, NUMBER] == Counts(60, 60)
    filtered(live, NO_FILTERS)


def test_executions_of_a_process_with_the_same_pid_are_not_shown(
    live: Live, calls: Path, program: Program
) -> None:
    """Neither its own, nor those of its children, nor their ends."""
    since = len(live.events())
    shell = "echo ready $$; read line; {0} child; echo done; exec {0} itself"
    script = shell.format(program("tiny"))
    with replaced(live, calls, "/bin/sh", "-c", script) as again:
        since = len(live.events())
        again.work()
    live.settled()
    seen = live.events()[since:]
    assert [event for event in seen if event.pid == again.pid] == []
    assert [event.args for event in seen if isinstance(event, ExecEvent)] == []
    filtered(live, NO_FILTERS)


def test_functions_of_a_process_with_the_same_pid_are_not_timed(
    live: Live, calls: Path, program: Program
) -> None:
    def timed() -> tuple[int, int]:
        sample = cast(LatencySample, live.settled().samples["latency"])
        (target,) = sample.targets.values()
        return target.histogram.n, target.missed

    path = program("functions")
    with replaced(live, calls, path, "shared", "40") as again:
        before = timed()
        again.work()
        assert timed() == before
        filtered(live, NO_FILTERS)
    with Work(path, "shared", "40") as work:
        work.work()
    assert timed()[0] > before[0]


def test_cpu_time_of_a_process_with_the_same_pid_is_not_charged(live: Live, calls: Path) -> None:
    def switches(pid: int) -> int:
        sample = cast(PmcSample, live.settled().samples["pmc"])
        return sample.tasks[pid].switches if pid in sample.tasks else 0

    with replaced(live, calls, calls, "sleeps", "20") as again:
        before = switches(again.pid)
        again.work()
        assert switches(again.pid) == before
        filtered(live, Filters(pid=again.pid))
        start = switches(again.pid)
    live.settled()
    assert start <= before + 1
    filtered(live, NO_FILTERS)
    with Work(calls, "sleeps", "20") as work:
        filtered(live, Filters(pid=work.pid))
        work.work()
        assert switches(work.pid) >= 20
    filtered(live, NO_FILTERS)


def test_probes_that_are_loaded_later_do_not_count_it_either(live: Live, calls: Path) -> None:
    """Loading anew knows which process was meant, and does not look the pid up again."""
    with replaced(live, calls, calls, "number", "50") as again:
        live.source.toggle("syscalls", False)
        live.wait("it is off", lambda frame: frame.samples["syscalls"].state == "off")
        live.source.toggle("syscalls", True)
        live.all_on("syscalls")
        again.work()
        assert matrix(live) == {}
    filtered(live, NO_FILTERS)


def test_files_are_not_looked_up_through_a_process_with_the_same_pid(
    live: Live, calls: Path, program: Program
) -> None:
    """Where it lives in a container, it has files of its own under the same paths."""
    spec = f"uprobe:{program('functions')}:inner"
    with replaced(live, calls, calls, "number", "50"):
        live.source.set_option("latency", "add", spec)

        def failed(frame: Frame) -> str | None:
            target = cast(LatencySample, frame.samples["latency"]).targets.get(spec)
            return target.why if target is not None and target.state == "failed" else None

        frame = live.wait("it is refused", failed)
        assert "has ended, so that its files cannot be looked up" in (failed(frame) or "")
    live.source.set_option("latency", "remove", spec)
    filtered(live, NO_FILTERS)


def test_a_filter_that_is_set_back_still_means_the_process_that_ended(
    live: Live, calls: Path
) -> None:
    """A run of the agent counts something else meanwhile."""
    with replaced(live, calls, calls, "number", "50") as again:
        kept = live.source.filter_watch
        filtered(live, Filters(comm="nobody-has-this"))
        live.source.count(kept)
        live.wait("they hold again", lambda frame: frame.filters.pid == again.pid)
        noticed(live, "process_ended")
        before = matrix(live)
        again.work()
        assert matrix(live) == before
    filtered(live, NO_FILTERS)


def test_a_process_or_thread_that_cannot_be_meant_is_refused(live: Live, calls: Path) -> None:
    ended = subprocess.Popen(["/bin/true"])
    ended.wait()
    with pytest.raises(ProbeError, match=f"there is no process {ended.pid}: see ps"):
        live.source.set_filters(Filters(pid=ended.pid))
    with Work(calls, "until", "1000") as work:
        work.go()
        tasks = Path(f"/proc/{work.pid}/task")
        names = eventually(
            "it has a thread", lambda: {p.name for p in tasks.iterdir()} - {tasks.parent.name}
        )
        thread = int(names.pop())
        with pytest.raises(ProbeError, match=f"{thread} is a thread, not a process"):
            live.source.set_filters(Filters(pid=thread))
        work.go()
        work.done()
    assert live.settled().filters == NO_FILTERS


def test_threads_pass_and_so_does_a_program_that_a_thread_starts(
    live: Live, calls: Path, program: Program
) -> None:
    """The start time is the leader's, and execve by another thread keeps it."""
    with Work(calls, "threads", "25") as work:
        filtered(live, Filters(pid=work.pid))
        work.work()
        assert matrix(live)[work.pid, "getppid"].n == 100
    filtered(live, NO_FILTERS)
    tiny = program("tiny")
    with Work(program("thread_exec"), tiny, "by a thread") as work:
        filtered(live, Filters(pid=work.pid))
        since = len(live.events())
        work.go()
    noticed(live, "process_ended")
    started = [event for event in live.events()[since:] if isinstance(event, ExecEvent)]
    assert [(e.pid, e.args) for e in started] == [(work.pid, (str(tiny), "by a thread"))]
    filtered(live, NO_FILTERS)


def test_a_removed_cgroup_is_said_and_followed_when_made_again(
    live: Live, calls: Path, cgroup: Path
) -> None:
    cgroup.mkdir()
    path = f"/{cgroup.name}"
    with Work(calls, "number", "10") as work:
        (cgroup / "cgroup.procs").write_text(str(work.pid))
        assert filtered(live, Filters(cgroup=path)).notices == ()
        work.work()
        assert matrix(live)[work.pid, NUMBER] == Counts(10, 10)
    cgroup.rmdir()
    notice = noticed(live, "cgroup_removed")
    assert (notice.cgroup, notice.pid, notice.comm) == (path, None, None)
    with Work(calls, "number", "20") as outside:
        before = matrix(live)
        outside.work()
        assert matrix(live) == before
    cgroup.mkdir()
    back = noticed(live, "cgroup_followed")
    assert (back.cgroup, back.time > notice.time) == (path, True)
    with Work(calls, "number", "40") as inside, Work(calls, "number", "80") as outside:
        (cgroup / "cgroup.procs").write_text(str(inside.pid))
        before = matrix(live)
        inside.work()
        outside.work()
        after = matrix(live)
        (cgroup.parent / "cgroup.procs").write_text(str(inside.pid))
    assert after[inside.pid, NUMBER] == Counts(40, 40)
    assert (outside.pid, NUMBER) not in after
    assert live.settled().notices == (back,)
    assert filtered(live, NO_FILTERS).notices == ()


def test_a_cgroup_that_is_made_again_at_once_is_followed(
    live: Live, calls: Path, cgroup: Path
) -> None:
    """Between two looks at it, it was never seen to be missing."""
    cgroup.mkdir()
    watch = FilterWatch(Filters(cgroup=f"/{cgroup.name}"))
    assert (watch.check(), watch.notices) == (False, ())
    cgroup.rmdir()
    cgroup.mkdir()
    assert watch.check()
    assert [notice.kind for notice in watch.notices] == ["cgroup_followed"]
    assert not watch.check()


def test_a_cgroup_is_followed_long_before_the_next_frame(cgroup: Path) -> None:
    cgroup.mkdir()
    filters = Filters(cgroup=f"/{cgroup.name}")
    with Live("syscalls", interval=600.0, filters=filters) as live:
        watch = live.source.filter_watch
        for made, kind in ((False, "cgroup_removed"), (True, "cgroup_followed")):
            cgroup.mkdir() if made else cgroup.rmdir()
            eventually(kind, lambda kind=kind: [n.kind for n in watch.notices] == [kind])  # type: ignore[misc]
