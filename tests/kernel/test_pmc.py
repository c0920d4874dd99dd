# SPDX-License-Identifier: Apache-2.0
"""Counters by process and CPU against what the kernel and the workloads know themselves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.frame import NO_FILTERS, Filters
from probes.latency.sample import LatencySample
from probes.latency.view import latency_view
from probes.pmc.process_rows import NO_TIMES
from probes.pmc.sample import PmcSample
from tests.kernel.counting import Counting, Load, gained, observe, truth
from tests.kernel.harness import (
    Live,
    Work,
    eventually,
    held_programs,
    open_descriptors,
    program_ids,
)

pytestmark = pytest.mark.kernel
PROGRAMS = 4
"""Those of switches, migrations, the timers, and the edges of bursts."""

Program = Callable[[str], Path]
TSC = Path("/sys/bus/event_source/devices/msr/events/tsc")


@pytest.fixture(scope="module")
def live() -> Iterator[Counting]:
    with Counting() as source:
        yield source


@pytest.fixture(scope="module")
def counters(program: Program) -> Path:
    return program("counters")


def test_page_faults_and_switches_are_exact(live: Counting, counters: Path) -> None:
    with Load(counters, "faults") as load:
        seen = observe(live, load, 5000)
    assert seen.readings["page-faults"].value == seen.truth.faults == 5000
    assert seen.found.switches == seen.truth.switches


def test_switches_of_threads_are_the_processs(live: Counting, counters: Path) -> None:
    with Load(counters, "switches") as load:
        seen = observe(live, load, 3000)
    assert seen.found.switches == seen.truth.switches >= 6000
    assert seen.found.clock == pytest.approx(seen.truth.clock, rel=0.05)


def test_migrations_are_exact(live: Counting, counters: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("a single CPU: nothing can move")
    with Load(counters, "moves") as load:
        seen = observe(live, load, 500)
    assert seen.found.migrations == 500
    assert seen.found.switches == seen.truth.switches


def test_task_clock_is_within_a_percent(live: Counting, counters: Path) -> None:
    with Load(counters, "spin") as load:
        seen = observe(live, load, 1000)
    assert seen.found.clock == pytest.approx(seen.truth.clock, rel=0.01)
    assert seen.readings["page-faults"].enabled == seen.found.clock
    assert seen.readings["page-faults"].running == seen.found.clock


def test_waiting_for_a_cpu_is_exact(live: Counting, counters: Path) -> None:
    """Two that want the same CPUs, with others of the machine: what waited was also moved."""
    loads = [Load(counters, "spin") for _ in range(2 * len(os.sched_getaffinity(0)))]
    try:
        before, old = live.pmc(), [truth(load.pid) for load in loads]
        for load in loads:
            load.begin(600)
        for load in loads:
            load.done()
        after, new = live.pmc(), [truth(load.pid) for load in loads]
    finally:
        for load in loads:
            load.end()
    for load, first, last in zip(loads, old, new, strict=True):
        times, _ = gained(before, after, load.pid)
        assert times.wait == last.wait - first.wait > 0
        assert times.switches == last.switches - first.switches


def test_time_on_and_off_the_cpu_is_all_time(calls: Path) -> None:
    """From switch to switch: the program's own clock has nothing left over.

    The kernel's CPU time has more: of who sleeps and wakes it charges what a sleeping CPU takes
    from the wakeup to the switch, when nothing of the program runs.
    """
    paths = {"pmc": "probes.pmc.probe:PmcProbe", "latency": "probes.latency.probe:LatencyProbe"}
    options = {"latency": {"targets": ["offcpu"]}}
    with (
        Live("pmc", "latency", paths=paths, options=options) as live,
        Work(calls, "naps", "5000", "naps") as work,
    ):
        before = live.settled().samples
        pid, elapsed, by_kernel = work.work()
        after = live.settled().samples
    was, pmc = cast(PmcSample, before["pmc"]), cast(PmcSample, after["pmc"])
    times, _ = gained(was, pmc, pid)
    latency = cast(LatencySample, before["latency"]), cast(LatencySample, after["latency"])
    off = latency_view(*latency, 1).behind("offcpu")
    (away,) = [row.total or 0 for row in off if row.pid == pid]
    print(f"on {times.clock} off {away} of {elapsed} ns, by the kernel on {by_kernel}")
    # Its beginning and its end are around its clock.
    assert times.clock + away == pytest.approx(elapsed, rel=0.02)
    assert times.clock <= 1.02 * by_kernel


def test_what_never_leaves_its_cpu_advances(live: Counting, counters: Path) -> None:
    with Load(counters, "hog") as load:
        load.round(2)
        live.settled()
        first = len(live.frames)
        load.round(800)
        live.settled()
    times = [cast(PmcSample, frame.samples["pmc"]).tasks[load.pid] for frame in live.frames[first:]]
    grown = [
        b.clock - a.clock
        for a, b in pairwise(times)
        if a.switches == b.switches and b.clock > a.clock
    ]
    # Charged every 50 ms: between two polls of a tenth of a second there are one to three.
    assert len(grown) >= 3
    assert max(grown) <= 400_000_000


def test_the_process_that_ended_keeps_its_counts(live: Counting, counters: Path) -> None:
    before = live.pmc()
    load = Load(counters, "faults")
    load.round(1234)
    status = truth(load.pid)  # its faults include some of execve's, which are no exceptions
    assert load.end() == 0
    times, readings = gained(before, live.pmc(), load.pid)
    assert 1234 <= readings["page-faults"].value <= status.faults + 20
    assert status.switches < times.switches <= status.switches + 20
    assert times.clock >= status.clock * 0.99


def test_filters_act_in_the_kernel(live: Counting, counters: Path) -> None:
    with Load(counters, "faults") as chosen, Load(counters, "faults") as other:
        chosen.round(2)
        other.round(2)
        for wanted in (Filters(pid=chosen.pid), Filters(comm="counters", pid=chosen.pid)):
            live.source.set_filters(wanted)
            before = live.pmc()
            chosen.round(700)
            other.round(900)
            after = live.pmc()
            live.source.set_filters(NO_FILTERS)
            _, mine = gained(before, after, chosen.pid)
            assert mine["page-faults"].value == 700
            changed = {pid for pid, t in after.tasks.items() if t is not before.tasks.get(pid)}
            assert changed == {chosen.pid}
            # CPUs count all that ran there.
            faults = [
                sum(s.cpu_readings[cpu, "page-faults"].value for cpu in s.cpus)
                for s in (before, after)
            ]
            assert faults[1] - faults[0] >= 1600


def test_sums_over_processes_are_those_over_cpus(counters: Path) -> None:
    """Some thousand processes, more than a CPU's table holds at once."""
    with Counting(interval=1.0) as live:
        probe = live.probes["pmc"]
        probe.totals._next_forget = float("inf")
        with Load(counters, "children") as load:
            before = live.pmc()
            load.round(9000)
        probe._control.enable(False)
        after = live.pmc()
    switches = sum(t.switches for t in after.tasks.values()) + after.unattributed
    assert switches == sum(cpu.switches for cpu in after.cpus.values())
    clock = sum(t.clock for t in after.tasks.values())
    total = sum(cpu.busy + cpu.idle for cpu in after.cpus.values())
    print(f"{len(after.tasks)} processes, {after.unattributed} switches without")
    if after.unattributed:
        assert clock < total
    else:
        assert clock == total
    named = [pid for pid in after.tasks if after.comms.get(pid) == "counters"]
    assert len(named) + after.unattributed >= 9000
    idle = sum(cpu.idle for cpu in after.cpus.values())
    # Where no CPU was ever idle, nothing is known of a process 0.
    assert after.tasks.get(0, NO_TIMES).clock == pytest.approx(idle, rel=0.01)
    assert before.generation == after.generation


