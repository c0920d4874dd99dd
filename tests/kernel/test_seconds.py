# SPDX-License-Identifier: Apache-2.0
"""For how many seconds of an interval a probe, or a target, counted, and when the first begins."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from probes.core import kernel
from probes.core.frame import Frame
from probes.core.sample import Counts
from probes.core.syscall_names import name_of
from probes.report.stream import stream_object
from probes.syscalls.sample import SyscallSample
from tests.kernel import broken
from tests.kernel.harness import PATHS, Live, Work, eventually
from tui.registry import REGISTRY

KINDS = {entry.name: entry.probe_class() for entry in REGISTRY}
ALL = {**PATHS, "latency": "probes.latency.probe:LatencyProbe"}
CALL = "syscall:getppid"
NUMBER = name_of(500, False, kernel.arch() or "")


def interval(live: Live, frame: Frame) -> dict[str, Any]:
    """The stream's objects of the interval that ends with a Frame."""
    at = live.frames.index(frame)
    return dict(stream_object(live.frames[at - 1], frame, KINDS)["probes"])


def counted(frame: Frame) -> Mapping[tuple[int, str], Counts]:
    """Calls by process and name."""
    return cast(SyscallSample, frame.samples["syscalls"]).matrix


def in_the_middle(live: Live) -> float:
    """Wait until a part of an interval has passed; the moment."""
    live.wait("an interval begins", lambda frame: True)
    time.sleep(0.6)
    return time.monotonic()


def test_the_first_interval_and_that_after_off_and_on() -> None:
    with Live(interval=1.0) as live:
        for _ in range(2):
            asked = in_the_middle(live)
            live.source.toggle("syscalls", True)
            frame = live.all_on("syscalls")
            seconds = interval(live, frame)["syscalls"]["seconds"]
            # Reading begins after the Frame's own moment, on a busy machine some time later.
            assert 0 < seconds < time.monotonic() - asked
            assert frame.samples["syscalls"].counted == seconds
            later = live.all_on("syscalls")
            total = interval(live, later)["syscalls"]["seconds"] + seconds
            assert total == pytest.approx(later.samples["syscalls"].counted)
            live.source.toggle("syscalls", False)
            off = live.wait("it is off", lambda f: f.samples["syscalls"].state == "off")
            probe = interval(live, off)["syscalls"]
            assert (probe["rows"], probe["processes"], probe["seconds"]) == (None, None, None)


@pytest.mark.parametrize("state", ["off", "on"])
def test_calls_before_it_is_switched_off_are_in_the_next_frame(calls: Path, state: str) -> None:
    """Also where it is on again before that Frame."""
    with Live("syscalls", interval=2.0) as live, Work(calls, "number", "50") as work:
        first = live.wait("an interval begins", lambda frame: True)
        began = len(live.frames)
        work.work()
        live.source.toggle("syscalls", False)
        if state == "on":
            live.source.toggle("syscalls", True)
        live.wait("a Frame has it", lambda frame: frame.mono > first.mono)
        frame = live.frames[began]
        sample = cast(SyscallSample, frame.samples["syscalls"])
        assert sample.state == "on"
        assert counted(frame)[work.pid, NUMBER] == Counts(50, 50)
        seconds = interval(live, frame)["syscalls"]["seconds"]
        assert 0 < seconds <= time.monotonic() - first.mono
        # Its counters began anew where it is on again.
        began = len(live.frames)
        live.wait(f"it is {state}", lambda f: f.samples["syscalls"].state == state)
        assert all((work.pid, NUMBER) not in counted(f) for f in live.frames[began:])


def test_a_target_that_is_added_in_the_middle() -> None:
    options = {"latency": {"targets": ["runq"]}}
    with Live("latency", interval=1.0, paths=ALL, options=options) as live:
        asked = in_the_middle(live)
        live.source.set_option("latency", "add", CALL)

        def runs(frame: Frame) -> bool:
            target = frame.samples["latency"].targets.get(CALL)  # type: ignore[attr-defined]
            return target is not None and target.state == "on"

        frame = live.wait("the target runs", runs)
        targets = {row["spec"]: row for row in interval(live, frame)["latency"]["targets"]}
        assert 0 < targets[CALL]["seconds"] < time.monotonic() - asked
        assert targets[CALL]["seconds"] < targets["runq"]["seconds"]


def test_the_first_interval_begins_as_soon_as_all_probes_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mended = tmp_path / "mended"
    monkeypatch.setattr(broken, "MENDED", mended)
    paths = {**PATHS, "execs": "tests.kernel.broken:Sleeps"}
    with Live("syscalls", "execs", interval=600.0, paths=paths, expect_on=False) as live:
        eventually("a Frame shows what is starting", lambda: live.frames)
        assert live.frames[0].samples["execs"].state == "starting"
        mended.touch()
        live.wait("all run", lambda frame: frame.samples["execs"].state == "on")
        assert [frame.samples["syscalls"].state for frame in live.frames[1:]] == ["on"]


def test_a_probe_that_fails_keeps_nobody_waiting() -> None:
    paths = {**PATHS, "execs": "tests.kernel.broken:Refuses"}
    with Live("syscalls", "execs", interval=600.0, paths=paths, expect_on=False) as live:

        def settled() -> bool:
            return any(
                (f.samples["execs"].state, f.samples["syscalls"].state) == ("failed", "on")
                for f in live.frames
            )

        eventually("both have settled", settled)
