# SPDX-License-Identifier: Apache-2.0
"""Functions that exceptions, long jumps and runtimes leave: traced, and the program never notices.

Each run is made of a program that would end if a return address were replaced, and says itself how
many calls returned, how many did not, and how long they took.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probes.core import kernel
from probes.core.sample import Histogram
from probes.latency.sample import LatencySample
from tests.kernel.harness import Work
from tests.kernel.timing import Timing, since

pytestmark = pytest.mark.kernel

Program = Callable[[str], Path]
N = 400
QUARTER = N // 4
FUNCTIONS = (
    "throws", "passes", "tidies", "catches", "deep", "jumps", "lands", "chooses", "forwards",
    "resumes", "switches", "*counts*.actor",
)  # fmt: skip
GO_FUNCTIONS = ("main.timed", "main.grow", "main.panics", "main.recovers", "main.waits")


@pytest.fixture(scope="module")
def left(program: Program) -> Path:
    return program("left")


@pytest.fixture(scope="module")
def live(left: Path) -> Iterator[Timing]:
    """All functions of the C++ program at once, so that there is one loading."""
    with Timing(*[f"uprobe:{left}:{name}" for name in FUNCTIONS]) as source:
        found = source.now().values()
        assert {(target.state, target.counts_only) for target in found} == {("on", False)}
        yield source


@pytest.fixture(scope="module")
def go(program: Program) -> Path:
    return program("goroutines")


@pytest.fixture(scope="module")
def go_live(go: Path) -> Iterator[Timing]:
    """All functions of the Go program."""
    with Timing(*[f"uprobe:{go}:{name}" for name in GO_FUNCTIONS]) as source:
        found = source.now().values()
        assert {(target.state, target.counts_only) for target in found} == {("on", False)}
        yield source


class Run:
    """One run of a program to its end, and what was seen of it."""

    def __init__(self, live: Timing, path: Path, *arguments: object, says: list[int]) -> None:
        self.path = path
        with Work(path, *[str(word) for word in arguments]) as work:
            self.before: LatencySample = live.latency()
            said = work.work()
        # The last call that was left is known to be when its thread ends.
        self.after: LatencySample = live.latency()
        assert said == says
        assert work.process.returncode == 0

    def of(self, name: str) -> tuple[int, int, int]:
        """A function's calls with a duration, missed ones, and those without space."""
        found, missed, overflow = self.times(name)
        return found.n, missed, overflow

    def times(self, name: str) -> tuple[Histogram, int, int]:
        """As `of`, with the durations."""
        return since(self.before, self.after, f"uprobe:{self.path}:{name}")


def assert_between(found: Histogram, record: Path) -> None:
    """Every call has a duration, and together they are between the program's own two bounds."""
    lines = [line.split() for line in record.read_text().splitlines()]
    assert found.n == len(lines)
    assert sum(int(inside) for inside, _ in lines) <= found.total
    assert found.total <= sum(int(around) for _, around in lines)


def test_exceptions_pass(live: Timing, left: Path, tmp_path: Path) -> None:
    record = tmp_path / "record"
    run = Run(live, left, "throws", N, record, says=[N - QUARTER, QUARTER])
    for name in ("throws", "passes", "tidies"):
        found, missed, overflow = run.times(name)
        assert (missed, overflow) == (QUARTER, 0)
        assert_between(found, record)


def test_a_function_that_catches_returns(live: Timing, left: Path) -> None:
    run = Run(live, left, "catches", N, says=[N, 0])
    assert run.of("catches") == (N, 0, 0)
    assert run.of("passes") == (N - QUARTER, QUARTER, 0)


def test_exceptions_through_a_recursion(live: Timing, left: Path) -> None:
    run = Run(live, left, "deep", N, says=[N - QUARTER, QUARTER])
    assert run.of("deep") == (10 * (N - QUARTER), 10 * QUARTER, 0)


def test_exceptions_from_deeper_than_the_stack_of_starts(live: Timing, left: Path) -> None:
    run = Run(live, left, "deeper", N, says=[N - QUARTER, QUARTER])
    # What found no space is that, whether it returned or not.
    assert run.of("deep") == (32 * (N - QUARTER), 32 * QUARTER, 8 * N)


def test_exceptions_in_eight_threads(live: Timing, left: Path) -> None:
    run = Run(live, left, "crowd", N, says=[8 * (N - QUARTER), 8 * QUARTER])
    for name in ("throws", "passes", "tidies"):
        assert run.of(name) == (8 * (N - QUARTER), 8 * QUARTER, 0)


