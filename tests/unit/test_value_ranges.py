# SPDX-License-Identifier: Apache-2.0
"""Numbers and texts of a Frame stay within the ranges of what they mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from probes.core import histogram
from probes.core.limits import CodecError
from probes.core.sample import Sample
from probes.recording import bounded_json
from probes.recording.codec import FrameCodec
from probes.report.stream import stream_object
from tests.unit.probes.core.test_limits import BASE
from tests.unit.probes.recording.test_recording import make_frames
from tui.panes.heatmap import Heat, Moment
from tui.registry import REGISTRY

LATENCY = {"targets": [["x"], [{"spec": "x", "state": "on"}]]}


def buckets(key: int, count: int) -> dict[str, Any]:
    target = {"spec": "x", "state": "on", "histogram": [[[key], [count]], count, 0]}
    return {"x": ["LatencySample", {"state": "on", "targets": [["x"], [target]]}]}


@pytest.mark.parametrize(
    "samples",
    [
        buckets(2**79, 1),
        buckets(2**37, 1),
        buckets(histogram.BUCKETS, 1),
        buckets(-1, 1),
        buckets(5, -1),
        buckets(5, 2**64),
        {"x": ["SyscallSample", {"calls": [["read"], [[-1, 0]]]}]},
        {"x": ["SyscallSample", {"calls": [["read"], [[2**64, 0]]]}]},
        {"x": ["SyscallSample", {"matrix": [[[-1, "read"]], [[1, 0]]]}]},
        {"x": ["SyscallSample", {"matrix": [[[2**32, "read"]], [[1, 0]]]}]},
        {"x": ["SyscallSample", {"matrix": [[[1, "read"]], [[1, -1]]]}]},
        {"x": ["SyscallSample", {"matrix": [[[1, "x" * 1025]], [[1, 0]]]}]},
        {"x": ["SyscallSample", {"comms": [[1], ["x" * 1025]]}]},
        {"x": ["SyscallSample", {"sample_every": 0}]},
        {"x": ["PmcSample", {"cpus": [[65536], [[0, 0, 0, 0]]]}]},
        {"x": ["PmcSample", {"sockets": [[0], [2**40]]}]},
        {"x": ["PmcSample", {"events": ["e"] * 101}]},
        {"x": ["Sample", {"cost": [-1]}]},
        {"x": ["Sample", {"notes": ["n" * 9000, "n" * 9000]}]},
    ],
)
def test_numbers_and_texts_out_of_range_are_refused(samples: dict[str, Any]) -> None:
    value = {**BASE, "samples": [list(samples), list(samples.values())]}
    with pytest.raises(CodecError):
        FrameCodec().decode(value)


@pytest.mark.parametrize(
    "field",
    [{"interval": 0.0}, {"interval": 1e-300}, {"interval": 90_000.0}, {"time": 1e12},
     {"mono": -1e10}, {"load": -1.0}, {"host": ["h", "r", "a", 0]}, {"filters": [-1]},
     {"host": ["h", "r", "a", 2**40]}],
)  # fmt: skip
def test_a_frame_out_of_range_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(CodecError):
        FrameCodec().decode({**BASE, **field})


def test_changes_cannot_leave_the_range_that_a_value_has() -> None:
    codec = FrameCodec()
    value = {**BASE, "samples": [["x"], [["SyscallSample", {"matrix": [[[1, "a"]], [[5, 5]]]}]]]}
    frame = codec.decode(value)
    for change in ([-6, 0], [0, -6], [2**64 - 5, 0]):
        more = {"samples": [["x"], [["SyscallSample", {"matrix": [[[1, "a"]], [change]]}]]]}
        with pytest.raises(CodecError):
            codec.decode(more, frame)


@pytest.mark.parametrize("text", [b'{"a":NaN}', b'{"a":Infinity}', b'{"a":1e999}', b"[1,]"])
def test_no_number_is_no_json(text: bytes) -> None:
    with pytest.raises(CodecError):
        bounded_json.decode(text)
    # The way of older recordings, which have half surrogate pairs.
    with pytest.raises(CodecError):
        FrameCodec().decode(bounded_json.decode(b'["\\udcff",' + text + b"]"))


def test_texts_of_older_recordings_become_encodable() -> None:
    decoded = bounded_json.decode(b'{"\\udcff":["a\\ud800","\\ud83d\\ude00","\\\\ud800"]}')
    assert decoded == {"\\xff": ["a\\ud800", "\U0001f600", "\\ud800"]}
    with pytest.raises(CodecError):
        bounded_json.decode(b'["\xed\xa0\x80"]')


def test_a_sample_of_another_probe_is_none_of_this_one() -> None:
    kinds = {entry.name: entry.probe_class() for entry in REGISTRY}
    first, second = make_frames(2)
    wrong = replace(second, samples=dict.fromkeys(kinds, Sample(state="on")))
    for before, after in ((first, wrong), (wrong, second)):
        found = stream_object(before, after, kinds)
        assert found["probes"]["latency"]["state"] == "off"


def test_more_calls_than_a_heatmap_can_count_are_its_most() -> None:
    heat = Heat()
    heat.add(Moment(1.0, 1.0), {"x": {0: 2**64 - 1, 1279: 2**60, 40: -5}})
    low, high = heat.extent("x") or (0, 0)
    rates = heat.rates("x", 0, low, 1, high - low)
    assert [row[0] for row in rates if row[0]] == [float(2**48 - 1)] * 2
