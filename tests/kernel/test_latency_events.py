# SPDX-License-Identifier: Apache-2.0
"""Static probes, tracepoints, system calls and presets, against programs that count."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from probes.core import histogram
from probes.core.errors import ProbeError
from probes.core.frame import NO_FILTERS, Filters
from probes.core.sample import Histogram
from probes.latency.sample import LatencySample
from probes.symbols.target_spec import PRESETS
from probes.symbols.usdt import usdt_probes
from tests.kernel.harness import Work, eventually
from tests.kernel.timing import (
    STEP,
    Timing,
    assert_between,
    assert_sleeps,
    by_pid,
    rank,
    rows,
    since,
    sleeps_asked_for,
)

pytestmark = pytest.mark.kernel

Program = Callable[[str], Path]
# Where there are programs already, they have been compiled with it.
HEADER = "PROBETOP_WORKLOADS" in os.environ or any(Path("/usr/include").glob("**/sys/sdt.h"))
needs_header = pytest.mark.skipif(not HEADER, reason="sys/sdt.h: install systemtap-sdt-dev")
PYTHON = os.path.realpath(sys.executable)
BLOCK = "tracepoint:block:block_rq_issue,tracepoint:block:block_rq_complete@dev,sector"
CALLS = "tracepoint:syscalls:sys_enter_getppid"
PAIR = f"{CALLS},tracepoint:syscalls:sys_exit_getppid"
COLLECTIONS = """
import ctypes, gc, os, sys, time
gc.disable()
kept = [[] for _ in range(100_000)]
libc = ctypes.CDLL("libc.so.6")
print("ready", os.getpid(), flush=True)
sys.stdin.readline()
spent = []
for _ in range(int(sys.argv[1])):
    start = time.perf_counter_ns()
    gc.collect()
    spent.append(time.perf_counter_ns() - start)
    libc.mallopt(-8, 2)
print("done", *sorted(spent), flush=True)
sys.stdin.readline()
os._exit(0)
"""


def has_static_probe(path: str, name: str) -> bool:
    try:
        return any(probe.name == name for probe in usdt_probes(path))
    except (OSError, ProbeError):
        return False


needs_gc = pytest.mark.skipif(
    not has_static_probe(PYTHON, "gc__start"), reason="this Python was built without static probes"
)


@pytest.fixture(scope="module")
def live(program: Program) -> Iterator[Timing]:
    """All of them at once, so that there is one loading."""
    specs = [*PRESETS, BLOCK, CALLS, PAIR, "syscall:getppid", "syscall:clock_nanosleep"]
    specs.append("syscall:read")
    if HEADER:
        timed = f"usdt:{program('timed')}:timed"
        specs += [f"{timed}:start", f"{timed}:start,{timed}:end"]
    if has_static_probe(PYTHON, "gc__start"):
        named = f"usdt:{os.path.basename(PYTHON)}"
        specs.append(f"usdt:{PYTHON}:python:gc__start")
        specs.append(f"{named}:python:gc__start,{named}:python:gc__done")
    with pytest.MonkeyPatch.context() as patch:
        # What PATH has first under this name may be a script.
        patch.setenv("PATH", os.path.dirname(PYTHON), prepend=os.pathsep)
        source = Timing(*specs)
    with source:
        found = source.now()
        assert {spec: t.why for spec, t in found.items() if t.state != "on"} == {}
        assert list(found) == specs
        yield source


def observe(live: Timing, work: Work) -> tuple[LatencySample, LatencySample, list[int]]:
    """The Samples before and after the work, and what it said."""
    before = live.latency()
    said = work.work()
    return before, live.latency(), said


@needs_header
def test_static_probes_count_and_pair(live: Timing, program: Program, tmp_path: Path) -> None:
    path = program("timed")
    with Work(path, "calls", "2000", tmp_path / "record") as work:
        before, after, _ = observe(live, work)
    single = f"usdt:{path}:timed:start"
    pair = f"{single},usdt:{path}:timed:end"
    for spec in (single, pair):
        found, missed, overflow = since(before, after, spec)
        assert (found.n, missed, overflow) == (2000, 0, 0), spec
        assert by_pid(before, after, spec) == {work.pid: 2000}
    assert_between(since(before, after, pair)[0], tmp_path / "record")
    target = after.targets[single]
    assert (target.mechanism, target.counts_only, target.floor) == ("usdt", True, None)
    row = rows(before, after)[single]
    assert (row.count, row.p50, row.maximum, row.total) == (2000, None, None, None)
    assert after.targets[pair].mechanism == "usdt"
    assert not after.targets[pair].counts_only


@needs_header
def test_a_guarded_probe_is_on_while_somebody_listens(live: Timing, program: Program) -> None:
    path = program("usdt")
    spec = f"usdt:{path}:usdt:guarded"
    with Work(path, "1000") as work:
        assert work.work() == [0]
        live.add(spec)
        before = live.latency()
        assert work.work() == [1000]
        with Work(path, "500") as late:
            assert late.work() == [500]
        after = live.latency()
        assert by_pid(before, after, spec) == {work.pid: 1000, late.pid: 500}
        live.remove(spec)
        # Whoever closes last detaches, and that may be another process than this one.
        eventually("the probe is off", lambda: work.work() == [0])
        assert work.work() == [0]


def assert_collections(found: Histogram, spent: Sequence[int]) -> None:
    """They take no longer than the calls around them, which do next to nothing else."""
    p50 = histogram.percentile(found.buckets, 0.5)
    assert p50 is not None
    assert 0.9 * rank(spent, 0.5) <= p50 <= (1 + STEP) * rank(spent, 0.5)
    assert found.total <= sum(spent)


@needs_gc
def test_collections_of_python(live: Timing) -> None:
    """By its path and by its name; the same file may run elsewhere, too."""
    n = 200
    with Work(PYTHON, "-c", COLLECTIONS, str(n)) as work:
        live.source.set_filters(Filters(pid=work.pid))
        before, after, spent = observe(live, work)
        live.source.set_filters(NO_FILTERS)
    name = os.path.basename(PYTHON)
    single = f"usdt:{PYTHON}:python:gc__start"
    pair = f"usdt:{name}:python:gc__start,usdt:{name}:python:gc__done"
    for spec in (single, pair):
        assert by_pid(before, after, spec) == {work.pid: n}
        assert after.comms[work.pid] == name
    found, missed, overflow = since(before, after, pair)
    assert (found.n, missed, overflow) == (n, 0, 0)
    assert_collections(found, spent)


LIBRARY = """
import ctypes, os, sys
library = ctypes.CDLL(sys.argv[1])
print("ready", os.getpid(), flush=True)
while sys.stdin.readline():
    print("done", library.fire(int(sys.argv[2])), flush=True)