def test_long_jumps_out_and_setjmp_within(live: Timing, left: Path) -> None:
    run = Run(live, left, "jumps", N, says=[N - QUARTER, QUARTER])
    assert run.of("jumps") == (N - QUARTER, QUARTER, 0)
    assert run.of("lands") == (N, 0, 0)


def test_tables_of_jumps_and_jumps_to_other_functions(live: Timing, left: Path) -> None:
    run = Run(live, left, "forwards", N, says=[N, 0])
    assert run.of("chooses") == (N, 0, 0)
    assert run.of("forwards") == (N, 0, 0)


def test_coroutines(live: Timing, left: Path) -> None:
    run = Run(live, left, "coroutines", N, says=[N, 1])
    assert run.of("resumes") == (N, 1, 0)
    # The first time is when the coroutine is made.
    assert run.of("*counts*.actor") == (N + 1, 1, 0)


def test_switches_of_stacks(live: Timing, left: Path) -> None:
    """A start that went out of sight is missed; what has a duration is no longer than the run."""
    run = Run(live, left, "contexts", N, says=[2 * N, 0])
    n, missed, overflow = run.of("switches")
    assert overflow == 0
    assert n <= 2 * N <= n + missed


@pytest.mark.skipif(kernel.arch() != "x86_64", reason="the frames of this test are x86_64's")
def test_a_function_whose_returns_are_not_known_is_counted(program: Program) -> None:
    path = program("unproven")
    name = f"uprobe:{path}:anywhere"
    with Timing(name) as live:
        (target,) = live.now().values()
        assert (target.state, target.counts_only) == ("on", True)
        assert (target.why or "").startswith(
            "counted only: an exception through it would abort the program"
        )
        assert target.fix == "--force-timing if you know that none comes"
        run = Run(live, path, N, says=[N])
        assert run.of("anywhere") == (N, 0, 0)
    with Timing(options={"latency": {"force": True, "targets": [name]}}) as live:
        (target,) = live.now().values()
        assert (target.state, target.counts_only, target.why) == ("on", False, None)
        run = Run(live, path, N, says=[N])
        assert run.of("anywhere") == (N, 0, 0)


@pytest.mark.skipif(kernel.arch() != "x86_64", reason="the frames of this test are x86_64's")
def test_of_a_wildcard_those_whose_returns_are_known_are_timed(program: Program) -> None:
    path = program("unproven")
    with Timing(f"uprobe:{path}:any*") as live:
        (target,) = live.now().values()
        assert (target.state, target.counts_only, target.functions) == ("on", False, 2)
        assert (target.why or "").startswith(
            "timed 1 of 2 functions; 1 counted only: anywhere: an exception through it"
        )
        assert target.fix == "--force-timing if you know that none comes"
        run = Run(live, path, N, says=[N])
        # The calls of the other one have no duration.
        assert run.of("any*") == (N, N, 0)


def test_a_function_by_its_name_in_the_source_is_timed(program: Program) -> None:
    path = program("unproven")
    with Timing(f"uprobe:{path}:shop::Cart::add") as live:
        (target,) = live.now().values()
        assert (target.state, target.counts_only, target.why) == ("on", False, None)
        run = Run(live, path, N, says=[N])
        assert run.of("shop::Cart::add") == (N, 0, 0)


def test_rust_panics(program: Program) -> None:
    path = program("unwinds")
    with Timing(f"uprobe:{path}:panics") as live:
        run = Run(live, path, N, says=[N - QUARTER, QUARTER])
        assert run.of("panics") == (N - QUARTER, QUARTER, 0)


def test_go_durations_are_the_programs_own(go_live: Timing, go: Path, tmp_path: Path) -> None:
    run = Run(go_live, go, "timed", N, tmp_path / "record", says=[0])
    found, missed, overflow = run.times("main.timed")
    assert (missed, overflow) == (0, 0)
    assert_between(found, tmp_path / "record")


def test_go_stacks_that_grow(go_live: Timing, go: Path) -> None:
    run = Run(go_live, go, "grow", N, says=[0])
    assert run.of("main.grow") == (21 * N, 0, 0)


def test_go_panics(go_live: Timing, go: Path) -> None:
    run = Run(go_live, go, "panics", N, says=[N - QUARTER])
    assert run.of("main.panics") == (N - QUARTER, QUARTER, 0)
    assert run.of("main.recovers") == (N, 0, 0)


def test_goroutines_that_change_threads(go_live: Timing, go: Path) -> None:
    run = Run(go_live, go, "waits", N, says=[0])
    assert run.of("main.waits") == (N, 0, 0)
