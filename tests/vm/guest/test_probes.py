# SPDX-License-Identifier: Apache-2.0
"""System calls and executions on this kernel: exact counts, right names, nothing left."""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from probes.core import kernel
from probes.core.delta import count_delta, int_delta
from probes.core.frame import NO_FILTERS, Filters
from probes.core.sample import Counts
from probes.core.syscall_names import name_of
from probes.execs.process_log import ExecLog, ExecRow
from probes.execs.sample import ExecEvent
from probes.syscalls.sample import SyscallSample
from probes.syscalls.view import syscall_view
from tests.kernel.harness import Live, Work, eventually, held_programs, program_ids
from tests.kernel.timing import assert_sleeps

pytestmark = pytest.mark.kernel

Program = Callable[[str], Path]
ARCH = kernel.arch() or ""


def test_this_is_the_kernel_that_was_asked_for() -> None:
    release = os.environ.get("PROBETOP_GUEST_RELEASE", platform.release())
    assert platform.release() == release
    assert {"x86_64": "x86_64", "aarch64": "arm64"}[platform.machine()] == ARCH


def observe(live: Live, work: Work) -> tuple[SyscallSample, SyscallSample]:
    """The Samples before and after the work."""
    before = live.syscalls()
    work.work()
    return before, live.syscalls()


def of_process(before: SyscallSample, after: SyscallSample, pid: int) -> dict[str, Counts]:
    """What a process called between two Samples."""
    delta = count_delta(before.matrix, after.matrix)
    return {call: counts for (owner, call), counts in delta.items() if owner == pid}


@pytest.mark.parametrize(
    ("kind", "call", "error", "n"),
    [
        ("getppid", "getppid", None, 100_000),
        ("close", "close", "EBADF", 1000),
        ("openat", "openat", "ENOENT", 700),
        ("number", name_of(500, False, ARCH), "ENOSYS", 500),
    ],
)
def test_calls_and_errors_are_exact(
    live: Live, program: Program, kind: str, call: str, error: str | None, n: int
) -> None:
    with Work(program("calls"), kind, str(n)) as work:
        before, after = observe(live, work)
    # Beside its work it reads the line that lets it begin, and writes that it is done.
    errors = n if error else 0
    expected = {"read": Counts(1, 0), call: Counts(n, errors), "write": Counts(1, 0)}
    assert of_process(before, after, work.pid) == expected
    if error:
        others = count_delta(before.matrix, after.matrix).items()
        failed = sum(c.errors for (pid, name), c in others if name == call and pid != work.pid)
        found = int_delta(before.errnos, after.errnos)[call, error]
        assert n <= found <= n + failed + after.unattributed - before.unattributed


def test_threads_that_share_cpus_lose_no_calls(live: Live, program: Program) -> None:
    """A kernel may take the CPU from a program in the midst of a call's account."""
    with Work(program("calls"), "threads", "50000") as work:
        before, after = observe(live, work)
    assert of_process(before, after, work.pid)["getppid"] == Counts(200_000, 0)
    assert after.lost == before.lost


def test_every_errno_has_its_name(live: Live, program: Program) -> None:
    with Work(program("calls"), "errnos") as work:
        before, after = observe(live, work)
    delta = int_delta(before.errnos, after.errnos)
    found = {error: n for (call, error), n in delta.items() if call == "getpgid"}
    # The workload makes errno E come E times; these differ in number or name by machine.
    for name in ("EPERM", "ENOENT", "EDEADLK", "ENAMETOOLONG", "ELOOP", "ENOTCONN", "EHWPOISON"):
        assert found[name] == getattr(errno, name, 133), name


@pytest.mark.skipif(ARCH != "x86_64", reason="only x86_64 makes 32-bit calls from 64-bit code")
def test_compat_calls_are_told_apart(live: Live, program: Program) -> None:
    with Work(program("calls"), "compat", "5432") as work:
        before, after = observe(live, work)
    made = of_process(before, after, work.pid)
    assert made["compat:getppid"] == Counts(5432, 0)
    assert made["getppid"] == Counts(1, 0)


def test_latency_agrees_with_the_programs_own_clock(live: Live, program: Program) -> None:
    with Work(program("calls"), "sleeps", "300") as work:
        # Python's own sleeps are the same call.
        live.source.set_filters(Filters(comm="calls"))
        before = live.syscalls()
        said = work.work()
        after = live.syscalls()
        live.source.set_filters(NO_FILTERS)
    assert of_process(before, after, work.pid)["clock_nanosleep"] == Counts(300, 0)
    (row,) = [r for r in syscall_view(before, after, 1).calls if r.name == "clock_nanosleep"]
    assert row.count == 300
    assert_sleeps(row, 300, said)


