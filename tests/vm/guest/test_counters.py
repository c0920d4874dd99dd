# SPDX-License-Identifier: Apache-2.0
"""Counters on this kernel: page faults, switches, waiting and migrations against /proc."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probes.core.frame import NO_FILTERS, Filters
from tests.kernel.counting import Counting, Load, gained, observe, truth
from tests.kernel.harness import eventually, held_programs, program_ids

pytestmark = pytest.mark.kernel

Program = Callable[[str], Path]


@pytest.fixture(scope="module")
def counting() -> Iterator[Counting]:
    with Counting(events=["minor-faults"]) as source:
        yield source


def test_faults_and_switches_are_exact(counting: Counting, program: Program) -> None:
    with Load(program("counters"), "faults") as load:
        seen = observe(counting, load, 1500)
    assert seen.after.notes == ()
    assert seen.readings["page-faults"].value == seen.truth.faults == 1500
    assert seen.readings["minor-faults"].value == 1500
    assert seen.found.switches == seen.truth.switches


def test_switches_of_threads_are_exact(counting: Counting, program: Program) -> None:
    with Load(program("counters"), "switches") as load:
        seen = observe(counting, load, 500)
    assert seen.found.switches == seen.truth.switches >= 1000


def test_waiting_and_the_clock(counting: Counting, program: Program) -> None:
    loads = [Load(program("counters"), "spin") for _ in range(3)]
    try:
        before, old = counting.pmc(), [truth(load.pid) for load in loads]
        for load in loads:
            load.begin(700)
        for load in loads:
            load.done()
        after, new = counting.pmc(), [truth(load.pid) for load in loads]
    finally:
        for load in loads:
            load.end()
    for load, first, last in zip(loads, old, new, strict=True):
        times, _ = gained(before, after, load.pid)
        print(times, first, last)
        assert times.wait == last.wait - first.wait > 0
        assert times.switches == last.switches - first.switches
        # Where interrupts are emulated they take their time, which only some kernels leave out.
        assert times.clock == pytest.approx(last.clock - first.clock, rel=0.05)


def test_what_never_leaves_its_cpu_advances(counting: Counting, program: Program) -> None:
    with Load(program("counters"), "hog") as load:
        load.round(2)
        before = counting.pmc()
        load.round(900)
        times, _ = gained(before, counting.pmc(), load.pid)
    assert times.clock >= 700_000_000


def test_filters_act_in_the_kernel(counting: Counting, program: Program) -> None:
    with (
        Load(program("counters"), "faults") as chosen,
        Load(program("counters"), "faults") as other,
    ):
        chosen.round(2)
        other.round(2)
        counting.source.set_filters(Filters(pid=chosen.pid, comm="counters", uid=0))
        before = counting.pmc()
        chosen.round(300)
        other.round(400)
        after = counting.pmc()
        counting.source.set_filters(NO_FILTERS)
    assert gained(before, after, chosen.pid)[1]["page-faults"].value == 300
    assert gained(before, after, other.pid)[0].switches == 0


def test_off_leaves_nothing(counting: Counting) -> None:
    held = held_programs()
    counting.source.toggle("pmc", False)
    counting.wait("it is off", lambda frame: frame.samples["pmc"].state == "off")
    eventually("its programs are gone", lambda: not (held - held_programs()) & program_ids())
    counting.source.toggle("pmc", True)
    counting.all_on("pmc")
