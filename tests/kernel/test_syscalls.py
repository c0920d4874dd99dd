# SPDX-License-Identifier: Apache-2.0
"""The system-call probe against programs that know what they did."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

import pytest

from probes.bpf import bpf_syscall, btf
from probes.bpf.attach import Attacher
from probes.bpf.plan import Attach
from probes.core import histogram as hdr
from probes.core import kernel
from probes.core.delta import count_delta, int_delta
from probes.core.frame import Filters
from probes.core.safe_text import escaped, raw_of
from probes.core.sample import Counts
from probes.core.syscall_names import errno_name, name_of
from probes.latency.sample import LatencySample
from probes.symbols.functions import function
from probes.syscalls.sample import SyscallSample
from probes.syscalls.view import SyscallView, syscall_view
from tests.kernel.harness import PATHS, Live, Work
from tests.kernel.timing import assert_sleeps

pytestmark = pytest.mark.kernel

ARCH = kernel.arch() or ""
NUMBER = name_of(500, False, ARCH)
"""A call that has no name yet, and that nobody but the workload makes."""


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    """The probe as it is at start, for all the tests that only count."""
    with Live("syscalls") as source:
        yield source


def observe(live: Live, work: Work) -> tuple[SyscallSample, SyscallSample]:
    """The Samples before and after the work."""
    before = live.syscalls()
    work.work()
    return before, live.syscalls()


def mine(view: SyscallView, pid: int) -> dict[str, Counts]:
    return {call: n for (owner, call), n in view.matrix.items() if owner == pid}


def test_one_million_calls_are_one_million(live: Live, calls: Path) -> None:
    with Work(calls, "getppid", "1000000", "million") as work:
        before, after = observe(live, work)
    view = syscall_view(before, after, 1)
    assert mine(view, work.pid)["getppid"] == Counts(1_000_000, 0)
    (row,) = [row for row in view.calls if row.name == "getppid"]
    others = sum(n.n for (pid, name), n in view.matrix.items() if name == "getppid")
    # Calls without a process may be of any name: another program's, where there are many.
    assert 0 <= row.count - others <= view.unattributed
    assert after.comms[work.pid] == "million"
    assert [p.comm for p in view.processes_of("getppid") if p.pid == work.pid] == ["million"]
    # The first column of a pane, of all others, must hold the busiest.
    assert view.calls[0].name == "getppid"
    assert view.processes[0].pid == work.pid


def test_per_call_and_per_process_sums_agree(live: Live, calls: Path) -> None:
    with Work(calls, "number", "123456") as work:
        before, after = observe(live, work)
    view = syscall_view(before, after, 1)
    assert view.count == sum(p.count for p in view.processes) + view.unattributed
    assert view.errors == sum(row.errors for row in view.calls)
    (row,) = [row for row in view.calls if row.name == NUMBER]
    assert (row.count, row.errors, row.errnos) == (123_456, 123_456, {"ENOSYS": 123_456})
    for row in view.calls:
        assert sum(row.errnos.values()) == row.errors, row


@pytest.mark.parametrize(
    ("kind", "call", "error", "n"),
    [("close", "close", "EBADF", 1000), ("openat", "openat", "ENOENT", 700)],
)
def test_failing_calls_by_errno(
    live: Live, calls: Path, kind: str, call: str, error: str, n: int
) -> None:
    with Work(calls, kind, str(n)) as work:
        before, after = observe(live, work)
    view = syscall_view(before, after, 1)
    assert mine(view, work.pid)[call] == Counts(n, n)
    # Others on this machine may fail as well: ours are among them.
    (row,) = [row for row in view.calls if row.name == call]
    others = sum(p.errors for p in view.processes_of(call) if p.pid != work.pid)
    assert n <= row.errnos[error] <= n + others + view.unattributed
    assert sum(row.errnos.values()) == row.errors


def test_every_errno_is_counted_by_name(live: Live, calls: Path) -> None:
    """More errnos than a row holds, those that the kernel keeps to itself, and unknown ones."""
    expected: dict[str, int] = {}
    for number in (*range(1, 151), *range(500, 601)):
        known = number < 134 or 512 <= number <= 520
        name = errno_name(number) if known else "other"
        expected[name] = expected.get(name, 0) + number
    with Work(calls, "errnos") as work:
        before, after = observe(live, work)
    total = sum(expected.values())
    assert mine(syscall_view(before, after, 1), work.pid)["getpgid"] == Counts(total, total)
    delta = int_delta(before.errnos, after.errnos)
    found = {error: n for (call, error), n in delta.items() if call == "getpgid"}
    unnamed = sum(n for name, n in found.items() if name not in expected)
    known = {name: n for name, n in found.items() if name != "other"}
    assert {k: v for k, v in known.items() if k in expected} == {
        k: v for k, v in expected.items() if k != "other"
    }
    assert unnamed + found["other"] == expected["other"]


def test_four_threads_on_all_cpus_are_one_process(live: Live, calls: Path) -> None:
    with Work(calls, "threads", "100000") as work:
        before, after = observe(live, work)
    assert mine(syscall_view(before, after, 1), work.pid)["getppid"] == Counts(400_000, 0)


@pytest.mark.skipif(ARCH != "x86_64", reason="only x86_64 makes 32-bit calls from 64-bit code")
def test_compat_calls_are_told_apart(live: Live, calls: Path) -> None:
    with Work(calls, "compat", "54321") as work:
        before, after = observe(live, work)
    made = mine(syscall_view(before, after, 1), work.pid)
    assert made["compat:getppid"] == Counts(54_321, 0)
    # The number is another call's in 64-bit code.
    assert name_of(64, False, ARCH) not in made
    assert made["getppid"] == Counts(1, 0)


def test_short_lived_processes_sum_up(live: Live, calls: Path) -> None:
    name = name_of(501, False, ARCH)
    forks = 2000
    with Work(calls, "forks", str(forks), "shortlived") as work:
        before, after = observe(live, work)
    delta = count_delta(before.calls, after.calls)
    assert delta[name] == Counts(10 * forks, 10 * forks)
    per_process = [n for (_, call), n in count_delta(before.matrix, after.matrix).items()
                   if call == name]  # fmt: skip
    unattributed = after.unattributed - before.unattributed
    shown = sum(n.n for n in per_process)
    assert 0 <= 10 * forks - shown <= unattributed
    if not unattributed:
        assert per_process == [Counts(10, 10)] * forks


def test_rows_are_used_again_without_mixing_owners(calls: Path) -> None:
    """Far more (process, call) pairs than rows, at a pace at which all of them find one."""
    name = name_of(501, False, ARCH)
    with Live("syscalls", interval=0.05) as live:
        before = live.syscalls()
        for _ in range(12):
            with Work(calls, "forks", "500") as work:
                work.work()
                live.settled()
        after = live.syscalls()
    assert count_delta(before.calls, after.calls)[name] == Counts(60_000, 60_000)
    pairs = {pid: n for (pid, call), n in after.matrix.items() if call == name}
    unattributed = after.unattributed - before.unattributed
    assert set(pairs.values()) == {Counts(10, 10)} or unattributed
    assert 60_000 - sum(n.n for n in pairs.values()) <= unattributed


@contextmanager
def nothing_in_between(live: Live) -> Iterator[None]:
    """Meanwhile tables are read for Frames only, also where they run full."""
    live.source._drain = lambda fd: None  # type: ignore[method-assign]
    yield
    del live.source._drain


def test_tables_are_read_in_time_for_many_processes(calls: Path) -> None:
    """A thousand processes take more rows than there are, but not at the same moment."""
    with Live("syscalls", interval=2) as live:
        before = live.syscalls()
        for _ in range(20):
            with Work(calls, "crowd", "50") as work:
                work.work()
            time.sleep(0.1)
        after = live.syscalls()
    delta = count_delta(before.calls, after.calls)
    assert delta[name_of(480, False, ARCH)].n == 3000
    unattributed = after.unattributed - before.unattributed
    print(f"{unattributed} of {sum(n.n for n in delta.values())} calls without a process")
    assert unattributed < 300


def test_full_table_says_so_and_totals_stay_exact(calls: Path) -> None:
    processes = 1000
    names = [name_of(number, False, ARCH) for number in range(480, 510)]
    with Live("syscalls", interval=1) as live:
        before = live.syscalls()
        with Work(calls, "crowd", str(processes)) as work, nothing_in_between(live):
            work.work()
        after = live.syscalls()
    delta = count_delta(before.calls, after.calls)
    exact = Counts(3 * processes, 3 * processes)
    assert {name: delta[name] for name in names} == dict.fromkeys(names, exact)
    matrix = count_delta(before.matrix, after.matrix)
    shown = sum(n.n for (_, name), n in matrix.items() if name in names)
    unattributed = after.unattributed - before.unattributed
    assert unattributed > 0
    # Whoever failed: the errno is known.
    errnos = int_delta(before.errnos, after.errnos)
    assert {name: errnos[name, "ENOSYS"] for name in names} == dict.fromkeys(names, exact.n)
    assert 0 < 90 * processes - shown <= unattributed
    assert sum(n.n for n in delta.values()) == sum(n.n for n in matrix.values()) + unattributed


def test_latency_agrees_with_the_programs_own_clock(calls: Path) -> None:
    with (
        Work(calls, "sleeps", "1") as first,
        Work(calls, "sleeps", "600") as work,
        Live(
            "syscalls",
            options={"syscalls": {"latency": True}},
            filters=Filters(comm="calls"),
        ) as live,
    ):
        first.work()
        before = live.syscalls()
        assert before.latency is not None
        said = work.work()
        after = live.syscalls()
    view = syscall_view(before, after, 1)
    (row,) = [row for row in view.calls if row.name == "clock_nanosleep"]
    assert row.count == 600
    assert_sleeps(row, 600, said)
    assert after.latency is not None
    assert sum(after.latency["clock_nanosleep"].buckets.values()) >= 600
    bounds = [hdr.bounds(bucket) for bucket in after.latency["clock_nanosleep"].buckets]
    assert min(low for low, _ in bounds) > 900_000


def test_untimed_calls_are_counted_as_missed(calls: Path) -> None:
    """A call that seccomp refuses is left without having been entered."""
    with Work(calls, "refused", "3000", "refused") as work:
        filters = Filters(comm="refused")
        options = {"syscalls": {"latency": True}}
        with Live("syscalls", options=options, filters=filters) as live:
            before, after = observe(live, work)
    view = syscall_view(before, after, 1)
    assert mine(view, work.pid)["getpgid"] == Counts(3000, 3000)
    assert 3000 <= after.missed - before.missed <= 3010
    assert after.latency is not None
    assert "getpgid" not in after.latency or after.latency["getpgid"].n == 0


def test_every_call_is_timed_or_missed(calls: Path) -> None:
    with Work(calls, "number", "100000", "timed") as work:
        filters = Filters(comm="timed")
        options = {"syscalls": {"latency": True}}
        with Live("syscalls", options=options, filters=filters) as timing:
            before, after = observe(timing, work)
    assert after.latency is not None
    timed = sum(histogram.n for histogram in after.latency.values())
    counted = sum(n.n for n in after.calls.values())
    assert counted == timed + after.missed
    assert count_delta(before.calls, after.calls)[NUMBER].n == 100_000


def test_switching_latency_keeps_the_counts(calls: Path) -> None:
    with Live("syscalls") as live, Work(calls, "until", "1000") as work:
        before = live.syscalls()
        work.go()
        for on in (True, False, True, False):
            live.source.set_option("syscalls", "latency", on)
            live.wait(
                f"latency is {on}",
                lambda frame, on=on: (  # type: ignore[misc]
                    isinstance(sample := frame.samples["syscalls"], SyscallSample)
                    and (sample.latency is not None) == on
                ),
            )
        (made,) = work.work()
        after = live.syscalls()
    assert after.generation == before.generation
    counted = mine(syscall_view(before, after, 1), work.pid)["getppid"].n
    # Between the old programs and the new ones nobody counts: never twice, and few.
    assert 0.99 * made <= counted <= made


def test_counting_starts_from_zero_after_off_and_on(calls: Path) -> None:
    with Live("syscalls") as live:
        first = live.syscalls()
        live.source.toggle("syscalls", False)
        off = live.wait("it is off", lambda frame: frame.samples["syscalls"].state == "off")
        assert off.samples["syscalls"] == SyscallSample(state="off")
        live.source.toggle("syscalls", True)
        live.all_on("syscalls")
        with Work(calls, "number", "5") as work:
            work.work()
            again = live.syscalls()
    assert again.generation > first.generation
    view = syscall_view(first, again, 1)
    assert mine(view, work.pid)[NUMBER] == Counts(5, 5)


@pytest.mark.parametrize("word", ["\x1b[31mred\x07", "[bold]x[/]", "\udcff\udcfe\udc80", "‮gnp"])
def test_hostile_names_arrive_as_they_are(live: Live, calls: Path, word: str) -> None:
    with Work(calls, "number", "1", word) as work:
        _, after = observe(live, work)
    assert after.comms[work.pid] == escaped(word)
    assert raw_of(after.comms[work.pid]) == os.fsencode(word)


def test_errnos_table_matches_the_kernels(live: Live) -> None:
    """A few real failures of this very process, one errno each."""
    before = live.syscalls()
    for number, path in {
        errno.ENOENT: "/nonexistent",
        errno.ENOTDIR: "/proc/self/status",
        errno.ENAMETOOLONG: "/" + "x" * 300,
    }.items():
        with pytest.raises(OSError) as caught:  # noqa: PT011
            os.chdir(path)
        assert caught.value.errno == number
    after = live.syscalls()
    delta = int_delta(before.errnos, after.errnos)
    for name in ("ENOENT", "ENOTDIR", "ENAMETOOLONG"):
        assert delta["chdir", name] >= 1
    assert mine(syscall_view(before, after, 1), os.getpid())["chdir"].errors == 3


@pytest.mark.skipif(ARCH != "x86_64", reason="arm64 has no call for it")
def test_return_probes_make_calls_that_have_a_name(program: Callable[[str], Path]) -> None:
    """From Linux 6.11 on; the functions that are timed may return what looks like an errno."""
    path = program("functions")
    paths = {**PATHS, "latency": "probes.latency.probe:LatencyProbe"}
    target = f"uprobe:{path}:minus_one"
    options = {"latency": {"targets": [target]}}
    with (
        Live("syscalls", "latency", paths=paths, options=options) as live,
        Work(path, "minus_one", "5000") as work,
    ):
        before, after = observe(live, work)
        (timed,) = cast(LatencySample, live.settled().samples["latency"]).targets.values()
    assert timed.histogram.n == 5000
    made = mine(syscall_view(before, after, 1), work.pid)
    release = tuple(int(n) for n in re.findall(r"\d+", kernel.release())[:2])
    assert made.get("uretprobe") == (Counts(5000, 0) if release >= (6, 11) else None)
    assert "unknown" not in made


@pytest.mark.skipif(ARCH != "x86_64", reason="only x86_64 makes calls of probes on nops")
def test_uprobes_make_calls_that_have_a_name(program: Callable[[str], Path]) -> None:
    """From Linux 6.18 on, where a function begins with a nop; a register holds -2 meanwhile."""
    path = program("nop")
    place = Attach(
        kind="uprobe", function="f", path=str(path), offset=function(str(path), "five").offset
    )
    multi = btf.KernelBTF().enumerator("bpf_attach_type", "BPF_TRACE_UPROBE_MULTI") is not None
    # Our own keep away from such a place: this one stands for another tool's.
    attacher = Attacher(lambda name: bpf_syscall.RETURN_0, lambda name: None, multi)
    with Live("syscalls") as live, Work(path, "5000") as work, ExitStack() as stack:
        stack.callback(attacher.forget)
        stack.callback(os.close, attacher.attach(place))
        before, after = observe(live, work)
    made = mine(syscall_view(before, after, 1), work.pid)
    # The first few are breakpoints, until the kernel has put the call there.
    at_least = 4900 if kernel.version() >= (6, 18, 0) else 0
    calls = made.get("uprobe", Counts(0, 0))
    assert at_least <= calls.n <= 5000
    assert calls.errors == 0
    assert "unknown" not in made
