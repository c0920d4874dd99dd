# SPDX-License-Identifier: Apache-2.0
"""Filters act in the kernel, at once, also while the probes run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probes.core import kernel
from probes.core.delta import count_delta
from probes.core.errors import ProbeError
from probes.core.frame import Filters
from probes.core.sample import Counts
from probes.core.syscall_names import name_of
from probes.execs.sample import ExecEvent
from probes.syscalls.sample import SyscallSample
from tests.kernel.harness import Live, Work

pytestmark = pytest.mark.kernel

NUMBER = name_of(500, False, kernel.arch() or "")
UID = 54321


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with Live("syscalls", "execs") as source:
        yield source


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup with one below it, both empty in the end."""
    root = kernel.cgroup2()
    if root is None:
        pytest.skip("no cgroup2 hierarchy is mounted")
    top = root / f"probetop-test-{os.getpid()}"
    below = top / "below" / "it"
    below.mkdir(parents=True)
    yield top
    for directory in (below, below.parent, top):
        directory.rmdir()


def filtered(live: Live, filters: Filters) -> None:
    live.source.set_filters(filters)
    live.wait("the filters hold", lambda frame: frame.filters == filters)


def counted(live: Live, filters: Filters, *works: Work) -> tuple[dict[int, Counts], set[int]]:
    """Calls of the nameless number by process, and all processes that made any call."""
    filtered(live, filters)
    before = live.syscalls()
    for work in works:
        work.work()
    after = live.syscalls()
    delta = count_delta(before.matrix, after.matrix)
    total = count_delta(before.calls, after.calls).get(NUMBER, Counts(0, 0))
    by_pid = {pid: n for (pid, call), n in delta.items() if call == NUMBER}
    missing = total.n - sum(n.n for n in by_pid.values())
    assert 0 <= missing <= after.unattributed - before.unattributed
    return by_pid, {pid for pid, _ in delta}


def test_pid(live: Live, calls: Path) -> None:
    with Work(calls, "number", "1000") as one, Work(calls, "number", "1000") as other:
        by_pid, anybody = counted(live, Filters(pid=one.pid), one, other)
    assert by_pid == {one.pid: Counts(1000, 1000)}
    assert anybody == {one.pid}


def test_comm(live: Live, calls: Path) -> None:
    with (
        Work(calls, "number", "700", "alpha") as one,
        Work(calls, "number", "700", "alphabet") as longer,
        Work(calls, "number", "700", "alph") as shorter,
    ):
        by_pid, anybody = counted(live, Filters(comm="alpha"), one, longer, shorter)
    assert by_pid == {one.pid: Counts(700, 700)}
    assert anybody == {one.pid}


def test_comm_of_fifteen_bytes(live: Live, calls: Path) -> None:
    name = "fifteen-bytes-x"
    with Work(calls, "number", "9", name) as one, Work(calls, "number", "9", name[:14]) as other:
        by_pid, _ = counted(live, Filters(comm=name), one, other)
    assert by_pid == {one.pid: Counts(9, 9)}


def test_uid(live: Live, calls: Path) -> None:
    with Work(calls, "number", "300", user=UID) as one, Work(calls, "number", "300") as other:
        by_pid, anybody = counted(live, Filters(uid=UID), one, other)
        assert by_pid == {one.pid: Counts(300, 300)}
        assert anybody == {one.pid}
    with Work(calls, "number", "300", user=UID) as one, Work(calls, "number", "300") as other:
        by_pid, _ = counted(live, Filters(uid=0), one, other)
        assert by_pid == {other.pid: Counts(300, 300)}


def test_cgroup_takes_in_what_is_below(live: Live, calls: Path, cgroup: Path) -> None:
    with (
        Work(calls, "number", "10") as inside,
        Work(calls, "number", "20") as below,
        Work(calls, "number", "40") as outside,
    ):
        (cgroup / "cgroup.procs").write_text(str(inside.pid))
        (cgroup / "below" / "it" / "cgroup.procs").write_text(str(below.pid))
        by_pid, anybody = counted(live, Filters(cgroup=f"/{cgroup.name}"), inside, below, outside)
        assert by_pid == {inside.pid: Counts(10, 10), below.pid: Counts(20, 20)}
        assert anybody == {inside.pid, below.pid}
        path = f"{cgroup}/below"
        with Work(calls, "number", "80") as late:
            (cgroup / "cgroup.procs").write_text(str(late.pid))
            by_pid, anybody = counted(live, Filters(cgroup=path), late)
        assert by_pid == {}
        assert anybody <= {below.pid}


def test_root_cgroup_takes_in_everything(live: Live, calls: Path) -> None:
    with Work(calls, "number", "5") as work:
        by_pid, _ = counted(live, Filters(cgroup="/"), work)
    assert by_pid == {work.pid: Counts(5, 5)}


def test_all_given_ones_must_hold(live: Live, calls: Path) -> None:
    with (
        Work(calls, "number", "1", "alpha", user=UID) as both,
        Work(calls, "number", "1", "alpha") as name_only,
        Work(calls, "number", "1", "beta", user=UID) as user_only,
    ):
        by_pid, _ = counted(live, Filters(comm="alpha", uid=UID), both, name_only, user_only)
        assert set(by_pid) == {both.pid}