os._exit(0)
"""


@needs_header
def test_a_static_probe_of_a_library_by_its_name(tmp_path: Path) -> None:
    """The name is looked for among what the filter's process has mapped."""
    library = tmp_path / "libprobed.so.1"
    source = Path(__file__).parents[1] / "workloads" / "usdt.c"
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is missing: install the package gcc")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", str(source), "-o", library], check=True)
    spec = "usdt:libprobed:usdt:guarded"
    with (
        Work(PYTHON, "-c", LIBRARY, library, "123") as work,
        Work(PYTHON, "-c", LIBRARY, library, "77") as other,
        Timing(spec, filters=Filters(pid=work.pid)) as live,
    ):
        before, after, said = observe(live, work)
        # It is on for everybody, for the kernel knows only the file, but counted for one.
        assert (said, other.work()) == ([123], [77])
        assert by_pid(before, after, spec) == {work.pid: 123}
        assert live.now()[spec].histogram.n == 123


def test_calls_by_three_ways(live: Timing, calls: Path) -> None:
    """A tracepoint counts, a pair of them and the system call time: all see each call."""
    with Work(calls, "getppid", "50000") as work:
        before, after, _ = observe(live, work)
    for spec in (CALLS, PAIR, "syscall:getppid"):
        assert by_pid(before, after, spec)[work.pid] == 50_000, spec
    timed, missed, overflow = since(before, after, "syscall:getppid")
    assert timed.n >= 50_000
    assert (missed, overflow) == (0, 0)
    p50 = histogram.percentile(timed.buckets, 0.5)
    floor = after.targets["syscall:getppid"].floor
    assert p50 is not None
    assert floor is not None
    assert 0 < floor < 100_000
    # It does nothing itself, so that this is what the probes show of nothing.
    assert floor / 3 <= p50 <= floor * 3
    assert after.targets[CALLS].counts_only


