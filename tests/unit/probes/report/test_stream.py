# SPDX-License-Identifier: Apache-2.0
"""The stream's JSON object: the contract's fields, of the interval, null where unknown."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.core.frame import Filters, Frame, Host, Notice
from probes.core.readings import Reading
from probes.core.sample import Budget, Cost, Counts, Sample
from probes.execs.probe import ExecProbe
from probes.execs.sample import ExecSample
from probes.pmc.sample import CpuTimes, PmcSample, TaskTimes
from probes.probe import Probe
from probes.report.stream import dumps, stream_object
from probes.syscalls.probe import SyscallProbe
from probes.syscalls.sample import SyscallSample
from tests.unit import strategies as own


class CountingProbe:
    """A probe's contract function that shows what it was called with."""

    name = "syscalls"
    sample_type = SyscallSample

    @staticmethod
    def contract(before: Sample | None, after: Sample, seconds: float) -> dict[str, Any]:
        assert isinstance(after, SyscallSample)
        assert before is None or isinstance(before, SyscallSample)
        old = before.calls["read"].n if before else 0
        rows = [{"syscall": "read", "count": n.n - old} for n in after.calls.values()]
        return {"rows": rows}


KINDS = {"syscalls": cast("type[Probe]", CountingProbe)}


def frame(tick: float, **fields: Any) -> Frame:
    sample = SyscallSample(**{"state": "on", "calls": {"read": Counts(100, 1)}, **fields})
    return Frame(
        time=1.7e9 + tick,
        mono=tick,
        interval=1.0,
        host=Host("web-3"),
        samples={"syscalls": sample},
    )


def test_counts_are_of_the_interval() -> None:
    before = frame(10, lost=5, cost=Cost(1000, 40.0, 0.1, 4096))
    after = frame(12, lost=7, cost=Cost(1500, 51.0, 0.4, 8192), calls={"read": Counts(130, 1)})
    obj = stream_object(before, after, KINDS)
    assert obj["time"] == 1.7e9 + 12
    assert obj["interval"] == 2.0
    assert obj["host"] == "web-3"
    assert obj["filters"] == {}
    assert obj["budget"] is None
    assert obj["probes"] == {
        "syscalls": {
            "state": "on",
            "lost": 2,
            "cost": {"events": 500, "ns_per_event": 51.0, "cpu_percent": 0.4, "map_bytes": 8192},
            "rows": [{"syscall": "read", "count": 30}],
            "seconds": 2.0,
        }
    }


def test_a_new_generation_counts_from_zero() -> None:
    before = frame(10, lost=50, cost=Cost(1000))
    after = frame(11, lost=3, cost=Cost(10), generation=1)
    obj = stream_object(before, after, KINDS)["probes"]["syscalls"]
    assert obj["lost"] == 3
    assert obj["cost"] == {
        "events": 10, "ns_per_event": None, "cpu_percent": None, "map_bytes": None,
    }  # fmt: skip


def test_first_frame_alone_takes_the_wished_interval() -> None:
    obj = stream_object(None, frame(10, lost=3), KINDS)
    assert obj["interval"] == 1.0
    assert obj["probes"]["syscalls"]["lost"] == 3
    assert obj["probes"]["syscalls"]["rows"] == [{"syscall": "read", "count": 100}]


@pytest.mark.parametrize("state", ["off", "starting", "failed"])
def test_own_fields_are_null_while_the_probe_does_not_run(state: str) -> None:
    before, after = frame(10, state=state), frame(11, state=state, why="no BTF", fix="add it")
    obj = stream_object(before, after, KINDS)["probes"]["syscalls"]
    assert obj["state"] == state
    assert (obj["rows"], obj["seconds"]) == (None, None)
    assert obj["lost"] == 0
    expected = ("no BTF", "add it") if state == "failed" else (None, None)
    assert (obj.get("why"), obj.get("fix")) == expected


