# SPDX-License-Identifier: Apache-2.0
"""A run summed up: counts of the whole span, whatever began anew within it, in bounded size."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.core import histogram as hdr
from probes.core.frame import Frame, Host
from probes.core.readings import Reading
from probes.core.sample import Counts, Histogram, Sample
from probes.execs.sample import ExecEvent, ExecSample, ExitEvent
from probes.latency import sum as latency_sum
from probes.latency.sample import LatencySample, Spent, Target
from probes.pmc import sum as pmc_sum
from probes.pmc.sample import CpuTimes, PmcSample, TaskTimes
from probes.report.stream import dumps, stream_object
from probes.report.summary import Summarizer, Summary, summarize
from probes.report.timeseries import POINT_LIMIT
from probes.sums import accumulators, retention
from probes.sums.summary_limits import LIMITS, TableLimits, quarter_bounds
from probes.syscalls import sum as syscall_sum
from probes.syscalls.sample import SyscallSample
from tests.pilot.fake import FakeSource
from tests.unit import strategies as own
from tests.unit.probes.report.test_stream import _typed
from tui.registry import REGISTRY

KINDS = {entry.name: entry.probe_class() for entry in REGISTRY}


def frame(tick: float, **samples: Sample) -> Frame:
    return Frame(time=1.7e9 + tick, mono=tick, interval=1.0, host=Host("web-3"), samples=samples)


def calls(tick: float, n: int, **fields: Any) -> Frame:
    sample = SyscallSample(
        state="on",
        calls={"read": Counts(n, n // 10)},
        matrix={(7, "read"): Counts(n, n // 10)},
        comms={7: "a"},
    )
    return frame(tick, syscalls=replace(sample, **fields))


def summed(*frames: Frame, limits: TableLimits = LIMITS) -> Summary:
    summary: Summary = json.loads(dumps(summarize(frames, KINDS, limits)))
    return summary


def test_of_an_undisturbed_run_it_is_the_streams_object() -> None:
    source = FakeSource()
    source.latency = True
    frames = [source.frame() for _ in range(8)]
    summary = summed(*frames)
    whole = json.loads(dumps(stream_object(frames[0], frames[-1], KINDS)))["probes"]
    assert summary["seconds"] == 7
    for name, table in (("syscalls", "rows"), ("syscalls", "processes"), ("pmc", "processes")):
        assert summary["probes"][name][table] == whole[name][table]
    mine = [{**t, "behind": 0, "others": 0} for t in summary["probes"]["latency"]["targets"]]
    theirs = [{**t, "behind": 0, "others": 0} for t in whole["latency"]["targets"]]
    assert mine == theirs
    assert summary["probes"]["syscalls"]["lost"] == 0


def test_counting_that_began_anew_is_added_up() -> None:
    off = frame(3, syscalls=SyscallSample())
    summary = summed(
        calls(0, 100), calls(1, 150), off, calls(4, 10, generation=1), calls(5, 30, generation=1)
    )
    probe = summary["probes"]["syscalls"]
    assert probe["rows"][0]["count"] == 50 + 10 + 20
    assert probe["processes"] == [{"pid": 7, "comm": "a", "count": 80, "errors": 8}]
    assert summary["seconds"] == 5
    # What it counted after the Frame at 1, until it was off, nobody knows.
    assert probe["seconds"] == 3
    assert summary["series"]["syscalls"]["calls"] == [50.0, None, 10.0, 20.0]
    assert summary["series"]["seconds"] == [1.0, 2.0, 1.0, 1.0]


def test_rates_are_of_the_seconds_for_which_a_probe_counted() -> None:
    summary = summed(
        calls(0, 100, counted=9.0),
        calls(1, 250, generation=1, counted=0.25),
        calls(2, 1250, generation=1, counted=1.25),
    )
    assert summary["probes"]["syscalls"]["seconds"] == 1.25
    assert summary["probes"]["syscalls"]["rows"][0]["count"] == 1250
    assert summary["series"]["syscalls"]["calls"] == [1000.0, 1000.0]


def test_a_target_that_is_added_later_has_seconds_of_its_own() -> None:
    def at(tick: float, *targets: tuple[str, int, float]) -> Frame:
        made = {
            spec: Target(spec=spec, state="on", histogram=Histogram({5: n}, n, 5 * n), began=began)
            for spec, n, began in targets
        }
        return frame(tick, latency=LatencySample(state="on", counted=tick, targets=made))

    summary = summed(
        at(1, ("runq", 10, 0.0)),
        at(2, ("runq", 20, 0.0)),
        at(3, ("runq", 30, 0.0), ("blockio", 500, 2.5)),
        at(4, ("runq", 40, 0.0), ("blockio", 1500, 2.5)),
    )
    rows = summary["probes"]["latency"]["targets"]
    assert {t["spec"]: (t["count"], t["seconds"]) for t in rows} == {
        "runq": (30, 3.0),
        "blockio": (1500, 1.5),
    }
    series = summary["series"]["latency"]
    assert series["runq"]["calls"] == [10.0, 10.0, 10.0]
    assert series["blockio"]["calls"] == [None, 1000.0, 1000.0]


def test_a_process_that_is_forgotten_meanwhile_still_counts() -> None:
    gone: dict[str, Any] = {"matrix": {}, "comms": {}}
    summary = summed(calls(0, 0), calls(1, 40), calls(2, 40, **gone), calls(3, 40, **gone))
    assert summary["probes"]["syscalls"]["processes"][0]["count"] == 40


def test_what_is_off_is_null_and_has_no_series() -> None:
    summary = summed(frame(0), frame(1))
    for probe in summary["probes"].values():
        assert (probe["state"], probe["seconds"]) == ("off", None)
    assert summary["probes"]["syscalls"]["rows"] is None
    assert summary["series"]["syscalls"] == {"calls": [None], "errors": [None]}
    assert summary["series"]["pmc"] == {"busy": [None], "ipc": [None]}
    assert summary["heat"]["targets"] == {}


def test_a_failure_says_why() -> None:
    failed = SyscallSample(state="failed", why="no BTF", fix="add it")
    probe = summed(frame(0, syscalls=failed), frame(1, syscalls=failed))["probes"]["syscalls"]
    assert (probe["state"], probe["why"], probe["fix"]) == ("failed", "no BTF", "add it")


def executed(pid: int, ppid: int, program: str, time: float, ret: int = 0) -> ExecEvent:
    return ExecEvent(
        time=time, pid=pid, ppid=ppid, uid=0, comm=program[:15], parent="sh",
        args=(program, "x"), truncated=False, ret=ret, cgroup="/", path=f"/usr/bin/{program}",
    )  # fmt: skip


def test_what_was_given_up_at_times_is_told_of_the_whole() -> None:
    frames = [
        frame(at, syscalls=SyscallSample(state="on", sample_every=every, given_up=words))
        for at, (every, words) in enumerate([(1, None), (16, "timed 1 in 16"), (1, None)])
    ]
    probe = summed(*frames)["probes"]["syscalls"]
    assert probe["notes"] == ["to stay within the budget, at times: timed 1 in 16"]
    held = SyscallSample(state="failed", why="too dear", fix="wait", given_up="detached")
    probe = summed(*frames, frame(3, syscalls=held))["probes"]["syscalls"]
    assert probe["notes"][1] == "to stay within the budget, at times: detached"


def test_executions_are_a_tree_and_are_counted_by_program() -> None:
    events = (
        executed(10, 1, "make", 1.1),
        executed(11, 10, "gcc", 1.2),
        executed(12, 11, "as", 1.3),
        executed(13, 10, "nosuch", 1.4, -2),
        ExitEvent(time=1.5, pid=12, comm="as", exit_code=1, signal=0, duration=200),
        ExitEvent(time=1.6, pid=11, comm="gcc", exit_code=0, signal=9, duration=400),
        ExitEvent(time=1.7, pid=99, comm="old", exit_code=0, signal=11, duration=1),
    )
    first = frame(0, execs=ExecSample(state="on", events=(executed(9, 1, "before", 0.5),)))
    second = frame(2, execs=ExecSample(state="on", execs=3, failed=1, exits=3, events=events))
    probe = summed(first, second)["probes"]["execs"]
    assert [(row["comm"], row["depth"]) for row in probe["rows"]] == [
        ("make", 0), ("gcc", 1), ("as", 2), ("nosuch", 1), ("old", 0),
    ]  # fmt: skip
    assert [row["outcome"] for row in probe["rows"]] == ["-", "SIGKILL", "1", "ENOENT", "SIGSEGV"]
    programs = {row["program"]: row for row in probe["programs"]}
    assert "before" not in programs
    assert (programs["as"]["nonzero"], programs["as"]["mean"]) == (1, 200)
    assert (programs["gcc"]["starts"], programs["gcc"]["killed"]) == (1, 1)
    assert (programs["nosuch"]["starts"], programs["nosuch"]["errnos"]) == (0, {"ENOENT": 1})
    assert (programs["old"]["starts"], programs["old"]["killed"]) == (0, 1)
    assert (probe["execs"], probe["failed"], probe["exits"]) == (3, 1, 3)


def timed(tick: float, durations: dict[int, int], n: int) -> Frame:
    histogram = Histogram(durations, sum(durations.values()), 100 * n)
    target = Target(spec="runq", mechanism="tracepoint", state="on", histogram=histogram)
    spent = {("runq", 7): Spent(n, 100 * n)}
    return frame(tick, latency=LatencySample(state="on", targets={"runq": target}, processes=spent))


def test_durations_are_kept_over_time_in_quarters_of_a_power_of_two() -> None:
    fast, slow = hdr.index(1000), hdr.index(1_000_000)
    summary = summed(timed(0, {}, 0), timed(1, {fast: 5}, 5), timed(2, {fast: 5, slow: 2}, 7))
    columns = summary["heat"]["targets"]["runq"]
    assert [sum([n for _, n in column]) for column in columns] == [5, 2]
    low, high = quarter_bounds(columns[1][0][0])
    assert low <= 1_000_000 < high
    assert high / low <= 1.25
    assert summary["series"]["latency"]["runq"]["calls"] == [5, 2]
    (target,) = summary["probes"]["latency"]["targets"]
    assert (target["count"], target["mechanism"]) == (7, "tracepoint")
    assert summary["probes"]["latency"]["mechanisms"] == ["tracepoint"]


def counted(tick: int, events: tuple[str, ...], generation: int = 0) -> Frame:
    clock = tick * 10**8
    readings = {(0, event): Reading(2 * clock, 10**9 * tick, 10**9 * tick) for event in events}
    sample = PmcSample(
        state="on", hardware=True, events=events, generation=generation,
        tasks={7: TaskTimes(clock, tick, 0, None)}, cpus={0: CpuTimes(clock, clock, tick, None)},
        readings={(7, event): value for (_, event), value in readings.items()},
        cpu_readings=readings, comms={7: "a"},
    )  # fmt: skip
    return frame(tick, pmc=sample)


def test_events_that_were_not_counted_all_the_time_are_left_out() -> None:
    base = ("cycles", "instructions")
    probe = summed(counted(0, base), counted(1, base), counted(2, ("cycles", "branches")))
    pmc = probe["probes"]["pmc"]
    assert pmc["events"] == ["cycles"]
    assert pmc["processes"][0]["task_clock"] == 2 * 10**8
    assert probe["series"]["pmc"]["busy"] == [0.5, 0.5]
    assert probe["series"]["pmc"]["ipc"] == [1.0, None]


def test_long_tables_end_and_say_what_is_missing() -> None:
    matrix = {(pid, "read"): Counts(pid, 1) for pid in range(1, 301)}
    first = calls(0, 0, matrix={}, comms={})
    probe = summed(first, calls(1, 1000, matrix=matrix))["probes"]["syscalls"]
    assert len(probe["processes"]) == LIMITS.processes
    rest = sum(range(1, 301 - LIMITS.processes))
    assert probe["others"]["processes"] == {"rows": 100, "count": rest, "errors": 100}


def test_long_runs_have_series_of_bounded_length_with_the_same_sums() -> None:
    summarizer = Summarizer(KINDS)
    for tick in range(1000):
        summarizer.add(calls(tick, 10 * tick))
    series = summarizer.summary()["series"]
    assert POINT_LIMIT / 2 <= len(series["time"]) <= POINT_LIMIT
    assert sum(series["seconds"]) == 999
    assert set(series["syscalls"]["calls"]) == {10.0}
    assert series["time"][-1] == 1.7e9 + 999


def test_a_recording_that_begins_anew_is_not_subtracted_across() -> None:
    summary = summed(calls(5, 100), calls(6, 110), calls(1, 20), calls(2, 25))
    assert summary["probes"]["syscalls"]["rows"][0]["count"] == 15
    assert summary["seconds"] == 2


@settings(max_examples=60, deadline=None)
@given(st.lists(own.frames, min_size=2, max_size=4))
def test_any_frames_make_a_summary(frames: list[Frame]) -> None:
    typed = [_typed(one) for one in frames]
    summary = summed(*typed)
    assert set(summary["probes"]) == set(KINDS)
    for values in summary["series"]["syscalls"].values():
        assert len(values) == len(summary["series"]["time"])


@pytest.mark.parametrize("part", [1.0, 0.5, 0.01])
def test_smaller_limits_make_smaller_summaries(part: float) -> None:
    source = FakeSource()
    summarizer = Summarizer(KINDS)
    for _ in range(60):
        summarizer.add(source.frame())
    everything = json.loads(dumps(summarizer.summary()))
    limits = LIMITS.scaled(part)
    for _ in range(2):
        probe = summarizer.summary(limits)["probes"]
        assert len(probe["execs"]["rows"]) <= limits.execs
        assert len(probe["syscalls"]["matrix"]) <= limits.matrix
    # What was cut was a copy.
    assert json.loads(dumps(summarizer.summary())) == everything


def test_rows_that_an_execution_list_has_forgotten_are_counted() -> None:
    limits = LIMITS.scaled(0.01)
    events = tuple(executed(pid, 1, "true", 1 + pid / 1000) for pid in range(10, 110))
    frames = [frame(0, execs=ExecSample(state="on"))]
    frames += [frame(2, execs=ExecSample(state="on", execs=100, events=events))]
    probe = summed(*frames, limits=limits)["probes"]["execs"]
    assert len(probe["rows"]) == limits.execs == 5
    assert probe["others"]["rows"] == {"rows": 95}
    assert probe["programs"][0]["starts"] == 100


def fast(frames: list[Frame], interval: float) -> list[Frame]:
    """The same Frames, so many seconds apart."""
    return [
        replace(one, time=1.7e9 + at * interval, mono=100 + at * interval, interval=interval)
        for at, one in enumerate(frames)
    ]


def busy(ticks: int) -> list[Frame]:
    """Processes that come, and are forgotten with all they did, while others stay."""
    source = FakeSource()
    source.latency = True
    out = []
    for tick in range(ticks):
        made = source.frame()
        live = {500 + at: 3 * at for at in range(tick - tick % 20, tick + 1)}
        syscalls, pmc = made.samples["syscalls"], made.samples["pmc"]
        assert isinstance(syscalls, SyscallSample)
        assert isinstance(pmc, PmcSample)
        matrix = {**syscalls.matrix, **{(pid, "read"): Counts(n, 1) for pid, n in live.items()}}
        tasks = {**pmc.tasks, **{pid: TaskTimes(1000 + n, 1, 0, 0) for pid, n in live.items()}}
        latency = made.samples["latency"]
        assert isinstance(latency, LatencySample)
        spent = {("runq", pid): Spent(2, 10 + n) for pid, n in live.items()}
        mixed = replace(latency, processes={**latency.processes, **spent})
        samples = {
            **made.samples,
            "syscalls": replace(syscalls, matrix=matrix),
            "pmc": replace(pmc, tasks=tasks),
            "latency": mixed,
        }
        out.append(replace(made, samples=samples))
    return out


def test_fast_frames_count_as_much_as_slow_ones() -> None:
    frames = busy(100)
    slow, quick = (summed(*fast(frames, seconds)) for seconds in (1.0, 0.05))
    assert len(slow["series"]["time"]) == 99
    assert len(quick["series"]["time"]) <= 34
    assert (quick["frames"], round(quick["seconds"], 6)) == (100, 4.95)
    for name in ("syscalls", "execs", "latency", "pmc"):
        assert slow["probes"][name].pop("seconds") == 99
        assert round(quick["probes"][name].pop("seconds"), 6) == 4.95
        for probe in (slow["probes"][name], quick["probes"][name]):
            # They have the times of the Frames, and means over them.
            probe["cost"].pop("cpu_percent")
            for target in probe.get("targets", ()):
                target.pop("seconds")
            probe["rows"] = None if name == "execs" else probe.get("rows")
        assert quick["probes"][name] == slow["probes"][name]


def test_frames_are_left_out_only_where_the_next_one_knows_as_much() -> None:
    taken: list[float] = []

    class Listening(Summarizer):
        def _keep(self, point: Any) -> None:
            taken.append(round(point.time - 1.7e9, 2))

    def at(tick: float, n: int, **fields: Any) -> Frame:
        return replace(calls(tick, n, **fields), interval=0.05)

    summarizer = Listening(KINDS)
    two = {(7, "read"): Counts(1, 0), (8, "read"): Counts(5, 0)}
    summarizer.add(at(0.0, 0))
    summarizer.add(at(0.05, 1))
    summarizer.add(at(0.10, 2, matrix=two))
    summarizer.add(at(0.15, 3))
    summarizer.add(at(0.20, 4))
    assert taken == [0.1]
    summarizer.add(at(0.25, 0, generation=1))
    assert taken == [0.1, 0.2]
    summarizer.add(at(0.30, 9, generation=1))
    assert summarizer.summary()["probes"]["syscalls"]["rows"][0]["count"] == 4 + 9
    assert taken == [0.1, 0.2, 0.3]
    summarizer.add(at(0.35, 10, generation=1))
    assert summarizer.summary()["probes"]["syscalls"]["rows"][0]["count"] == 4 + 10


def test_what_is_left_out_of_sums_changes_no_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = busy(120)
    limits = LIMITS.scaled(0.03)
    whole = summed(*frames, limits=limits)
    monkeypatch.setattr(accumulators, "ROOM", 10)
    most = max(limits.processes, limits.matrix, limits.behind)
    for module in (retention, latency_sum, pmc_sum):
        monkeypatch.setattr(module, "KEPT", most)
    monkeypatch.setattr(syscall_sum, "KEPT", limits.matrix)
    summarizer = Summarizer(KINDS)
    for total in summarizer.sums.values():
        total._room = 10
    for one in frames:
        summarizer.add(one)
    assert all(summarizer.sums[name].left for name in ("syscalls", "latency", "pmc"))
    assert json.loads(dumps(summarizer.summary(limits))) == whole
