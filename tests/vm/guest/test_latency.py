# SPDX-License-Identifier: Apache-2.0
"""Functions and system calls of the kernel, against calls that the workload timed itself."""

from __future__ import annotations

import mmap
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from probes.core import histogram
from probes.core.frame import NO_FILTERS, Filters
from probes.symbols.kernel_functions import Mechanism, this_kernel
from tests.kernel.harness import Work, eventually, held_programs, program_ids
from tests.kernel.test_latency_events import BLOCK
from tests.kernel.timing import Timing, by_pid, rank, since
from tests.vm.guest.spans import CALLS, Program, assert_between, spans

pytestmark = pytest.mark.kernel

RELEASE = tuple(int(word) for word in platform.release().split("-")[0].split("+")[0].split(".")[:2])
HAS_FENTRY = platform.machine() == "x86_64" or RELEASE >= (6, 4)
"""Kernels for arm64 have it later; in Debian's of 6.1 the kernel refuses to attach."""

SYSCALLS = (
    "syscall:pread64",
    "tracepoint:syscalls:sys_enter_pread64,tracepoint:syscalls:sys_exit_pread64",
)
BLOCKED = 40
"""Threads that are inside of the function all the time; the kernel's own choice is ten."""

DISK = (BLOCK, "blockio")
REFUSED = ("kprobe:vfs_*", *(() if HAS_FENTRY else ("fentry:vfs_read",)))
"""More functions than are traced at once, and what this kernel has not."""


@pytest.fixture(scope="module")
def timing() -> Iterator[Timing]:
    """With what comes first; each function is alone, so that no other takes its time."""
    with Timing(*SYSCALLS, *DISK, *REFUSED) as source:
        yield source


def reads(timing: Timing, program: Program, record: Path, *specs: str) -> None:
    """A process with the name "reader" works, of which each target must see the same."""
    timing.source.set_filters(Filters(comm="reader"))
    timing.settled()  # a read that began before, as for the line that starts it, would count
    with Work(program("timed"), "reads", str(CALLS), record) as work:
        before = timing.latency()
        work.work()
        after = timing.latency()
    timing.source.set_filters(NO_FILTERS)
    for spec in specs:
        found, missed, overflow = since(before, after, spec)
        assert (missed, overflow) == (0, 0), spec
        assert_between(found, spans(record))


TAKES = 2_000_000
"""Nanoseconds that a request to the slow disk takes, by its timer."""


@pytest.fixture
def slow_disk() -> Iterator[Path]:
    """A block device without a disk, whose requests end when a timer has run out."""
    options = ["queue_mode=2", "irqmode=2", f"completion_nsec={TAKES}", "nr_devices=1"]
    subprocess.run(["modprobe", "null_blk", *options], check=True)
    yield Path("/dev/nullb0")
    subprocess.run(["modprobe", "-r", "null_blk"], check=True)


def test_block_requests_take_as_long_as_the_disk(timing: Timing, slow_disk: Path) -> None:
    n = 100
    page = mmap.mmap(-1, 4096)
    around = []
    disk = os.open(slow_disk, os.O_WRONLY | os.O_DIRECT)
    before = timing.latency()
    for i in range(n):
        start = time.perf_counter_ns()
        os.pwrite(disk, page, 4096 * i)
        around.append(time.perf_counter_ns() - start)
    after = timing.latency()
    os.close(disk)
    around.sort()
    for spec in DISK:
        found, missed, overflow = since(before, after, spec)
        assert (found.n, missed, overflow) == (n, 0, 0), spec
        # Older kernels leave it to a thread of their own to send them.
        assert list(by_pid(before, after, spec).values()) == [n]
        for fraction in (0.5, 0.9, 0.99):
            value = histogram.percentile(found.buckets, fraction)
            print(f"{spec} p{fraction * 100:g}: {value} ns, at most {rank(around, fraction)}")
            assert value is not None
            assert TAKES * 0.96 <= value <= rank(around, fraction) * 1.04


def test_system_calls(timing: Timing, program: Program, tmp_path: Path) -> None:
    reads(timing, program, tmp_path / "record", *SYSCALLS)
    assert [timing.now()[spec].mechanism for spec in SYSCALLS] == ["syscall", "tracepoint"]


def test_what_is_refused_says_why(timing: Timing) -> None:
    known = timing.now()
    assert {known[spec].state for spec in REFUSED} == {"failed"}
    many, *fentry = (known[spec] for spec in REFUSED)
    assert "64" in (many.why or "")
    assert all("kprobe:vfs_read" in (target.fix or "") for target in fentry)


def no_events() -> bool:
    """Whether the kernel's lists of probes are empty."""
    events = [Path("/sys/kernel/tracing", name) for name in ("kprobe_events", "uprobe_events")]
    return all(path.read_text() == "" for path in events if path.exists())


@pytest.mark.parametrize(
    ("spec", "mechanism"),
    [
        ("func:vfs_r*", "fentry" if HAS_FENTRY else "kprobe"),
        ("kprobe:vfs_r*", "kprobe"),
        ("kprobe:vfs_read", "kprobe"),
    ],
)
def test_functions(
    timing: Timing, program: Program, tmp_path: Path, spec: str, mechanism: Mechanism
) -> None:
    for old in timing.now():
        timing.remove(old)
    eventually("no event is left", no_events)
    (target,) = timing.add(spec)
    assert target.mechanism == mechanism
    functions = this_kernel().expand("vfs_r*", mechanism) if spec.endswith("*") else [spec]
    assert target.functions == len(functions)
    with ExitStack() as stack:
        for _ in range(BLOCKED):
            stack.enter_context(Work(program("calls"), "getppid", "1"))
        reads(timing, program, tmp_path / "record", spec)


def test_off_leaves_nothing(timing: Timing) -> None:
    held = held_programs()
    assert len(held) >= 3
    assert held <= program_ids()
    assert not no_events()
    timing.source.toggle("latency", False)
    timing.wait("it is off", lambda frame: frame.samples["latency"].state == "off")
    assert held_programs() == set()
    eventually("its programs are gone", lambda: not held & program_ids())
    eventually("no event is left", no_events)