@pytest.mark.skipif(not TSC.exists(), reason="this CPU has no time stamp counter as an event")
def test_a_counter_of_hardware_runs_at_one_rate_for_all(counters: Path) -> None:
    with (
        Counting(events=["msr/tsc/", "ticks=msr/event=0/"]) as live,
        Load(counters, "spin") as load,
    ):
        seen = observe(live, load, 500)
    assert seen.after.hardware
    assert seen.after.reason is None
    assert seen.after.event_set == "custom"
    assert seen.after.events == ("msr/tsc/", "ticks", "page-faults", "major-faults")
    rates = []
    for cpu in seen.after.cpus:
        reading = seen.after.cpu_readings[cpu, "msr/tsc/"]
        rates.append(reading.value / reading.running)
    for event in ("msr/tsc/", "ticks"):
        reading = seen.readings[event]
        assert reading.running == reading.enabled == seen.found.clock
        rates.append(reading.value / reading.running)
    assert min(rates) == pytest.approx(max(rates), rel=0.005)


def test_another_set_goes_on_where_the_first_left_off(live: Counting, counters: Path) -> None:
    with Load(counters, "spin") as load:
        load.round(2)
        before, old = live.pmc(), truth(load.pid)
        load.begin(1500)
        for chosen in ("cache", "tlb", "base"):
            live.set("set", chosen, event_set=chosen, state="on")
        load.done()
        after, new = live.pmc(), truth(load.pid)
    times, readings = gained(before, after, load.pid)
    assert after.event_set == "base"
    assert times.switches == new.switches - old.switches
    assert times.clock == pytest.approx(new.clock - old.clock, rel=0.01)
    assert readings["page-faults"].value == new.faults - old.faults