@pytest.mark.parametrize("state", ["off", "starting", "failed"])
def test_a_probe_that_is_off_at_the_end_has_no_rows_and_lost_nothing(state: str) -> None:
    after = replace(frame(11), samples={"syscalls": SyscallSample(state=state)})  # type: ignore[arg-type]
    obj = stream_object(frame(10, lost=5, cost=Cost(9)), after, KINDS)["probes"]["syscalls"]
    assert obj["state"] == state
    assert (obj["rows"], obj["seconds"]) == (None, None)
    assert (obj["lost"], obj["cost"]["events"]) == (0, 0)


def test_seconds_are_those_for_which_the_probe_counted() -> None:
    begun = stream_object(None, frame(20, counted=2.5), KINDS)["probes"]["syscalls"]
    assert begun["seconds"] == 2.5
    went_on = stream_object(frame(10, counted=3.0), frame(20, counted=13.1), KINDS)
    assert went_on["probes"]["syscalls"]["seconds"] == pytest.approx(10.1)
    again = stream_object(frame(10, counted=300.0), frame(20, counted=4.0, generation=1), KINDS)
    assert again["probes"]["syscalls"]["seconds"] == 4.0
    assert again["interval"] == 10.0


def test_a_probe_without_a_sample_is_off() -> None:
    obj = stream_object(None, replace(frame(10), samples={}), KINDS)["probes"]["syscalls"]
    assert obj["state"] == "off"
    assert obj["rows"] is None


def test_filters_and_notes_are_told() -> None:
    after = replace(frame(11, notes=("1 in 16 timed",)), filters=Filters(pid=7, comm="sh"))
    obj = stream_object(frame(10), after, KINDS)
    assert obj["filters"] == {"pid": 7, "comm": "sh"}
    assert obj["probes"]["syscalls"]["notes"] == ["1 in 16 timed"]


def counters(tick: float, **fields: Any) -> Frame:
    """Process 7 and CPU 0, of which each second had half a second of the other's time."""
    spent = int(tick * 5e8)
    sample = PmcSample(
        state="on",
        hardware=True,
        events=("cycles", "instructions", "page-faults"),
        absent={"cache-misses": "the CPU has no such counter (ENOENT)"},
        tasks={7: TaskTimes(spent, int(tick), 0, 0)},
        readings={
            (7, "cycles"): Reading(3 * spent, spent, spent),
            (7, "instructions"): Reading(6 * spent, spent, spent),
        },
        cpus={0: CpuTimes(spent, spent, int(tick), 0)},
        cpu_readings={(0, "cycles"): Reading(3 * spent, 2 * spent, spent)},
        comms={7: "postgres"},
    )
    return replace(frame(tick), samples={"pmc": replace(sample, **fields)})


def counter_object(before: Frame, after: Frame) -> dict[str, Any]:
    from probes.pmc.probe import PmcProbe

    probes: dict[str, dict[str, Any]] = stream_object(before, after, {"pmc": PmcProbe})["probes"]
    return json.loads(dumps(probes["pmc"]))  # type: ignore[no-any-return]


def test_counters_are_of_the_interval_whole_numbers_and_scaled_where_shared() -> None:
    obj = counter_object(counters(10), counters(12))
    (cpu,), (process,) = obj["cpus"], obj["processes"]
    assert (cpu["cycles"], cpu["running"], cpu["instructions"]) == (6_000_000_000, 0.5, None)
    assert (process["cycles"], process["ipc"]) == (3_000_000_000, 2.0)
    assert (process["task_clock"], process["page_faults"]) == (1_000_000_000, None)
    assert obj["absent"] == {"cache-misses": "the CPU has no such counter (ENOENT)"}


