# SPDX-License-Identifier: Apache-2.0
"""Counters for Prometheus: they rise by what successive Samples say, and never fall."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.core.frame import Filters, Frame, Notice
from probes.core.readings import Reading
from probes.core.sample import Budget, Cost, Counts, Histogram, Sample
from probes.execs.sample import ExecEvent, ExecSample, ExitEvent
from probes.latency.sample import LatencySample, Target
from probes.pmc.sample import CpuTimes, PmcSample, TaskTimes
from probes.syscalls.sample import SyscallSample
from tests.unit import strategies as own
from tests.unit.metrics_feed import frame, is_counter, nowhere, series, values
from tui.agent.metrics.collector import Metrics


def calls(**fields: object) -> SyscallSample:
    return SyscallSample(state="on", **fields)  # type: ignore[arg-type]


def fed(*samples: Sample, name: str = "syscalls") -> Metrics:
    metrics = Metrics(read=nowhere)
    for tick, sample in enumerate(samples):
        metrics.add(frame(tick, **{name: sample}))
    return metrics


def read_calls(*samples: Sample) -> float:
    return series(fed(*samples), "probetop_syscalls_total")[("read",)]


def reads(n: int, generation: int = 0) -> SyscallSample:
    return calls(calls={"read": Counts(n, 0)}, generation=generation)


def test_differences_are_added() -> None:
    assert read_calls(reads(100), reads(100), reads(130)) == 130


def test_a_probe_that_was_off_goes_on_where_it_was() -> None:
    off = SyscallSample()
    assert read_calls(reads(100), off, reads(30, generation=1)) == 130
    # Counters that went on meanwhile count once.
    assert read_calls(reads(100), off, reads(130)) == 130


def test_seconds_for_which_a_probe_counted_make_rates_of_its_counts() -> None:
    metrics = fed(
        replace(reads(250), counted=0.25),
        replace(reads(1250), counted=1.25),
        SyscallSample(),
        replace(reads(500, generation=1), counted=0.5),
    )
    assert series(metrics, "probetop_syscalls_total") == {("read",): 1750}
    assert series(metrics, "probetop_probe_seconds_total") == {("syscalls",): 1.75}
    assert series(fed(reads(1)), "probetop_probe_seconds_total") == {}


def test_another_generation_counts_whole() -> None:
    assert read_calls(reads(100), reads(500, generation=1), reads(501, generation=1)) == 601


def test_what_was_forgotten_and_is_back_counts_whole() -> None:
    assert read_calls(reads(100), calls(), reads(30)) == 130
    assert read_calls(reads(100), reads(30)) == 130


def test_errors_by_errno_and_what_found_no_process() -> None:
    metrics = fed(
        calls(errnos={("read", "EAGAIN"): 5, ("open", "ENOENT"): 1}, missed=1),
        calls(errnos={("read", "EAGAIN"): 7, ("open", "ENOENT"): 1}, unattributed=4, missed=3),
    )
    found = series(metrics, "probetop_syscall_errors_total")
    assert found == {("EAGAIN", "read"): 7, ("ENOENT", "open"): 1}
    assert series(metrics, "probetop_syscalls_unattributed_total") == {(): 4}
    assert series(metrics, "probetop_syscall_latency_missed_total") == {(): 3}
    rest = series(metrics, "probetop_process_syscalls_total")
    assert rest == {("other", "other", "", "", "", ""): 4}


def test_durations_of_calls_and_how_many_are_timed() -> None:
    slow = {"read": Histogram({320: 2}, 2, 9000)}
    metrics = fed(calls(latency=slow, sample_every=4))
    assert series(metrics, "probetop_syscall_sample_ratio") == {(): 0.25}
    assert series(metrics, "probetop_syscall_latency_seconds_count") == {("read",): 2}
    metrics.add(frame(9, syscalls=calls(latency=None)))
    assert series(metrics, "probetop_syscall_sample_ratio") == {}
    assert series(metrics, "probetop_syscall_latency_seconds_count") == {("read",): 2}
    assert series(metrics, "probetop_syscall_latency_seconds_sum") == {("read",): 9e-06}


def test_processes_count_by_name_and_control_group() -> None:
    groups = {1: "/a.service", 2: "/a.service", 3: "/b.service"}
    metrics = Metrics(read=groups.get)
    one = calls(
        comms={1: "x", 2: "x", 3: "x"},
        matrix={(1, "read"): Counts(5, 1), (2, "read"): Counts(6, 0), (3, "open"): Counts(7, 7)},
    )
    metrics.add(frame(1, syscalls=one))
    # One ended, and its number is another program's.
    groups[1] = "/b.service"
    two = replace(
        one,
        comms={**one.comms, 1: "y"},
        matrix={**one.matrix, (1, "read"): Counts(2, 0), (2, "read"): Counts(16, 0)},
    )
    metrics.add(frame(2, syscalls=two))
    found = series(metrics, "probetop_process_syscalls_total")
    short = {(name[0], name[1]): n for name, n in found.items()}
    assert short == {
        ("/a.service", "x"): 21, ("/b.service", "x"): 7, ("/b.service", "y"): 2,
    }  # fmt: skip
    errors = series(metrics, "probetop_process_syscall_errors_total")
    assert sum(errors.values()) == 8


def started(pid: int, ret: int = 0, cgroup: str | None = None) -> ExecEvent:
    return ExecEvent(
        time=1, pid=pid, ppid=1, uid=0, comm="x", parent="sh", args=("x", "SECRET"),
        truncated=False, ret=ret, cgroup=cgroup,
    )  # fmt: skip


def ended(code: int = 0, signal: int = 0) -> ExitEvent:
    return ExitEvent(time=1, pid=7, comm="x", exit_code=code, signal=signal, duration=1)


def test_an_execution_tells_the_control_group_of_who_has_gone() -> None:
    metrics = Metrics(read=nowhere)
    metrics.add(
        frame(
            1,
            syscalls=calls(comms={7: "x", 8: "z"}, matrix={(7, "read"): Counts(5, 0)}),
            execs=ExecSample(state="on", execs=1, events=(started(7, cgroup="/job"),)),
        )
    )
    found = series(metrics, "probetop_process_syscalls_total")
    assert found == {("/job", "x", "", "", "", ""): 5}
    assert b"SECRET" not in metrics.render("")[0]


def test_executions_by_result_and_ends_by_kind() -> None:
    metrics = fed(
        ExecSample(
            state="on", execs=2, failed=1, exits=3,
            events=(started(1), started(2), started(3, ret=-2), ended(), ended(3), ended(0, 9)),
        ),
        name="execs",
    )  # fmt: skip
    assert series(metrics, "probetop_execs_total") == {("ok",): 2, ("ENOENT",): 1}
    assert series(metrics, "probetop_exits_total") == {
        ("ok",): 1, ("nonzero",): 1, ("signal",): 1, ("unknown",): 0,
    }  # fmt: skip


def test_what_was_dropped_is_unknown_only_when_nothing_shows_it() -> None:
    on = ExecSample(state="on")
    early = replace(on, failed=3, exits=1)
    late = replace(early, events=(started(1, -2), started(1, -2), ended()))
    last = replace(early, dropped=5)
    metrics = fed(on, early, late, last, name="execs")
    # One failure was counted and never shown; the others came with the Sample after.
    assert series(metrics, "probetop_execs_total") == {
        ("ok",): 0, ("ENOENT",): 2, ("unknown",): 1,
    }  # fmt: skip
    assert series(metrics, "probetop_exits_total")[("unknown",)] == 0
    assert series(metrics, "probetop_exec_events_dropped_total") == {(): 5}
    metrics.add(frame(9, execs=last))
    assert series(metrics, "probetop_execs_total")[("unknown",)] == 1


def target(n: int, **fields: object) -> Target:
    made = Target(
        spec="f", mechanism="fentry", state="on", histogram=Histogram({400: n}, n, 1000 * n)
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def traced(*targets: Target, generation: int = 0) -> LatencySample:
    return LatencySample(state="on", targets={t.spec: t for t in targets}, generation=generation)


def test_a_target_that_is_taken_out_and_added_goes_on() -> None:
    counted = "probetop_latency_seconds_count"
    metrics = fed(traced(target(10)), traced(), name="latency")
    assert series(metrics, counted) == {("fentry", "f"): 10}
    metrics.add(frame(9, latency=traced(target(3, missed=2, overflow=1, floor=150.0))))
    assert series(metrics, counted) == {("fentry", "f"): 13}
    assert series(metrics, "probetop_latency_missed_total") == {("fentry", "f"): 2}
    assert series(metrics, "probetop_latency_overflow_total") == {("fentry", "f"): 1}
    assert series(metrics, "probetop_latency_floor_seconds") == {("fentry", "f"): 1.5e-07}
    metrics.add(frame(10, latency=traced(generation=1)))
    assert series(metrics, counted) == {("fentry", "f"): 13}
    metrics.add(frame(2000, latency=traced(generation=1)))
    assert series(metrics, counted) == {}


def test_a_probe_that_is_off_forgets_no_target() -> None:
    metrics = fed(traced(target(10)), LatencySample(), name="latency")
    metrics.add(frame(5000, latency=LatencySample()))
    assert series(metrics, "probetop_latency_seconds_count") == {("fentry", "f"): 10}


def test_values_and_counts_have_names_of_their_own() -> None:
    metrics = fed(
        traced(
            target(4, spec="bytes", unit=""),
            target(5, spec="often", counts_only=True),
            Target(spec="no", state="failed", why="no", fix=""),
        ),
        name="latency",
    )
    assert series(metrics, "probetop_target_value_count") == {("fentry", "bytes"): 4}
    assert series(metrics, "probetop_target_value_sum") == {("fentry", "bytes"): 4000}
    assert series(metrics, "probetop_target_events_total") == {("fentry", "often"): 5}
    assert series(metrics, "probetop_latency_seconds_count") == {}
    assert series(metrics, "probetop_target_up") == {("bytes",): 1, ("often",): 1, ("no",): 0}


def test_counters_of_the_machine_and_of_processes() -> None:
    one = PmcSample(
        state="on", hardware=True, events=("cycles", "instructions", "page-faults"),
        tasks={0: TaskTimes(5, 5, 0, None), 7: TaskTimes(10**9, 3, 1, 5)},
        readings={(7, "cycles"): Reading(100, 10, 10), (7, "instructions"): Reading(50, 10, 5)},
        cpus={0: CpuTimes(10**9, 2 * 10**9, 8, 10**8)},
        cpu_readings={
            (0, "cycles"): Reading(1000, 10, 10), (0, "instructions"): Reading(500, 10, 5),
            (0, "page-faults"): Reading(7, 10, 10),
        },
        comms={0: "idle", 7: "x"},
    )  # fmt: skip
    metrics = fed(one, one, name="pmc")
    assert series(metrics, "probetop_cpu_events_total") == {
        ("cycles", "all"): 1000, ("instructions", "all"): 1000, ("page-faults", "all"): 7,
    }  # fmt: skip
    assert series(metrics, "probetop_cpu_seconds_total") == {("busy",): 1, ("idle",): 2}
    assert series(metrics, "probetop_context_switches_total") == {(): 8}
    assert series(metrics, "probetop_task_migrations_total") == {(): 1}
    assert series(metrics, "probetop_runqueue_wait_seconds_total") == {(): 0.1}
    for name, value in (("cpu_seconds", 1), ("cycles", 100), ("instructions", 100)):
        found = series(metrics, f"probetop_process_{name}_total")
        assert found == {("", "x", "", "", "", ""): value}
    two = replace(one, cpu_readings={**one.cpu_readings, (0, "instructions"): Reading(600, 30, 15)})
    metrics.add(frame(9, pmc=two))
    assert series(metrics, "probetop_cpu_event_running_ratio") == {("instructions", "all"): 0.5}
    assert series(metrics, "probetop_cpu_events_total")["instructions", "all"] == 1200


def test_states_costs_and_losses() -> None:
    cost = Cost(events=10, ns_per_event=50, cpu_percent=2, map_bytes=4096)
    metrics = fed(calls(lost=3, cost=cost, given_up="timed 1 in 4"), calls(lost=3, cost=cost))
    failed = replace(SyscallSample(), state="failed", why="no", fix="")
    assert series(metrics, "probetop_probe_given_up") == {("syscalls",): 0}
    assert series(metrics, "probetop_probe_cost_ratio") == {("syscalls",): 0.02}
    assert series(metrics, "probetop_probe_event_seconds") == {("syscalls",): 5e-08}
    assert series(metrics, "probetop_probe_memory_bytes") == {("syscalls",): 4096}
    assert series(metrics, "probetop_budget_ratio") == {}
    last = frame(9, syscalls=failed)
    metrics.add(replace(last, filters=Filters(pid=1), budget=Budget(3.0, 1.5)))
    assert series(metrics, "probetop_probe_up") == {("syscalls",): 0}
    assert series(metrics, "probetop_probe_failed") == {("syscalls",): 1}
    assert series(metrics, "probetop_probe_losses_total") == {("syscalls",): 3}
    assert series(metrics, "probetop_probe_events_total") == {("syscalls",): 10}
    assert series(metrics, "probetop_filtered") == {(): 1}
    assert series(metrics, "probetop_filter_gone") == {(): 0}
    for kind, gone in (("process_ended", 1), ("cgroup_removed", 1), ("cgroup_followed", 0)):
        again = fed()
        again.add(replace(last, notices=(Notice(kind, 1.7e9),)))
        assert series(again, "probetop_filter_gone") == {(): gone}
    assert series(metrics, "probetop_budget_ratio") == {(): 0.03}
    assert series(metrics, "probetop_budget_used_ratio") == {(): 0.015}
    assert series(metrics, "probetop_frames_total") == {(): 3}
    assert series(metrics, "process_open_fds").keys() == {()}


def risen(old: Counts | None, new: Counts) -> Counts:
    if old is None or new.n < old.n:
        return new
    return Counts(new.n - old.n, max(0, new.errors - old.errors))


class Whole:
    """What all processes did, counted in the plainest way."""

    def __init__(self) -> None:
        self.calls = self.errors = 0
        self.last: SyscallSample | None = None

    def add(self, sample: Sample) -> None:
        """Take in the next Sample."""
        if not isinstance(sample, SyscallSample) or sample.state != "on":
            return
        old = self.last
        if old is None or old.generation != sample.generation:
            old = SyscallSample()
        for key, counts in sample.matrix.items():
            more = risen(old.matrix.get(key), counts)
            self.calls += more.n
            self.errors += more.errors
        gained = sample.unattributed - old.unattributed
        self.calls += gained if gained >= 0 else sample.unattributed
        self.last = sample


@settings(max_examples=100, deadline=None)
@given(st.lists(own.frames, max_size=8), st.booleans(), st.integers(0, 3), st.integers(0, 3))
def test_no_counter_falls_and_the_series_are_the_whole(
    frames: list[Frame], steady: bool, top: int, cgroups: int
) -> None:
    metrics = Metrics(top=top, cgroups=cgroups, read=lambda pid: f"/group{pid % 3}")
    whole, before = Whole(), values(metrics)
    for tick, one in enumerate(frames):
        # So soon after one another nobody loses a series.
        one = replace(one, mono=float(tick))
        if steady:
            # Else most Samples have nothing to be compared with.
            on = {n: replace(s, state="on", generation=0) for n, s in one.samples.items()}
            one = replace(one, samples=on)
        metrics.add(one)
        whole.add(one.samples.get("syscalls", Sample()))
        after = values(metrics)
        assert not [key for key in before if is_counter(key) and after[key] < before[key]]
        before = after
    for name, sum_ in (("syscalls", whole.calls), ("syscall_errors", whole.errors)):
        found = series(metrics, f"probetop_process_{name}_total")
        assert sum(found.values()) == pytest.approx(sum_, rel=1e-9)
        assert len(found) <= (top + 1) * cgroups + 1


def test_filters_that_hide_processes_lower_nothing() -> None:
    everybody = {(pid, "read"): Counts(10 * pid, 0) for pid in (1, 2, 3)}
    comms = {1: "a", 2: "b", 3: "c"}
    metrics = fed(
        calls(matrix=everybody, comms=comms),
        calls(matrix={(2, "read"): Counts(25, 0)}, comms={2: "b"}),
        calls(matrix=everybody | {(2, "read"): Counts(30, 0)}, comms=comms),
    )
    found = series(metrics, "probetop_process_syscalls_total")
    assert {key[1]: n for key, n in found.items()} == {"a": 20, "b": 30, "c": 60}
