# SPDX-License-Identifier: Apache-2.0
"""Functions of programs: durations, how calls nest, and every way in which they end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel.test_latency import (
    Run,
    live,
    spec,
    test_a_wildcard_sums_its_functions,
    test_children_born_inside_are_missed,
    test_deeper_than_the_stack_of_starts,
    test_threads_that_end_inside,
)
from tests.kernel.timing import Timing
from tests.vm.guest.spans import CALLS, Program, assert_between, spans

__all__ = [
    "live",
    "spec",
    "test_a_wildcard_sums_its_functions",
    "test_children_born_inside_are_missed",
    "test_deeper_than_the_stack_of_starts",
    "test_threads_that_end_inside",
]
pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(("what", "name"), [("calls", "timed_call"), ("nested", "nested_call")])
def test_durations_are_the_programs_own(
    live: Timing, program: Program, tmp_path: Path, what: str, name: str
) -> None:
    run = Run(live, program("timed"), what, CALLS, tmp_path / "record")
    found, missed, overflow = run.of(name)
    assert (missed, overflow) == (0, 0)
    assert_between(found, spans(tmp_path / "record"))


@pytest.mark.parametrize(
    ("what", "name", "returned", "left"),
    [
        ("recursion10", "recursion", 3000, 0),
        ("jumps", "jumps", 300, 1200),
        ("big_jumps", "jumps", 300, 1200),
        ("landing", "landing", 300, 1200),
        ("tail", "tail_*", 600, 0),
    ],
)
def test_every_end_is_counted(
    live: Timing, program: Program, what: str, name: str, returned: int, left: int
) -> None:
    run = Run(live, program("functions"), what, 300)
    found, missed, overflow = run.of(name)
    assert (found.n, missed, overflow) == (returned, left, 0)