def test_counters_without_hardware_are_null_and_say_why() -> None:
    without = {"hardware": False, "reason": "none (ENOENT)", "events": ("page-faults",)}
    obj = counter_object(counters(10, **without), counters(11, **without))
    assert (obj["hardware"], obj["reason"]) == (False, "none (ENOENT)")
    for row in (*obj["cpus"], *obj["processes"]):
        assert [row[name] for name in ("cycles", "instructions", "ipc", "running")] == [None] * 4
        assert row["context_switches"] == 1


def test_counters_that_are_off_are_null() -> None:
    off = Frame(time=1, mono=1, interval=1.0, host=Host(), samples={})
    obj = counter_object(off, off)
    assert obj.pop("state") == "off"
    assert {name for name, value in obj.items() if value is not None} == {"lost", "cost"}


@settings(max_examples=100)
@given(st.text(st.characters(codec=None)))
def test_lines_are_one_line_of_ascii_that_parsers_take(text: str) -> None:
    line = dumps({"comm": text, "list": [text], text: 1})
    assert line.isascii()
    assert line.isprintable()
    loaded = json.loads(line)
    loaded["comm"].encode("utf-8")
    if not any(0xD800 <= ord(c) < 0xE000 for c in text):
        assert loaded == {"comm": text, "list": [text], text: 1}


def test_numbers_that_are_none_are_never_printed() -> None:
    with pytest.raises(ValueError, match="JSON"):
        dumps({"p50": float("nan")})


@settings(max_examples=50)
@given(own.frames, own.frames)
def test_any_frames_of_the_real_probes_make_an_object(before: Frame, after: Frame) -> None:
    from tui.registry import REGISTRY

    kinds = {entry.name: entry.probe_class() for entry in REGISTRY}
    before, after = _typed(before), _typed(after)
    obj = json.loads(dumps(stream_object(before, after, kinds)))
    assert set(obj["probes"]) == set(kinds)
    for part in obj["probes"].values():
        assert {"state", "lost", "cost"} <= set(part)
        assert set(part["cost"]) == {"events", "ns_per_event", "cpu_percent", "map_bytes"}


def _typed(arbitrary: Frame) -> Frame:
    """The Frame with only Samples of the class that belongs to their probe's name."""
    kinds = {"syscalls": SyscallSample, "execs": ExecSample, "pmc": PmcSample}
    kept = {n: s for n, s in arbitrary.samples.items() if type(s) is kinds.get(n)}
    return replace(arbitrary, samples=kept)


def test_what_is_given_up_to_stay_within_the_budget() -> None:
    samples: dict[str, Sample] = {
        "syscalls": SyscallSample(state="on", given_up="counts only"),
        "execs": ExecSample(state="on"),
    }
    frame = Frame(
        time=1.0,
        mono=1.0,
        interval=1.0,
        host=Host(),
        samples=samples,
        budget=Budget(2.0, 0.25),
    )
    obj = stream_object(None, frame, {"syscalls": SyscallProbe, "execs": ExecProbe})
    assert obj["budget"] == {"percent": 2.0, "used": 0.25, "drawing": 1, "lifted": None}
    assert obj["probes"]["syscalls"]["given_up"] == "counts only"
    assert "given_up" not in obj["probes"]["execs"]


def test_what_has_gone_is_told_with_its_time_and_unknowns_as_null() -> None:
    gone = (
        Notice("process_ended", 1.7e9, 4242, "nginx"),
        Notice("cgroup_followed", 1.7e9 + 1, cgroup="/a", seconds=0.25),
    )
    obj = stream_object(None, replace(frame(10), notices=gone), KINDS)
    assert obj["notices"] == [
        {"kind": "process_ended", "time": 1.7e9, "pid": 4242, "comm": "nginx", "cgroup": None,
         "seconds": None},
        {"kind": "cgroup_followed", "time": 1.7e9 + 1, "pid": None, "comm": None, "cgroup": "/a",
         "seconds": 0.25},
    ]  # fmt: skip
    assert stream_object(None, frame(10), KINDS)["notices"] == []
