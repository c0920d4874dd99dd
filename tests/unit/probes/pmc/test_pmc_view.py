# SPDX-License-Identifier: Apache-2.0
"""What two Samples of counters say: scaled counts, ratios, and what is not known."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.core.frame import Frame, Host
from probes.core.readings import Reading
from probes.pmc.contract import field_name, pmc_contract
from probes.pmc.sample import CpuTimes, PmcSample, TaskTimes
from probes.pmc.view import Count, pmc_view, scaled, sum_of
from probes.recording.codec import FrameCodec
from probes.report.stream import dumps
from tests.unit.strategies import pmc_samples

EVENTS = ("cycles", "instructions", "cache-misses", "branches", "branch-misses", "page-faults")
NO_PMU = "no PMU (ENOENT)"


def readings(key: int, counts: dict[str, int], enabled: int, running: int) -> Any:
    return {(key, event): Reading(n, enabled, running) for event, n in counts.items()}


BASE = PmcSample(
    state="on",
    generation=1,
    hardware=True,
    events=EVENTS,
    tasks={0: TaskTimes(5000, 7, 0, 0), 7: TaskTimes(1000, 10, 1, 300)},
    readings=readings(7, {"cycles": 100, "instructions": 50, "page-faults": 2}, 1000, 1000),
    cpus={0: CpuTimes(900, 100, 20, 40)},
    cpu_readings=readings(0, {"cycles": 900, "instructions": 700}, 1000, 1000),
    comms={7: "postgres"},
)


def later(**fields: Any) -> PmcSample:
    return replace(BASE, **fields)


# -- counts -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (Reading(100, 50, 50), Reading(300, 90, 90), Count(200.0, 1.0)),
        (Reading(100, 50, 50), Reading(300, 150, 75), Count(800.0, 0.25)),
        (None, Reading(300, 100, 62), Count(300 * 100 / 62, 0.62)),
        (Reading(100, 50, 50), Reading(100, 90, 50), Count(None, 0.0)),
        (Reading(100, 50, 50), Reading(100, 50, 50), Count(None, None)),
        (Reading(0, 0, 0), Reading(0, 80, 80), Count(0.0, 1.0)),
        # Forgotten and back.
        (Reading(900, 900, 900), Reading(30, 40, 40), Count(30.0, 1.0)),
        # The two times are read one after the other.
        (Reading(0, 0, 0), Reading(10, 99, 100), Count(10.0, 1.0)),
    ],
)
def test_a_count_is_scaled_by_the_time_it_ran(
    before: Reading | None, after: Reading, expected: Count
) -> None:
    assert scaled(before, after) == expected


@given(
    st.integers(1, 10**12),
    st.integers(1, 10**9),
    st.lists(st.integers(1, 10**6), min_size=1, max_size=5),
)
def test_scaling_finds_what_an_even_workload_did(rate: int, enabled: int, parts: list[int]) -> None:
    """Counters that run for any part of the time give the whole, when it is all alike."""
    total = Reading(0, 0, 0)
    for part in parts:
        running = max(1, enabled * part // 10**6)
        total = Reading(
            total.value + rate * running, total.enabled + enabled, total.running + running
        )
    count = scaled(Reading(0, 0, 0), total)
    assert count.value == pytest.approx(rate * enabled * len(parts))
    assert count.share is not None
    assert 0 < count.share <= 1


def test_the_mark_is_for_what_ran_for_less_than_all_of_the_time() -> None:
    assert not Count(1.0, 1.0).scaled
    assert not Count(1.0, 0.999).scaled
    assert Count(1.0, 0.99).scaled
    assert not Count(None, 0.0).scaled


# -- processes ----------------------------------------------------------------------------


def test_a_process_of_the_interval() -> None:
    counts = {
        "cycles": 2100,
        "instructions": 1050,
        "cache-misses": 8,
        "branches": 200,
        "branch-misses": 4,
        "page-faults": 5,
    }
    view = pmc_view(
        BASE,
        later(
            tasks={**BASE.tasks, 7: TaskTimes(2000, 14, 3, 450)},
            readings=readings(7, counts, 2000, 2000),
        ),
        2.0,
    )
    (row,) = view.processes
    assert (row.pid, row.comm, row.clock, row.switches, row.migrations, row.wait) == (
        7, "postgres", 1000, 4, 2, 150,
    )  # fmt: skip
    assert row.count("cycles") == 2000
    assert row.ipc == 0.5
    assert row.per_ki("cache-misses") == 8.0
    assert row.ratio("branch-misses", "branches") == 0.02
    assert row.count("page-faults") == 3
    assert row.running == 1.0
    assert view.gigahertz(row) == 2.0
    assert not row.is_scaled(*EVENTS)
    # What user space alone does in its cycles says nothing of the clock.
    assert replace(view, sample=later(mode="user")).gigahertz(row) is None


def test_only_who_ran_has_a_row_and_idle_has_none() -> None:
    after = later(tasks={0: TaskTimes(9000, 20, 0, 0), 7: BASE.tasks[7]})
    assert pmc_view(BASE, after, 1.0).processes == []


def test_a_process_that_exits_keeps_its_last_counts_until_it_is_forgotten() -> None:
    after = later(tasks={**BASE.tasks, 9: TaskTimes(40, 1, 0, None)})
    (row,) = pmc_view(BASE, after, 1.0).processes
    assert (row.pid, row.comm, row.clock, row.wait) == (9, "?", 40, None)
    assert row.counts == {}
    assert pmc_view(after, later(tasks={}), 1.0).processes == []


def test_what_is_not_known_is_none_and_never_0() -> None:
    after = later(tasks={**BASE.tasks, 7: TaskTimes(1500, 11, 1, None)}, readings={})
    (row,) = pmc_view(BASE, after, 1.0).processes
    assert row.wait is None
    for value in (row.ipc, row.count("cycles"), row.per_ki("cache-misses"), row.running):
        assert value is None
    counts = readings(7, {"cycles": 500, "instructions": 50}, 2000, 2000)
    (row,) = pmc_view(BASE, replace(after, readings=counts), 1.0).processes
    # No instruction was executed in these cycles: none, but nothing per instruction.
    assert (row.count("instructions"), row.ipc) == (0, 0.0)
    assert row.per_ki("cycles") is None


def test_events_that_got_no_counter_are_told_from_those_that_are_shared() -> None:
    counts = {
        (7, "cycles"): Reading(1000, 2000, 1620),
        (7, "instructions"): Reading(50, 2000, 1000),
    }
    after = later(tasks={**BASE.tasks, 7: TaskTimes(2000, 11, 1, 300)}, readings=counts)
    (row,) = pmc_view(BASE, after, 1.0).processes
    assert row.counts["cycles"] == Count(900 * 1000 / 620, 0.62)
    assert row.counts["instructions"] == Count(None, 0.0)
    assert row.ipc is None
    assert row.is_scaled("cycles", "instructions")
    assert row.running == 0.62


def test_what_had_a_counter_all_the_time_is_exact_whatever_two_clocks_say() -> None:
    """The length of a short stint and the time that its counters ran differ by a little."""
    after = later(
        tasks={**BASE.tasks, 7: TaskTimes(2000, 11, 1, 300)},
        readings={(7, "page-faults"): Reading(1002, 2000, 1900)},
        cpus={0: CpuTimes(1900, 100, 21, 40)},
        cpu_readings={(0, "page-faults"): Reading(1000, 1000, 999)},
    )
    (row,) = pmc_view(BASE, after, 1.0).processes
    assert row.counts["page-faults"] == Count(1000.0, 1.0)
    shared = replace(after, cpu_readings={(0, "page-faults"): Reading(1000, 1000, 900)})
    (row,) = pmc_view(BASE, shared, 1.0).processes
    assert row.counts["page-faults"] == Count(1000 * 1000 / 900, 0.9)


def test_an_event_that_began_in_the_interval_is_unknown() -> None:
    counts = {"cycles": 2100, "instructions": 1050, "bus-cycles": 40}
    after = later(
        events=("cycles", "instructions", "bus-cycles"),
        tasks={**BASE.tasks, 7: TaskTimes(2000, 14, 3, 450)},
        readings=readings(7, counts, 2000, 2000),
    )
    (row,) = pmc_view(BASE, after, 1.0).processes
    assert row.count("cycles") == 2000
    assert row.count("bus-cycles") is None
    (row,) = pmc_view(None, after, 1.0).processes
    assert row.count("bus-cycles") == 40


def test_a_new_generation_counts_from_zero() -> None:
    after = later(generation=2)
    (row,) = pmc_view(BASE, after, 1.0).processes
    assert (row.clock, row.switches, row.count("cycles")) == (1000, 10, 100)
    assert pmc_view(None, after, 1.0) == pmc_view(BASE, after, 1.0)


def test_the_order_is_by_cycles_and_without_any_by_time() -> None:
    tasks = {pid: TaskTimes(clock, 1, 0, 0) for pid, clock in ((1, 10), (2, 30), (3, 20))}
    counts = {(pid, "cycles"): Reading(n, 10, 10) for pid, n in ((1, 300), (2, 200), (3, 100))}
    after = later(tasks=tasks, readings=counts)
    assert [row.pid for row in pmc_view(None, after, 1.0).processes] == [1, 2, 3]
    after = later(tasks=tasks, readings={})
    assert [row.pid for row in pmc_view(None, after, 1.0).processes] == [2, 3, 1]


# -- CPUs ---------------------------------------------------------------------------------


def test_cpus_of_the_interval_and_their_sum() -> None:
    after = later(
        cpus={0: CpuTimes(1500, 300, 26, 90), 2: CpuTimes(100, 900, 3, 0)},
        cpu_readings=readings(0, {"cycles": 1900, "instructions": 2700}, 3000, 2000)
        | readings(2, {"cycles": 500, "instructions": 1000}, 1000, 1000),
        kinds={0: "cpu_core", 2: "cpu_atom"},
        sockets={0: 0, 2: 1},
    )
    view = pmc_view(BASE, after, 1.0)
    first, second = view.cpus
    assert (first.cpu, first.clock, first.idle, first.switches, first.wait) == (0, 600, 200, 6, 50)
    assert first.busy == 0.75
    assert first.counts["cycles"] == Count(2000.0, 0.5)
    assert first.ipc == 2.0
    assert (second.kind, second.socket, second.ipc) == ("cpu_atom", 1, 2.0)
    assert view.machine.count("cycles") == 2500
    assert view.machine.running == 0.75
    assert view.machine.busy == pytest.approx(700 / 1800)


def test_a_cpu_that_went_is_gone_and_one_that_came_counts_from_zero() -> None:
    view = pmc_view(BASE, later(cpus={1: CpuTimes(50, 50, 1, 0)}, cpu_readings={}), 1.0)
    assert [(row.cpu, row.clock) for row in view.cpus] == [(1, 50)]
    assert pmc_view(BASE, later(cpus={}), 1.0).machine.busy is None


def test_a_sum_with_an_unknown_part_is_unknown_but_not_every_kind_has_every_event() -> None:
    after = later(
        cpus={cpu: CpuTimes(10, 0, 1, 0) for cpu in (0, 1)},
        cpu_readings={
            (0, "cycles"): Reading(50, 10, 10),
            (1, "cycles"): Reading(0, 10, 0),
            (0, "branches"): Reading(5, 10, 10),
        },
    )
    machine = sum_of(pmc_view(None, after, 1.0).cpus, EVENTS)
    assert machine.counts["cycles"] == Count(None, 0.5)
    assert machine.counts["branches"] == Count(5.0, 1.0)
    assert "instructions" not in machine.counts


# -- the stream ---------------------------------------------------------------------------


def test_the_contract_with_hardware() -> None:
    after = later(
        tasks={**BASE.tasks, 7: TaskTimes(2000, 14, 3, 450)},
        readings=readings(7, {"cycles": 1100, "instructions": 550, "page-faults": 4}, 2000, 1620),
        cpus={0: CpuTimes(1500, 300, 26, 90)},
        cpu_readings=readings(0, {"cycles": 1900, "instructions": 2700}, 3000, 2000),
        absent={"cache-misses": "not on this PMU (ENOENT)"},
    )
    obj = pmc_contract(BASE, after, 1.0)
    assert obj == {
        "hardware": True,
        "reason": None,
        "event_set": "base",
        "mode": "all",
        "events": list(EVENTS),
        "absent": {"cache-misses": "not on this PMU (ENOENT)"},
        "shares": {"cycles": 0.5, "instructions": 0.5},
        "cpus": [
            {
                "cpu": 0,
                "cycles": 2000,
                "instructions": 4000,
                "ipc": 2.0,
                "cache_misses": None,
                "branches": None,
                "branch_misses": None,
                "page_faults": None,
                "running": 0.5,
                "busy": 600,
                "idle": 200,
                "context_switches": 6,
                "wait": 50,
                "kind": None,
                "socket": None,
            }
        ],
        "processes": [
            {
                "pid": 7,
                "comm": "postgres",
                "cycles": 1613,
                "instructions": 806,
                "ipc": 0.5,
                "cache_misses": None,
                "branches": None,
                "branch_misses": None,
                "page_faults": 3,
                "running": 0.62,
                "task_clock": 1000,
                "context_switches": 4,
                "migrations": 2,
                "wait": 150,
            }
        ],
        "unattributed": 0,
    }


def test_the_contract_without_hardware_has_nulls_and_the_reason() -> None:
    counts = {(7, "page-faults"): Reading(9, 2000, 2000)}
    after = later(
        hardware=False,
        reason=NO_PMU,
        events=("page-faults",),
        absent={"cycles": NO_PMU},
        tasks={**BASE.tasks, 7: TaskTimes(2000, 14, 3, 450)},
        readings=counts,
    )
    obj = pmc_contract(BASE, after, 1.0)
    assert (obj["hardware"], obj["reason"], obj["absent"]) == (False, NO_PMU, {"cycles": NO_PMU})
    (row,) = obj["processes"]
    assert row == {
        "pid": 7,
        "comm": "postgres",
        "cycles": None,
        "instructions": None,
        "ipc": None,
        "running": None,
        "page_faults": 7,
        "task_clock": 1000,
        "context_switches": 4,
        "migrations": 2,
        "wait": 150,
    }
    for row in obj["cpus"]:
        assert [row[name] for name in ("cycles", "instructions", "ipc", "running")] == [None] * 4


def test_an_event_that_somebody_called_pid_does_not_replace_the_pid() -> None:
    assert field_name("pid") == "event_pid"
    assert field_name("context-switches") == "event_context_switches"
    assert field_name("L1-dcache-load-misses") == "L1_dcache_load_misses"
    assert field_name("page-faults") == "page_faults"
    after = later(events=("pid",), readings={(7, "pid"): Reading(4, 9, 9)})
    (row,) = pmc_contract(None, after, 1.0)["processes"]
    assert (row["pid"], row["event_pid"]) == (7, 4)


@given(pmc_samples, pmc_samples, st.booleans())
def test_any_samples_make_an_object_that_json_takes(
    before: PmcSample, after: PmcSample, same: bool
) -> None:
    if same:
        before = replace(before, generation=after.generation)
    obj = json.loads(dumps(pmc_contract(before, after, 1.0)))
    assert len(obj["cpus"]) == len(after.cpus)
    for row in (*obj["cpus"], *obj["processes"]):
        assert {"cycles", "instructions", "ipc", "running", "context_switches"} <= set(row)
        for value in row.values():
            assert value is None or isinstance(value, str) or value >= 0


@given(pmc_samples, pmc_samples)
def test_samples_pass_through_a_recording(before: PmcSample, after: PmcSample) -> None:
    first, second = (
        Frame(time=1e9 + at, mono=float(at), interval=1.0, host=Host(), samples={"pmc": one})
        for at, one in enumerate((before, after))
    )
    codec = FrameCodec()
    assert codec.decode(json.loads(json.dumps(codec.encode(first)))) == first
    changes = json.loads(json.dumps(codec.encode(second, first)))
    assert codec.decode(changes, first) == second
