# SPDX-License-Identifier: Apache-2.0
"""Targets that come and go, many of them, and filters: the others' counts stay exact."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probes.core import kernel
from probes.core.frame import NO_FILTERS, Filters
from tests.kernel.harness import (
    Live,
    Work,
    eventually,
    held_programs,
    open_descriptors,
    program_ids,
)
from tests.kernel.timing import Timing, by_pid, rows, since, targets_of

pytestmark = pytest.mark.kernel

Program = Callable[[str], Path]
UID = 54321


@pytest.fixture
def path(program: Program) -> Path:
    return program("functions")


@pytest.fixture(scope="module")
def shared(program: Program) -> Iterator[Timing]:
    with Timing(f"uprobe:{program('functions')}:shared") as live:
        yield live


def filtered(live: Live, filters: Filters) -> None:
    live.source.set_filters(filters)
    live.wait("the filters hold", lambda frame: frame.filters == filters)


def counted(live: Timing, spec: str, filters: Filters, *works: Work) -> dict[int, int]:
    """Calls by process while the filters hold."""
    filtered(live, filters)
    before = live.latency()
    for work in works:
        work.work()
    after = live.latency()
    filtered(live, NO_FILTERS)
    found = by_pid(before, after, spec)
    histogram, missed, overflow = since(before, after, spec)
    assert histogram.n == sum(found.values())
    # A call that does not pass is neither counted nor missed.
    assert (missed, overflow) == (0, 0)
    return found


def test_processes_behind_a_target(shared: Timing, path: Path) -> None:
    spec = f"uprobe:{path}:shared"
    with (
        Work(path, "shared", "1000", "", "alpha") as one,
        Work(path, "shared", "2000", "", "[red]\x1b[2J") as other,
    ):
        found = counted(shared, spec, NO_FILTERS, one, other)
    assert found == {one.pid: 1000, other.pid: 2000}
    sample = shared.latency()
    assert (sample.comms[one.pid], sample.comms[other.pid]) == ("alpha", "[red]\x1b[2J")
    assert sample.processes[spec, one.pid].total > 0


def test_by_pid(shared: Timing, path: Path) -> None:
    with Work(path, "shared", "1000") as one, Work(path, "shared", "1000") as other:
        filters = Filters(pid=one.pid)
        found = counted(shared, f"uprobe:{path}:shared", filters, one, other)
    assert found == {one.pid: 1000}


def test_by_name_and_by_user(shared: Timing, path: Path) -> None:
    with (
        Work(path, "shared", "100", "", "alpha", user=UID) as both,
        Work(path, "shared", "100", "", "alpha") as named,
        Work(path, "shared", "100", "", "beta", user=UID) as owned,
    ):
        spec = f"uprobe:{path}:shared"
        filters = Filters(comm="alpha", uid=UID)
        assert counted(shared, spec, filters, both, named, owned) == {both.pid: 100}
    with (
        Work(path, "shared", "7", "", "alpha") as one,
        Work(path, "shared", "7", "", "alphabet") as other,
    ):
        assert counted(shared, spec, Filters(comm="alpha"), one, other) == {one.pid: 7}


def test_by_cgroup(shared: Timing, path: Path) -> None:
    root = kernel.cgroup2()
    if root is None:
        pytest.skip("no cgroup2 hierarchy is mounted")
    group = root / f"probetop-latency-{os.getpid()}"
    group.mkdir()
    try:
        with Work(path, "shared", "100") as inside, Work(path, "shared", "100") as outside:
            (group / "cgroup.procs").write_text(str(inside.pid))
            filters = Filters(cgroup=f"/{group.name}")
            found = counted(shared, f"uprobe:{path}:shared", filters, inside, outside)
        assert found == {inside.pid: 100}
    finally:
        group.rmdir()


def test_filters_change_while_calls_are_made(shared: Timing, path: Path) -> None:
    shared.add(spec := f"uprobe:{path}:steady")
    with Work(path, "until", "100") as one, Work(path, "until", "100") as other:
        filtered(shared, Filters(pid=one.pid))
        one.go()
        other.go()
        start, first = shared.latency(), shared.latency()
        assert set(by_pid(start, first, spec)) == {one.pid}
        filtered(shared, Filters(pid=other.pid))
        second, third = shared.latency(), shared.latency()
        assert set(by_pid(second, third, spec)) == {other.pid}
        filtered(shared, NO_FILTERS)
        fourth, fifth = shared.latency(), shared.latency()
        assert set(by_pid(fourth, fifth, spec)) == {one.pid, other.pid}
        one.work()
        other.work()
    shared.remove(spec)


def test_a_filter_of_the_waiting_for_a_cpu(path: Path) -> None:
    """There it is not the running process that is asked for."""
    with Work(path, "until", "100") as work, Work(path, "until", "100") as other:
        with Timing("runq", "offcpu", filters=Filters(pid=work.pid)) as live:
            work.go()
            other.go()
            before, after = live.latency(), live.latency()
            for spec in ("runq", "offcpu"):
                assert set(by_pid(before, after, spec)) == {work.pid}
        work.work()
        other.work()


def test_targets_come_and_go_beside_one_that_runs(path: Path) -> None:
    """A process calls all the time; what it says it called is what was counted."""
    steady = f"uprobe:{path}:steady"
    with Timing(steady) as live, Work(path, "until", "1000") as work:
        before = live.latency()
        alone = held_programs()
        work.go()
        for name in ("empty", "work_*", "steady+0x0", "no_such"):
            spec = f"uprobe:{path}:{name}"
            live.source.set_option("latency", "add", spec)
            (target,) = live.decided(spec)
            assert target.state == ("failed" if name == "no_such" else "on"), target
            if name != "no_such":
                assert held_programs() - alone
            live.remove(spec)
            eventually("the broker has detached it", lambda: held_programs() == alone)
        (made,) = work.work()
        after = live.latency()
    found, missed, overflow = since(before, after, steady)
    assert made > 10_000
    assert (found.n, missed, overflow) == (made, 0, 0)
    assert by_pid(before, after, steady) == {work.pid: made}


def test_a_target_that_comes_back_counts_from_zero(path: Path) -> None:
    spec = f"uprobe:{path}:shared"
    with Timing(spec) as live:
        with Work(path, "shared", "500") as work:
            work.work()
        assert live.now()[spec].histogram.n == 500
        before = live.latency()
        live.remove(spec)
        assert spec not in live.now()
        assert not [key for key in live.latency().processes if key[0] == spec]
        live.add(spec)
        with Work(path, "shared", "20") as work:
            work.work()
        after = live.latency()
        assert after.targets[spec].histogram.n == 20
        assert rows(before, after)[spec].count == 20
        assert by_pid(before, after, spec) == {work.pid: 20}


def test_rounds_of_adding_and_removing_leak_nothing(path: Path) -> None:
    function, event = f"uprobe:{path}:inner", "tracepoint:syscalls:sys_enter_getppid"
    with Timing(f"uprobe:{path}:empty", interval=0.05) as live:
        live.settled()
        held, descriptors = held_programs(), open_descriptors()
        map_bytes = live.latency().cost.map_bytes
        seen: set[int] = set()
        for number in range(20):
            spec = event if number % 5 else function
            live.add(spec)
            seen |= held_programs()
            live.remove(spec)
        eventually("the broker has detached all", lambda: held_programs() == held)

        def as_before() -> bool:
            return open_descriptors() == descriptors

        eventually("there are as many descriptors as before", as_before)
        assert live.latency().cost.map_bytes == map_bytes
        gone = seen - held
        # Entry, return and end of a thread; or the event alone.
        assert len(gone) == 4 * 3 + 16
        eventually("their programs are gone", lambda: not gone & program_ids())
        assert held <= program_ids()


def test_off_detaches_all_and_on_counts_anew(path: Path) -> None:
    spec = f"uprobe:{path}:shared"
    others = held_programs()
    with Timing(spec, "runq", "syscall:getppid") as live:
        live.add(f"uprobe:{path}:empty")
        held = held_programs() - others
        # Entry, return and end of a thread, two functions; a system call's ends; two wakeups
        # and the switch.
        assert len(held) == 11
        live.source.toggle("latency", False)
        live.wait("it is off", lambda frame: frame.samples["latency"].state == "off")
        eventually("the broker has detached all", lambda: held_programs() == others)
        eventually("the programs are gone", lambda: not held & program_ids())
        live.source.toggle("latency", True)
        live.all_on("latency")
        eventually("as many are held", lambda: len(held_programs() - others) == len(held))
        assert list(live.now()) == [spec, "runq", "syscall:getppid", f"uprobe:{path}:empty"]
        with Work(path, "shared", "10") as work:
            work.work()
        assert live.now()[spec].histogram.n == 10


def test_a_hundred_targets_at_once(path: Path) -> None:
    tracefs = kernel.tracefs()
    assert tracefs is not None
    known = sorted(p.name for p in (tracefs / "events" / "syscalls").glob("sys_enter_*"))
    assert len(known) > 200
    names = [name for name in known if name != "sys_enter_getppid"][:98]
    specs = [f"tracepoint:syscalls:{name}" for name in ("sys_enter_getppid", *names)]
    specs.append(f"uprobe:{path}:shared")
    with Timing(*specs) as live:
        found = live.now()
        assert {spec: t.why for spec, t in found.items() if t.state != "on"} == {}
        assert list(found) == specs
        assert len(found) == 100
        before = live.latency()
        with Work(path, "shared", "3000") as work:
            work.work()
        for _ in range(7):
            os.getppid()
        after = live.latency()
    assert since(before, after, specs[-1])[0].n == 3000
    assert by_pid(before, after, specs[0])[os.getpid()] == 7
    assert after.lost == 0


def test_by_default_there_are_presets() -> None:
    with Timing(options={}) as live:
        sample = live.latency()
        assert set(sample.targets) >= {"runq", "softirq"}
        assert {target.state for target in sample.targets.values()} == {"on"}
        live.wait("runq has counted", lambda frame: targets_of(frame)["runq"].histogram.n > 0)
