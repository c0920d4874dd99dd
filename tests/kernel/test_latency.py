# SPDX-License-Identifier: Apache-2.0
"""Durations of functions against programs that time themselves, and counts of every end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probes.core import histogram
from probes.core.sample import Histogram
from probes.latency.sample import LatencySample
from tests.kernel.harness import Live, Work
from tests.kernel.timing import Timing, assert_between, by_pid, rows, since

pytestmark = pytest.mark.kernel

Program = Callable[[str], Path]
FUNCTIONS = (
    "empty", "outer", "inner", "recursion", "landing", "jumps", "dies_inside", "shared",
    "crowd_call", "waits_inside", "forks_inside", "work_*", "tail_*",
)  # fmt: skip


@pytest.fixture(scope="module")
def spec(program: Program) -> Callable[[str], str]:
    """The target of a function of the workload."""
    return lambda name: f"uprobe:{program('functions')}:{name}"


@pytest.fixture(scope="module")
def live(program: Program, spec: Callable[[str], str]) -> Iterator[Timing]:
    """All functions at once, so that there is one loading."""
    timed = [f"uprobe:{program('timed')}:{name}" for name in ("timed_call", "nested_call")]
    with Timing(*timed, *map(spec, FUNCTIONS)) as source:
        assert {target.state for target in source.now().values()} == {"on"}
        yield source


LEVELS = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95)
"""Fractions that tell one level of a recursion from the next."""


class Run:
    """One run of the workload, and what the probe saw of it."""

    def __init__(
        self, live: Timing, program: Path, what: str, n: int, record: Path | None = None
    ) -> None:
        self.program = program
        with Work(program, what, str(n), *([record] if record else [])) as work:
            self.before = live.latency()
            self.said = work.work()
            self.after = live.latency()
        self.pid = work.pid

    def of(self, name: str) -> tuple[Histogram, int, int]:
        """A function's durations, what was missed, and what found no space."""
        return since(self.before, self.after, f"uprobe:{self.program}:{name}")


@pytest.mark.parametrize(("what", "name"), [("calls", "timed_call"), ("nested", "nested_call")])
def test_durations_are_the_programs_own(
    live: Timing, program: Program, tmp_path: Path, what: str, name: str
) -> None:
    run = Run(live, program("timed"), what, 2000, tmp_path / "record")
    found, missed, overflow = run.of(name)
    assert (missed, overflow) == (0, 0)
    assert_between(found, tmp_path / "record")
    assert by_pid(run.before, run.after, f"uprobe:{run.program}:{name}") == {run.pid: 2000}


def test_two_targets_nest(live: Timing, program: Program, tmp_path: Path) -> None:
    run = Run(live, program("functions"), "nested", 500, tmp_path / "record")
    for depth, (name, n) in enumerate((("outer", 500), ("inner", 1000))):
        found, missed, overflow = run.of(name)
        assert (found.n, missed, overflow) == (n, 0, 0)
        assert_between(found, tmp_path / "record", [depth])


@pytest.mark.parametrize("levels", [1, 10, 30, 32])
def test_recursion(live: Timing, program: Program, tmp_path: Path, levels: int) -> None:
    run = Run(live, program("functions"), f"recursion{levels}", 100, tmp_path / "record")
    found, missed, overflow = run.of("recursion")
    assert (found.n, missed, overflow) == (100 * levels, 0, 0)
    assert_between(found, tmp_path / "record", fractions=LEVELS, slack=0.01)


def test_deeper_than_the_stack_of_starts(live: Timing, program: Program, tmp_path: Path) -> None:
    run = Run(live, program("functions"), "recursion40", 100, tmp_path / "record")
    found, missed, overflow = run.of("recursion")
    assert (found.n, missed, overflow) == (3200, 0, 800)
    assert_between(found, tmp_path / "record", range(32), LEVELS, 0.01)


@pytest.mark.parametrize("what", ["jumps", "big_jumps"])
def test_long_jumps(live: Timing, program: Program, tmp_path: Path, what: str) -> None:
    """Frames that were left without a return are missed; what comes later is right."""
    run = Run(live, program("functions"), what, 300, tmp_path / "record")
    found, missed, overflow = run.of("jumps")
    assert (found.n, missed, overflow) == (300, 1200, 0)
    assert_between(found, tmp_path / "record")


def test_long_jump_to_an_outer_call(live: Timing, program: Program, tmp_path: Path) -> None:
    run = Run(live, program("functions"), "landing", 300, tmp_path / "record")
    found, missed, overflow = run.of("landing")
    assert (found.n, missed, overflow) == (300, 1200, 0)
    assert_between(found, tmp_path / "record")


