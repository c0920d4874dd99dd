# SPDX-License-Identifier: Apache-2.0
"""Arguments of static probes and fields of tracepoints: values, texts, joins and nesting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probes.core import histogram, kernel
from probes.core.frame import Filters
from probes.latency.sample import LatencySample
from tests.kernel.harness import Work
from tests.kernel.timing import Timing, assert_agree, by_pid, by_text, durations, rows, since

HEADER = any(Path("/usr/include").glob("**/sys/sdt.h"))
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not HEADER, reason="sys/sdt.h: install systemtap-sdt-dev"),
]

Program = Callable[[str], Path]
CALLS = 300
READABLE = [0, 1, 2, 3, 5, 7, 8]
if kernel.arch() == "x86_64":
    READABLE.append(6)
"""Arguments of `values` that are no negative numbers; a variable's name is x86_64's alone."""
LONG = (
    "a text that is longer than what the kernel side of it keeps, "
    "which is a name's and an extra's bytes and those of some words"
)


def value(argument: int, i: int) -> int:
    """What the workload gives as an argument of its i-th probe."""
    return {
        0: i,
        1: 1000 + i,
        2: i % 256,
        3: i,
        5: 7 * i,
        6: i + 5,
        7: 42,
        8: 4_000_000_000 + i,
    }[argument]


@pytest.fixture(scope="module")
def path(program: Program) -> Path:
    return program("arguments")


@pytest.fixture(scope="module")
def spec(path: Path) -> Callable[..., str]:
    """A target of probes of the workload: spec("a", "b", at="arg0")."""

    def of(*names: str, at: str = "") -> str:
        pair = ",".join(f"usdt:{path}:arguments:{name}" for name in names)
        return f"{pair}@{at}" if at else pair

    return of


@pytest.fixture(scope="module")
def live(spec: Callable[..., str]) -> Iterator[Timing]:
    """All of them at once, so that there is one loading."""
    specs = [spec("values", at=f"arg{n}") for n in (*READABLE, 4)]
    specs += [spec("texts", at="str(arg1)"), spec("texts", at="arg0,str(arg1)")]
    specs += [spec("nest_begin", "nest_end", at="str(arg1)"), spec("nest_begin", "nest_end")]
    specs += [spec("join_begin", "join_end", at="arg0"), spec("join_begin", "join_end")]
    specs += [spec("join_begin", "join_end", at="arg0,str(arg1)")]
    specs += ["tracepoint:syscalls:sys_enter_close@fd"]
    with Timing(*specs) as source:
        assert {s: t.why for s, t in source.now().items() if t.state != "on"} == {}
        yield source


class Run:
    """One run of the workload, and the Samples before and after."""

    def __init__(self, live: Timing, path: Path, what: str, n: int, record: Path) -> None:
        with Work(path, what, str(n), record) as work:
            self.before: LatencySample = live.latency()
            work.work()
            self.after: LatencySample = live.latency()
        self.pid = work.pid
        self.record = record


def test_values_from_every_kind_of_place(
    live: Timing, path: Path, spec: Callable[..., str], tmp_path: Path
) -> None:
    run = Run(live, path, "values", CALLS, tmp_path / "record")
    for argument in READABLE:
        name = spec("values", at=f"arg{argument}")
        found, missed, overflow = since(run.before, run.after, name)
        values = [value(argument, i) for i in range(CALLS)]
        assert (found.n, missed, overflow) == (CALLS, 0, 0), name
        assert found.total == sum(values), name
        expected: dict[int, int] = {}
        for one in values:
            expected[histogram.index(one)] = expected.get(histogram.index(one), 0) + 1
        assert found.buckets == expected, name
        target = run.after.targets[name]
        assert (target.unit, target.floor, target.counts_only) == ("", None, False)
        assert by_pid(run.before, run.after, name) == {run.pid: CALLS}


def test_values_below_zero_are_missed(
    live: Timing, path: Path, spec: Callable[..., str], tmp_path: Path
) -> None:
    run = Run(live, path, "values", 50, tmp_path / "record")
    found, missed, _ = since(run.before, run.after, spec("values", at="arg4"))
    assert (found.n, missed) == (0, 50)


def test_texts_tell_calls_apart(
    live: Timing, path: Path, spec: Callable[..., str], tmp_path: Path
) -> None:
    run = Run(live, path, "texts", 701, tmp_path / "record")
    expected = {f"name-{k}": 101 if k == 0 else 100 for k in range(7)}
    expected |= {LONG[:95]: 1, "": 1, "(not in memory)": 1}
    for at in ("str(arg1)", "arg0,str(arg1)"):
        assert by_text(run.before, run.after, spec("texts", at=at)) == expected
    counted = run.after.targets[spec("texts", at="str(arg1)")]
    assert (counted.counts_only, counted.by_text) == (True, True)
    measured = rows(run.before, run.after)[spec("texts", at="arg0,str(arg1)")]
    assert measured.total == sum(range(701))


def test_pairs_nest(live: Timing, path: Path, spec: Callable[..., str], tmp_path: Path) -> None:
    run = Run(live, path, "nested", 100, tmp_path / "record")
    for at in ("", "str(arg1)"):
        name = spec("nest_begin", "nest_end", at=at)
        found, missed, overflow = since(run.before, run.after, name)
        assert (found.n, missed, overflow) == (500, 0, 0)
        assert_agree(found, durations(run.record), (0.1, 0.5, 0.9))
    name = spec("nest_begin", "nest_end", at="str(arg1)")
    assert by_text(run.before, run.after, name) == {f"level-{n}": 100 for n in range(1, 6)}
    for level in range(1, 6):
        spent = run.after.texts[name, f"level-{level}"]
        own = sum(durations(run.record, level))
        assert own <= spent.total <= 1.04 * own
    assert by_pid(run.before, run.after, spec("nest_begin", "nest_end")) == {run.pid: 500}


def test_deeper_than_the_starts_that_are_kept(
    live: Timing, path: Path, spec: Callable[..., str], tmp_path: Path
) -> None:
    run = Run(live, path, "deep", 20, tmp_path / "record")
    name = spec("nest_begin", "nest_end")
    found, missed, overflow = since(run.before, run.after, name)
    # The innermost 32 of 40 levels are timed.
    assert (found.n, missed, overflow) == (640, 160, 0)
    kept = [ns for level in range(1, 33) for ns in durations(run.record, level)]
    assert_agree(found, sorted(kept), (0.1, 0.5, 0.9))


def test_starts_without_an_end_do_not_stand_in_the_way(
    live: Timing, path: Path, spec: Callable[..., str], tmp_path: Path
) -> None:
    run = Run(live, path, "unended", 200, tmp_path / "record")
    name = spec("nest_begin", "nest_end")
    found, missed, overflow = since(run.before, run.after, name)
    # All starts that never ended: those that newer ones took the place of, the last at its end.
    assert (found.n, overflow) == (200, 0)
    assert missed in (200 - 32, 200 - 31)
    assert_agree(found, durations(run.record))
    after = live.latency()
    assert since(run.before, after, name)[1] == 200


def test_pairs_joined_by_an_argument(
    live: Timing, path: Path, spec: Callable[..., str], tmp_path: Path
) -> None:
    run = Run(live, path, "joined", 400, tmp_path / "record")
    for at in ("arg0", "arg0,str(arg1)"):
        name = spec("join_begin", "join_end", at=at)
        found, missed, overflow = since(run.before, run.after, name)
        assert (found.n, missed, overflow) == (400, 0, 0)
        assert_agree(found, durations(run.record), (0.25, 0.75))
    assert by_text(run.before, run.after, name) == {"even": 200, "odd": 200}
    # By the thread the newest start is ended first, as these do.
    plain = since(run.before, run.after, spec("join_begin", "join_end"))[0]
    assert plain.n == 400


def test_a_field_of_a_tracepoint(live: Timing, path: Path, tmp_path: Path) -> None:
    name = "tracepoint:syscalls:sys_enter_close@fd"
    with Work(path, "values", "1", tmp_path / "record") as work:
        live.source.set_filters(Filters(pid=work.pid))
        live.wait("the filter holds", lambda frame: frame.filters.pid == work.pid)
        before = live.latency()
        work.work()
        after = live.latency()
        live.source.set_filters(Filters())
    found, missed, _ = since(before, after, name)
    # It closes its record, the first file that it opened.
    assert (found.buckets, missed) == ({3: 1}, 0)
