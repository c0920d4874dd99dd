# SPDX-License-Identifier: Apache-2.0
"""Latency by every mechanism, against calls that the workload timed itself."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import pytest

from probes import hdr
from probes.model import histogram_delta
from probes.samples import NO_FILTERS, Filters, Frame, Histogram, LatencySample, Target
from tests.kernel.harness import Live, Work, held_programs, program_ids
from tui.registry import REGISTRY

PATHS = {entry.name: entry.probe_path for entry in REGISTRY if entry.name == "latency"}
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not PATHS, reason="this version has no latency probe"),
]

Program = Callable[[str], Path]
CALLS = 2000
RELEASE = tuple(int(word) for word in platform.release().split("-")[0].split("+")[0].split(".")[:2])
HAS_FENTRY = platform.machine() == "x86_64" or RELEASE >= (6, 4)
"""Kernels for arm64 have it later; in Debian's of 6.1 the kernel refuses to attach."""


class Spans(NamedTuple):
    """What the workload says of its calls, ascending ns: the call alone, and around it."""

    inside: list[int]
    around: list[int]


@pytest.fixture(scope="module")
def timing() -> Iterator[Live]:
    with Live("latency", paths=PATHS) as source:
        for spec in targets(source.settled()):
            source.source.set_option("latency", "remove", spec)
        source.wait("there is no target", lambda frame: not targets(frame))
        yield source


def targets(frame: Frame) -> dict[str, Target]:
    return dict(cast(LatencySample, frame.samples["latency"]).targets)


def target(frame: Frame, spec: str) -> Target | None:
    return targets(frame).get(spec)


def add(live: Live, spec: str) -> None:
    """Add a target, and wait until it is on."""

    def decided(frame: Frame) -> bool:
        found = target(frame, spec)
        assert found is None or found.state != "failed", (found.why, found.fix)
        return found is not None and found.state == "on"

    live.source.set_option("latency", "add", spec)
    live.wait(f"{spec} is on", decided)


def measure(
    live: Live, spec: str, work: Work, record: Path, comm: str | None = None
) -> tuple[Histogram, Target, Spans]:
    """What the probe counted while the workload worked, the target's last state, the truth."""
    live.source.set_filters(Filters(comm=comm) if comm else Filters(pid=work.pid))
    try:
        add(live, spec)
        before = target(live.settled(), spec)
        work.work()
        after = target(live.settled(), spec)
    finally:
        live.source.set_filters(NO_FILTERS)
        live.source.set_option("latency", "remove", spec)
        live.wait("the target is gone", lambda frame: target(frame, spec) is None)
    assert before is not None
    assert after is not None
    assert (after.missed - before.missed, after.overflow - before.overflow) == (0, 0)
    lines = [line.split() for line in record.read_text().splitlines()]
    inside, around = (sorted(int(line[i]) for line in lines) for i in (0, 1))
    return histogram_delta(before.histogram, after.histogram), after, Spans(inside, around)


def rank(values: Sequence[int], fraction: float) -> int:
    """The value that `fraction` of them do not exceed."""
    return values[max(0, -int(-len(values) * fraction // 1) - 1)]


def assert_agree(found: Histogram, spans: Spans) -> None:
    """No call missing, none too many, and percentiles within 4 % of the workload's own.

    A probe's clock is read within its traps, which are part of what is around the call; they
    are long where traps are emulated, so what is right lies between inside and around. An
    interrupt between two clocks makes another order: of 500 calls one may have another rank.
    """
    assert found.n == CALLS == len(spans.inside)
    for fraction in (0.5, 0.9, 0.99):
        value = hdr.percentile(found.buckets, fraction)
        inside = rank(spans.inside, fraction - 0.002)
        around = rank(spans.around, fraction + 0.002)
        print(f"p{fraction * 100:g}: {value} ns, the workload: {inside} to {around}")
        assert value is not None
        assert inside * 0.96 <= value <= around * 1.04
    assert sum(spans.inside) * 0.96 <= found.total <= sum(spans.around) * 1.04


@pytest.mark.parametrize(
    ("what", "spec", "mechanism"),
    [
        ("calls", "uprobe:{}:timed_call", "uprobe"),
        ("nested", "uprobe:{}:nested_call", "uprobe"),
        ("calls", "usdt:{0}:timed:start,usdt:{0}:timed:end", "usdt"),
    ],
)
def test_user_functions(
    timing: Live, program: Program, tmp_path: Path, what: str, spec: str, mechanism: str
) -> None:
    path, record = program("timed"), tmp_path / "record"
    with Work(path, what, str(CALLS), record) as work:
        found, state, spans = measure(timing, spec.format(path), work, record)
    assert state.mechanism == mechanism
    assert_agree(found, spans)


KERNEL = [
    ("kprobe:vfs_read", "kprobe"),
    ("syscall:pread64", "syscall"),
    (
        "tracepoint:syscalls:sys_enter_pread64,tracepoint:syscalls:sys_exit_pread64",
        "tracepoint",
    ),
    ("func:vfs_read", "fentry" if HAS_FENTRY else "kprobe"),
]
if HAS_FENTRY:
    KERNEL.append(("fentry:vfs_read", "fentry"))


@pytest.mark.parametrize(("spec", "mechanism"), KERNEL)
def test_kernel_functions(
    timing: Live, program: Program, tmp_path: Path, spec: str, mechanism: str
) -> None:
    record = tmp_path / "record"
    with Work(program("timed"), "reads", str(CALLS), record) as work:
        found, state, spans = measure(timing, spec, work, record, comm="reader")
    assert state.mechanism == mechanism
    assert_agree(found, spans)


@pytest.mark.skipif(HAS_FENTRY, reason="this kernel has fentry")
def test_fentry_that_is_refused_says_why(timing: Live) -> None:
    spec = "fentry:vfs_read"
    timing.source.set_option("latency", "add", spec)

    def failed(frame: Frame) -> bool:
        found = target(frame, spec)
        return found is not None and found.state == "failed"

    found = target(timing.wait("it has failed", failed), spec)
    assert found is not None
    assert found.why
    assert found.fix
    timing.source.set_option("latency", "remove", spec)


def test_removed_targets_leave_nothing(timing: Live, program: Program) -> None:
    timing.source.toggle("latency", False)
    timing.wait("it is off", lambda frame: frame.samples["latency"].state == "off")
    programs, idle = held_programs(), program_ids()
    assert programs == set()
    events = [Path("/sys/kernel/tracing", name) for name in ("kprobe_events", "uprobe_events")]
    assert all(path.read_text() == "" for path in events if path.exists())
    timing.source.toggle("latency", True)
    timing.all_on("latency")
    add(timing, f"uprobe:{program('timed')}:timed_call")
    assert program_ids() > idle
    timing.source.toggle("latency", False)
    timing.wait("it is gone", lambda _: program_ids() <= idle)