def test_another_mode_begins_anew(live: Counting) -> None:
    before = live.pmc()
    after = live.set("mode", "user", mode="user", state="on")
    assert after.generation != before.generation
    assert live.set("mode", "all", mode="all", state="on").generation != after.generation


def test_the_cycle_through_sets_says_what_is_absent(live: Counting) -> None:
    for chosen in ("cache", "branch", "stalls", "tlb", "base"):
        sample = live.set("set", chosen, event_set=chosen, state="on")
        assert sample.events[-2:] == ("page-faults", "major-faults")
        assert not set(sample.events) & sample.absent.keys()
        assert {"cycles", "instructions"} <= {*sample.events, *sample.absent}
        assert sample.hardware == (sample.reason is None)
        assert all("(E" in why for why in sample.absent.values())


def test_wrong_options_are_refused_in_one_line(live: Counting) -> None:
    for option, value, fix in (
        ("set", "chache", "did you mean cache"),
        ("mode", "ring0", "choose from all, user, kernel"),
        ("events", ["cycels"], "did you mean cycles"),
    ):
        with pytest.raises(ProbeError) as caught:
            live.source.set_option("pmc", option, value)
        assert caught.value.fix.startswith(fix)
        assert "\n" not in str(caught.value)
    assert live.pmc().state == "on"


def test_off_leaves_nothing_and_on_comes_back(live: Counting) -> None:
    others = held_programs()
    with Counting() as ours:
        descriptors, seen = open_descriptors(), held_programs() - others
        assert len(seen) == PROGRAMS
        for _ in range(4):
            ours.source.toggle("pmc", False)
            ours.wait("it is off", lambda frame: frame.samples["pmc"].state == "off")
            eventually("the broker has detached it", lambda: held_programs() == others)
            # The program of the timers ends with their events.
            eventually("its programs are gone", lambda: not seen & program_ids())  # noqa: B023
            ours.source.toggle("pmc", True)
            ours.all_on("pmc")
            seen |= held_programs() - others
        eventually("as many are held", lambda: len(held_programs() - others) == PROGRAMS)
        eventually("as many are open", lambda: open_descriptors() == descriptors)
    eventually("all programs are gone", lambda: not program_ids() & seen)


@pytest.mark.skipif(
    "PROBETOP_TEST_HOTPLUG" not in os.environ,
    reason="takes a CPU away from all: set PROBETOP_TEST_HOTPLUG=1",
)
def test_cpus_come_and_go(counters: Path) -> None:
    cpu = max(kernel.online_cpus())
    switch = Path(f"/sys/devices/system/cpu/cpu{cpu}/online")
    if not switch.exists() or cpu == 0:
        pytest.skip("this machine's CPUs stay")
    with Counting() as live, Load(counters, "spin") as load:
        load.round(2)
        before, old = live.pmc(), truth(load.pid)
        assert cpu in before.cpus
        try:
            switch.write_text("0")
            load.begin(300)
            live.wait("it has gone", lambda f: cpu not in cast(PmcSample, f.samples["pmc"]).cpus)
            load.done()
        finally:
            switch.write_text("1")
        live.wait("it is back", lambda f: cpu in cast(PmcSample, f.samples["pmc"]).cpus)
        load.round(300)
        after, new = live.pmc(), truth(load.pid)
        times, _ = gained(before, after, load.pid)
        assert times.switches == new.switches - old.switches
        assert times.clock == pytest.approx(new.clock - old.clock, rel=0.01)
        ran = after.cpus[cpu]
        os.sched_setaffinity(load.pid, {cpu})
        load.round(200)
        assert live.pmc().cpus[cpu].busy - ran.busy >= 150_000_000