def test_threads_that_end_inside(live: Timing, program: Program) -> None:
    run = Run(live, program("functions"), "dying", 500)
    found, missed, overflow = run.of("dies_inside")
    assert (found.n, missed, overflow) == (500, 500, 0)
    p50 = histogram.percentile(found.buckets, 0.5)
    assert p50 is not None
    assert p50 >= 30_000


def test_eight_threads_on_all_cpus(live: Timing, program: Program) -> None:
    run = Run(live, program("functions"), "threads", 20_000)
    found, missed, overflow = run.of("shared")
    assert (found.n, missed, overflow) == (160_000, 0, 0)
    assert by_pid(run.before, run.after, f"uprobe:{run.program}:shared") == {run.pid: 160_000}


def test_more_threads_inside_than_starts_are_kept(live: Timing, program: Program) -> None:
    run = Run(live, program("functions"), "crowd", 5000)
    found, missed, overflow = run.of("crowd_call")
    assert found.n + missed + overflow == 5000
    assert found.n >= 3000
    assert missed >= 5000 - 4096
    # Nobody was inside for longer than the whole took.
    low = histogram.bounds(max(found.buckets))[0]
    assert low <= run.said[0]
    assert found.total <= found.n * run.said[0]


def test_a_crowd_that_fits_is_timed_whole(live: Timing, program: Program) -> None:
    run = Run(live, program("functions"), "crowd", 1000)
    found, missed, overflow = run.of("crowd_call")
    assert (found.n, missed, overflow) == (1000, 0, 0)
    assert histogram.bounds(max(found.buckets))[0] <= run.said[0]


def test_children_born_inside_are_missed(live: Timing, program: Program) -> None:
    """A child returns from a call that it never began; the parent's own is timed."""
    run = Run(live, program("functions"), "forking", 200)
    found, missed, overflow = run.of("forks_inside")
    assert (found.n, missed, overflow) == (200, 200, 0)


def test_a_wildcard_sums_its_functions(live: Timing, program: Program) -> None:
    run = Run(live, program("functions"), "works", 1000)
    spec = f"uprobe:{run.program}:work_*"
    found, missed, overflow = run.of("work_*")
    assert (found.n, missed, overflow) == (15_000, 0, 0)
    assert run.after.targets[spec].functions == 5
    assert rows(run.before, run.after)[spec].count == 15_000


def test_functions_that_jump_into_one_another(live: Timing, program: Program) -> None:
    """Both return at once to the same place, and neither is taken for the other."""
    run = Run(live, program("functions"), "tail", 500)
    found, missed, overflow = run.of("tail_*")
    assert (found.n, missed, overflow) == (1000, 0, 0)
    assert 500 * 60_000 <= found.total <= 500 * 60_000 * 2


def test_calls_under_way_at_attach(program: Program, spec: Callable[[str], str]) -> None:
    """What began before is not timed, and the calls after it are."""
    name = spec("waits_inside")
    with (
        Work(program("functions"), "under_way", "50") as work,
        Timing(name) as live,
    ):
        before = live.latency()
        work.work()
        after = live.latency()
    found, missed, overflow = since(before, after, name)
    assert found.n == 50
    assert overflow == 0
    # A return is seen where the entry was, or where another tracer waits for it: then it is
    # missed, for nothing may be made up.
    assert missed in (0, 50)


def test_empty_functions_show_the_floor(live: Timing, program: Program) -> None:
    run = Run(live, program("functions"), "empty", 20_000)
    found, missed, overflow = run.of("empty")
    assert (found.n, missed, overflow) == (20_000, 0, 0)
    floor = run.after.targets[f"uprobe:{run.program}:empty"].floor
    p50 = histogram.percentile(found.buckets, 0.5)
    assert floor is not None
    assert p50 is not None
    assert floor / 3 <= p50 <= floor * 3
    for target in run.after.targets.values():
        assert target.floor is not None
        assert 0 < target.floor < 100_000, target.spec


def test_sums_of_processes_are_the_targets(live: Timing) -> None:
    sample: LatencySample = live.latency()
    for spec, target in sample.targets.items():
        own = [spent for (name, _), spent in sample.processes.items() if name == spec]
        assert sum(spent.n for spent in own) == target.histogram.n, spec
        assert sum(spent.total for spent in own) == target.histogram.total, spec


def test_nothing_is_lost(live: Live) -> None:
    assert live.settled().samples["latency"].lost == 0