def run(*words: str) -> int:
    """Run a program to its end without any search for it; its process id."""
    pid = os.posix_spawn(words[0], words, {})
    os.waitpid(pid, 0)
    return pid


def own(live: Live, since: int) -> list[ExecEvent]:
    """Executions of this process's children, since the event of that number."""
    events = live.events()[since:]
    return [e for e in events if isinstance(e, ExecEvent) and e.ppid == os.getpid()]


def row_of(live: Live, since: int, pid: int) -> ExecRow:
    """An execution with its end."""
    log = ExecLog()
    log.add(live.events()[since:])
    (row,) = [row for row in log.rows if row.pid == pid]
    return row


def test_executions_come_once_in_order_and_whole(live: Live, program: Program) -> None:
    tiny = str(program("tiny"))
    live.settled()
    since = len(live.events())
    wanted = [(tiny, str(n), f"--name=value {n}", "", "\u00e4\u20ac") for n in range(100)]
    pids = [run(*words) for words in wanted]
    live.settled()
    found = own(live, since)
    assert [event.args for event in found] == wanted
    assert [event.pid for event in found] == pids
    assert {(e.path, e.comm, e.ret, e.truncated, e.uid) for e in found} == {
        (tiny, "tiny", 0, False, 0)
    }


def test_long_arguments_are_whole_or_marked(live: Live, program: Program) -> None:
    tiny = str(program("tiny"))
    long = "".join(f"{n:04d}," for n in range(600))
    since = len(live.events())
    run(tiny, long, "last")
    run(tiny, long, long, "cut")
    live.settled()
    whole, cut = own(live, since)
    assert (whole.args, whole.truncated) == ((tiny, long, "last"), False)
    assert cut.truncated
    assert "\0".join(cut.args or ()) == "\0".join((tiny, long, long))[:4096]


def test_failed_executions_have_errno_path_and_argv(live: Live, tmp_path: Path) -> None:
    plain = tmp_path / "not-executable"
    plain.write_text("#!/bin/sh\n")
    since = len(live.events())
    for path, error in (("/nonexistent/deploy", FileNotFoundError), (str(plain), PermissionError)):
        with pytest.raises(error):
            os.posix_spawn(path, [path, "--now", "really"], {})
    live.settled()
    assert [(event.ret, event.path, event.args) for event in own(live, since)] == [
        (-errno.ENOENT, "/nonexistent/deploy", ("/nonexistent/deploy", "--now", "really")),
        (-errno.EACCES, str(plain), (str(plain), "--now", "really")),
    ]


@pytest.mark.parametrize(
    ("script", "outcome"), [("exit 0", "0"), ("exit 7", "7"), ("kill -SEGV $$", "SIGSEGV")]
)
def test_the_end_is_joined(live: Live, script: str, outcome: str) -> None:
    since = len(live.events())
    pid = run("/bin/sh", "-c", script)
    live.settled()
    row = row_of(live, since, pid)
    assert row.args == ("/bin/sh", "-c", script)
    assert row.outcome() == outcome
    assert row.duration is not None
    assert row.duration > 0


def test_execution_from_another_thread_is_the_processs(live: Live, program: Program) -> None:
    tiny = str(program("tiny"))
    since = len(live.events())
    with Work(program("thread_exec"), tiny, "from", "thread") as work:
        work.go()
        assert work.process.wait(60) == 0
        work.end()
    live.settled()
    found = own(live, since)
    assert [event.pid for event in found] == [work.pid, work.pid]
    assert found[1].args == (tiny, "from", "thread")


def test_off_leaves_nothing(live: Live) -> None:
    held = held_programs()
    assert len(held) >= 6
    assert held <= program_ids()
    live.source.toggle("execs", False)
    live.wait("it is off", lambda frame: frame.samples["execs"].state == "off")
    assert len(held_programs()) < len(held)
    live.source.toggle("syscalls", False)
    live.wait("it is off", lambda frame: frame.samples["syscalls"].state == "off")
    assert held_programs() == set()
    eventually("the kernel has none of our programs", lambda: not held & program_ids())
    for name in ("syscalls", "execs"):
        live.source.toggle(name, True)
    live.all_on("syscalls", "execs")
    assert len(held_programs()) == len(held)


def test_another_source_leaves_nothing() -> None:
    before = program_ids()
    events = [Path("/sys/kernel/tracing", name) for name in ("kprobe_events", "uprobe_events")]
    with Live("execs"):
        assert program_ids() > before
    eventually("the kernel has no more programs than before", lambda: program_ids() <= before)
    assert all(path.read_text() == "" for path in events if path.exists())
