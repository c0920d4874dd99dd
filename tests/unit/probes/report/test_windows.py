# SPDX-License-Identifier: Apache-2.0
"""Where windows begin: never before the counters did, and in as few decoded Frames as can be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from probes.core.frame import Frame
from probes.core.sample import Histogram, Sample
from probes.execs.sample import ExecSample
from probes.latency.sample import LatencySample, Target
from probes.pmc.sample import PmcSample
from probes.recording.history import History
from probes.report.windows import KEPT, SINCE_START, Windows, continues
from probes.syscalls.sample import SyscallSample
from tests.unit.probes.recording.test_recording import make_frames

CALLS = SyscallSample(state="on", generation=2)
TIMED = replace(CALLS, latency={})
RUNQ = Target(spec="runq", state="on", histogram=Histogram({5: 9}, 9, 90))
LATENCY = LatencySample(state="on", targets={"runq": RUNQ})
MORE = replace(RUNQ, histogram=Histogram({5: 10}, 10, 100))
LESS = replace(RUNQ, histogram=Histogram({5: 1}, 1, 10))
PMC = PmcSample(state="on", event_set="base", mode="all", events=("cycles", "instructions"))


@pytest.mark.parametrize(
    ("before", "after", "goes_on"),
    [
        (CALLS, CALLS, True),
        (None, CALLS, False),
        (replace(CALLS, state="off"), CALLS, False),
        (CALLS, replace(CALLS, state="failed"), False),
        (CALLS, replace(CALLS, generation=3), False),
        (CALLS, ExecSample(state="on", generation=2), False),
        (CALLS, TIMED, False),
        (TIMED, TIMED, True),
        (TIMED, replace(TIMED, sample_every=4), False),
        (LATENCY, replace(LATENCY, targets={"runq": MORE}), True),
        (LATENCY, replace(LATENCY, targets={"runq": LESS}), False),
        (LATENCY, replace(LATENCY, targets={}), True),
        (replace(LATENCY, targets={}), LATENCY, False),
        (replace(LATENCY, targets={"runq": replace(RUNQ, state="starting")}), LATENCY, False),
        (LATENCY, replace(LATENCY, targets={"runq": replace(RUNQ, state="failed")}), True),
        (PMC, PMC, True),
        (PMC, replace(PMC, mode="user"), False),
        (PMC, replace(PMC, event_set="tlb"), False),
        (PMC, replace(PMC, events=("cycles",)), True),
        (replace(PMC, events=("cycles",)), PMC, False),
    ],
)
def test_what_goes_on(before: Sample | None, after: Sample, goes_on: bool) -> None:
    assert continues(before, after) is goes_on


def dated(count: int, since: float | None) -> list[Frame]:
    """Frames from 50 s on whose Samples may be compared since then."""
    return [
        replace(f, samples={name: replace(s, since=since) for name, s in f.samples.items()})
        for f in make_frames(count)
    ]


def base(frames: list[Frame], seconds: float | None, probe: str = "syscalls") -> float | None:
    """The moment with which the window of the last Frame begins."""
    history = History()
    for frame in frames:
        history.add(frame)
    found = Windows(history).base(frames[-1], probe, seconds)
    return None if found is None else found.mono


def test_a_window_begins_so_long_ago_or_where_counting_did() -> None:
    frames = dated(40, 55.0)
    assert base(frames, None) is None
    assert base(frames, 10.0) == 79.0
    assert base(frames, 60.0) == base(frames, SINCE_START) == 55.0
    assert base(frames[:7], 10.0) == 55.0
    assert base(frames[:6], 10.0) is None
    assert base(frames, 10.0, "pmc") is None


def test_timers_that_are_not_exact_make_no_window_an_interval_longer() -> None:
    frames = [replace(f, mono=f.mono + 0.01 * (at % 3)) for at, f in enumerate(dated(40, 50.0))]
    found = base(frames, 10.0)
    assert found is not None
    assert abs(frames[-1].mono - found - 10.0) < 0.5


def test_where_the_beginning_is_not_known_counters_still_tell() -> None:
    frames = dated(40, None)
    assert base(frames, 10.0) == 79.0
    sample = frames[-5].samples["syscalls"]
    for at in range(-5, 0):
        samples = {**frames[at].samples, "syscalls": replace(sample, generation=9)}
        frames[at] = replace(frames[at], samples=samples)
    assert base(frames, 10.0) is None


def test_beginnings_outlive_the_history_but_not_without_end() -> None:
    history = History(seconds=1.0)
    windows = Windows(history)
    frames = dated(200, 50.0)
    for frame in frames:
        history.add(frame)
        windows.keep(frame)
    assert windows.base(frames[-1], "syscalls", SINCE_START) == frames[0]
    for at in range(KEPT):
        moment = 1000.0 + at
        sample = SyscallSample(state="on", since=moment)
        windows.keep(replace(frames[0], mono=moment, samples={"syscalls": sample}))
    found = windows.base(frames[-1], "syscalls", SINCE_START)
    assert found is not None
    assert found.mono == history.mono(history.first)