def test_changed_while_a_process_works(live: Live, calls: Path) -> None:
    """Switching from one process to the other and to none, in the middle of their calls."""

    def count(sample: object, work: Work) -> int:
        assert isinstance(sample, SyscallSample)
        return sample.matrix.get((work.pid, "getppid"), Counts(0, 0)).n

    with Work(calls, "until", "100") as one, Work(calls, "until", "100") as other:
        filtered(live, Filters(pid=one.pid))
        one.go()
        other.go()
        start = live.syscalls()
        first = live.syscalls()
        assert count(first, one) > count(start, one)
        assert count(first, other) == 0
        filtered(live, Filters(pid=other.pid))
        second = live.syscalls()
        third = live.syscalls()
        assert count(third, one) == count(second, one)
        assert count(third, other) > count(second, other)
        filtered(live, Filters())
        fourth = live.syscalls()
        assert count(fourth, one) > count(third, one)
        assert count(fourth, other) > count(third, other)
        one.work()
        other.work()


def test_executions_by_process_take_in_its_children(
    live: Live, program: Callable[[str], Path]
) -> None:
    tiny = str(program("tiny"))
    filtered(live, Filters(pid=os.getpid()))
    live.settled()
    since = len(live.events())
    subprocess.run(["/bin/sh", "-c", f"{tiny} grandchild; {tiny} another"], check=True)
    subprocess.run([tiny, "child"], check=True)
    live.settled()
    started = [e.args for e in live.events()[since:] if isinstance(e, ExecEvent)]
    assert started == [("/bin/sh", "-c", f"{tiny} grandchild; {tiny} another"), (tiny, "child")]
    filtered(live, Filters())


def test_executions_by_user(live: Live, program: Callable[[str], Path]) -> None:
    tiny = str(program("tiny"))
    filtered(live, Filters(uid=UID))
    live.settled()
    since = len(live.events())
    subprocess.run([tiny, "as root"], check=True)
    subprocess.run([tiny, "as the user"], check=True, user=UID, close_fds=False)
    live.settled()
    events = live.events()[since:]
    assert [(e.args, e.uid) for e in events if isinstance(e, ExecEvent)] == [
        ((tiny, "as the user"), UID)
    ]
    assert len(events) == 2
    filtered(live, Filters())


def test_executions_tell_their_cgroup(
    live: Live, program: Callable[[str], Path], cgroup: Path
) -> None:
    below = cgroup / "below" / "it"
    filtered(live, Filters(cgroup=f"/{cgroup.name}"))
    live.settled()
    since = len(live.events())
    tiny = program("tiny")
    script = f"echo $$ > {below}/cgroup.procs; exec {tiny} inside"
    subprocess.run(["/bin/sh", "-c", script], check=True)
    subprocess.run([str(tiny), "outside"], check=True)
    live.settled()
    found = [e for e in live.events()[since:] if isinstance(e, ExecEvent)]
    assert [(e.args, e.cgroup) for e in found] == [
        ((str(tiny), "inside"), f"/{cgroup.name}/below/it")
    ]
    filtered(live, Filters())


def test_filters_outlive_off_and_on_and_latency(calls: Path) -> None:
    with Work(calls, "number", "50", "lasting") as work, Work(calls, "number", "50") as other:
        with Live("syscalls", filters=Filters(comm="lasting")) as live:
            live.source.toggle("syscalls", False)
            live.wait("it is off", lambda frame: frame.samples["syscalls"].state == "off")
            live.source.set_option("syscalls", "latency", True)
            live.source.toggle("syscalls", True)
            live.all_on("syscalls")
            work.work()
            other.work()
            sample = live.syscalls()
        assert sample.latency is not None
        assert {pid for pid, _ in sample.matrix} == {work.pid}
        assert sample.calls[NUMBER] == Counts(50, 50)


@pytest.mark.parametrize("path", ["/no/such/group", "/../../../proc", "/tmp"])
def test_a_path_that_is_no_cgroup_is_refused_at_once(live: Live, path: str) -> None:
    with pytest.raises(ProbeError, match="is no cgroup"):
        live.source.set_filters(Filters(cgroup=path))
    assert live.settled().samples["syscalls"].state == "on"


def test_a_cgroup_that_has_gone_is_empty(calls: Path) -> None:
    root = kernel.cgroup2()
    assert root is not None
    gone = root / f"probetop-gone-{os.getpid()}"
    gone.mkdir()
    with (
        Work(calls, "number", "5") as work,
        Live("syscalls", filters=Filters(cgroup=f"/{gone.name}")) as live,
    ):
        gone.rmdir()
        work.work()
        assert live.syscalls().matrix == {}
        # Loading anew does not find the directory; nothing must be taken for everything.
        live.source.set_option("syscalls", "latency", True)
        live.wait(
            "latency is on",
            lambda frame: (
                isinstance(sample := frame.samples["syscalls"], SyscallSample)
                and sample.latency is not None
            ),
        )
        os.getppid()
        assert live.syscalls().matrix == {}
