# SPDX-License-Identifier: Apache-2.0
"""Rates and percentiles from two Samples."""

from __future__ import annotations

from dataclasses import replace

import pytest

from probes.core import histogram
from probes.core.delta import count_delta, histogram_delta, int_delta, seconds_between
from probes.core.frame import Frame, Host
from probes.core.sample import Counts, Histogram
from probes.syscalls.sample import SyscallSample
from probes.syscalls.view import syscall_view


def frame(mono: float, interval: float = 1) -> Frame:
    return Frame(time=0, mono=mono, interval=interval, host=Host())


def test_seconds_are_those_that_passed() -> None:
    assert seconds_between(frame(10), frame(12.5)) == 2.5
    assert seconds_between(None, frame(12.5, 2)) == 2
    # A source that begins again must not divide by zero or less.
    assert seconds_between(frame(12.5), frame(12.5, 2)) == 2
    assert seconds_between(frame(13), frame(12.5, 2)) == 2


def test_count_delta() -> None:
    same = Counts(9, 1)
    before = {"same": same, "equal": Counts(3, 0), "more": Counts(10, 2), "again": Counts(50, 5)}
    after = {
        "same": same,
        "equal": Counts(3, 0),
        "more": Counts(15, 3),
        "again": Counts(4, 1),
        "new": Counts(7, 7),
    }
    assert count_delta(before, after) == {
        "more": Counts(5, 1),
        "again": Counts(4, 1),
        "new": Counts(7, 7),
    }
    # What was forgotten meanwhile is no negative number.
    assert count_delta(after, {}) == {}


def test_int_delta() -> None:
    assert int_delta({"a": 1, "b": 2}, {"a": 1, "b": 5, "c": 4}) == {"b": 3, "c": 4}


def test_histogram_delta() -> None:
    before = Histogram({1: 5, 9: 1}, 6, 100)
    after = Histogram({1: 5, 9: 3, 12: 1}, 9, 180)
    assert histogram_delta(before, after) == Histogram({9: 2, 12: 1}, 3, 80)
    assert histogram_delta(None, after) is after
    assert histogram_delta(after, after) == Histogram({}, 0, 0)
    # It was switched off and on: it counts from zero.
    assert histogram_delta(after, before) is before


BEFORE = SyscallSample(
    state="on",
    calls={"read": Counts(100, 10), "idle": Counts(5, 0)},
    errnos={("read", "EAGAIN"): 9, ("read", "EINTR"): 1},
    matrix={(1, "read"): Counts(60, 10), (2, "read"): Counts(40, 0), (1, "idle"): Counts(5, 0)},
    comms={1: "one", 2: "two"},
    unattributed=3,
    latency={"read": Histogram({10: 90}, 90, 900)},
    missed=2,
)
AFTER = SyscallSample(
    state="on",
    calls={"read": Counts(150, 14), "idle": Counts(5, 0), "write": Counts(80, 0)},
    errnos={("read", "EAGAIN"): 13, ("read", "EINTR"): 1},
    matrix={
        (1, "read"): Counts(62, 10),
        (2, "read"): Counts(88, 4),
        (1, "idle"): Counts(5, 0),
        (1, "write"): Counts(75, 0),
    },
    comms={1: "one", 2: "renamed"},
    unattributed=8,
    latency={"read": Histogram({10: 91, 31: 49}, 140, 2000), "write": Histogram({}, 0, 0)},
    missed=5,
)


def test_view_of_an_interval() -> None:
    view = syscall_view(BEFORE, AFTER, 2)
    assert (view.seconds, view.count, view.errors, view.unattributed) == (2, 130, 4, 5)
    assert [(row.name, row.count, row.errors, row.errnos) for row in view.calls] == [
        ("write", 80, 0, {}),
        ("read", 50, 4, {"EAGAIN": 4}),
    ]
    write, read = view.calls
    assert (read.p50, read.p99, read.maximum, read.total) == (31, 31, 31, 1100)
    assert (write.p50, write.p99, write.maximum, write.total) == (None, None, None, None)
    assert [(p.pid, p.comm, p.count, p.errors) for p in view.processes] == [
        (1, "one", 77, 0),
        (2, "renamed", 48, 4),
    ]


def test_untimed_calls_are_the_intervals() -> None:
    assert syscall_view(BEFORE, AFTER, 2).untimed == 3
    # Counting began in this interval, or durations anew: what is there is all of it, or nothing.
    assert syscall_view(None, AFTER, 2).untimed == 5
    assert syscall_view(AFTER, BEFORE, 2).untimed == 0
    assert syscall_view(BEFORE, replace(AFTER, latency=None), 2).untimed is None


def test_drilling_both_ways() -> None:
    view = syscall_view(BEFORE, AFTER, 1)
    assert [(p.pid, p.count, p.errors) for p in view.processes_of("read")] == [
        (2, 48, 4),
        (1, 2, 0),
    ]
    assert [(row.name, row.count) for row in view.calls_of(1)] == [("write", 75), ("read", 2)]
    assert view.processes_of("idle") == []
    assert view.calls_of(99) == []


@pytest.mark.parametrize("before", [None, SyscallSample(generation=7, calls=AFTER.calls)])
def test_another_generation_is_not_subtracted(before: SyscallSample | None) -> None:
    view = syscall_view(before, AFTER, 1)
    assert view.count == 150 + 5 + 80
    assert view.unattributed == 8


def test_sampled_durations_are_scaled_to_all() -> None:
    after = SyscallSample(
        calls={"read": Counts(160, 0)},
        latency={"read": Histogram({histogram.index(1000): 10}, 10, 10_000)},
        sample_every=16,
    )
    (row,) = syscall_view(None, after, 1).calls
    assert (row.count, row.total) == (160, 160_000)


def test_equal_counts_have_a_steady_order() -> None:
    after = SyscallSample(calls={name: Counts(5, 0) for name in ("b", "c", "a")})
    assert [row.name for row in syscall_view(None, after, 1).calls] == ["a", "b", "c"]