def test_sleeps_are_as_long_as_the_program_says(live: Timing, calls: Path) -> None:
    with Work(calls, "sleeps", "300") as work:
        live.source.set_filters(Filters(pid=work.pid))
        before, after, said = observe(live, work)
        live.source.set_filters(NO_FILTERS)
    row = rows(before, after)["syscall:clock_nanosleep"]
    assert (row.count, row.missed, row.overflow) == (300, 0, 0)
    assert_sleeps(row, 300, said)
    # Asleep it is off the CPU, but for the way there and back; and but for a sleep that was
    # over before it got there, for a virtual machine may stand still for a millisecond.
    off = rows(before, after)["offcpu"]
    assert off.count is not None
    assert off.count >= 285
    assert off.p50 is not None
    assert 0.9 * rank(sleeps_asked_for(300), 0.5) <= off.p50 <= (1 + STEP) * said[0]


def test_calls_under_way_are_missed_not_made_up(calls: Path) -> None:
    """It waits in read when the probe comes; that call's beginning nobody saw."""
    with (
        Work(calls, "number", "1") as work,
        Timing("syscall:read", filters=Filters(pid=work.pid)) as live,
    ):
        before, after, _ = observe(live, work)
    found, missed, _ = since(before, after, "syscall:read")
    assert (found.n, missed) == (0, 1)


def disk_work(path: Path, blocks: int) -> None:
    """Write this many blocks, one after the other, each to the device itself."""
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_SYNC)
    try:
        for _ in range(blocks):
            os.write(fd, b"x" * 4096)
    finally:
        os.close(fd)


def test_block_requests_joined_by_fields(live: Timing) -> None:
    # On a disk: what pytest gives may be in memory.
    path = Path.cwd() / f".block-requests-{os.getpid()}"
    before = live.latency()
    try:
        disk_work(path, 100)
    finally:
        path.unlink()
    after = live.latency()
    for spec in (BLOCK, "blockio"):
        row = rows(before, after)[spec]
        if not row.count:
            pytest.skip("the working directory is on no block device")
        assert row.count >= 100, spec
        assert row.p50 is not None
        assert 1_000 < row.p50 < 1e9
        assert min(row.spent.buckets) > histogram.index(500)
        assert row.maximum is not None
        assert row.maximum < 60e9
    # Each write may be followed by a flush, which is a request of its own.
    assert rows(before, after)["blockio"].missed == 0
    mine = by_pid(before, after, BLOCK)
    assert sum(mine.values()) == rows(before, after)[BLOCK].count


def test_presets_see_something(live: Timing, calls: Path) -> None:
    with Work(calls, "sleeps", "100") as work:
        work.work()
    with subprocess.Popen(["sleep", "0.01"]) as child:
        child.wait()
    path = Path.cwd() / f".presets-{os.getpid()}"
    try:
        disk_work(path, 20)
    finally:
        path.unlink()
    sample = live.latency()
    for name in PRESETS:
        target = sample.targets[name]
        assert target.state == "on"
        if name in ("irq", "blockio") and not target.histogram.n:
            continue  # a machine may have no interrupt of a device meanwhile, nor a disk
        assert target.histogram.n > 0, name
        assert target.histogram.total > 0, name
        assert histogram.bounds(max(target.histogram.buckets))[0] < 600e9, name
    assert sample.targets["runq"].histogram.n > 100


def test_two_hogs_on_one_cpu_wait_for_each_other(live: Timing) -> None:
    shell = shutil.which("sh")
    assert shell is not None
    cpu = max(os.sched_getaffinity(0))
    hogs = [subprocess.Popen([shell, "-c", "while :; do :; done"]) for _ in range(2)]
    try:
        for hog in hogs:
            os.sched_setaffinity(hog.pid, {cpu})
        before = live.latency()

        def waits() -> bool:
            seen = by_pid(before, live.latency(), "runq")
            return all(seen.get(hog.pid, 0) >= 20 for hog in hogs)

        eventually("both have waited 20 times", waits)
        after = live.latency()
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    for hog in hogs:
        old = before.processes.get(("runq", hog.pid))
        new = after.processes["runq", hog.pid]
        n, total = new.n - (old.n if old else 0), new.total - (old.total if old else 0)
        # They wait for slices of the scheduler, which are a millisecond and more.
        assert total / n > 500_000
        assert after.comms[hog.pid] in ("sh", "dash", os.path.basename(shell))
