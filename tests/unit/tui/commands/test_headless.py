# SPDX-License-Identifier: Apache-2.0
"""`stream` and `record` without a screen: what they print, and their status."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from probes.core.errors import ProbeError
from probes.core.frame import Frame, Notice
from probes.core.sample import State
from probes.latency.sample import LatencySample, Target
from probes.recording.file import Reader
from probes.recording.replay import ReplaySource
from tests.unit.probes.recording.test_recording import make_frames, write
from tui.commands import stream_record as headless
from tui.commands.snapshot import snapshot
from tui.settings.validators import UsageError


class Output(io.StringIO):
    """Standard output that breaks after so many lines, as a pipe does."""

    def __init__(self, lines: int, error: type[OSError], target: int) -> None:
        super().__init__()
        self.lines, self.error, self.target = lines, error, target

    def flush(self) -> None:
        if self.getvalue().count("\n") >= self.lines:
            raise self.error(28, "No space left on device")

    def fileno(self) -> int:
        return self.target


def source_of(path: Path, frames: list[Frame], *, loop: bool = False) -> ReplaySource:
    source = ReplaySource(write(path, frames), loop=loop)
    source.set_interval(0.02)
    return source


def started(count: int) -> list[Frame]:
    """Frames of which the first shows probes that are still starting."""
    first, *rest = make_frames(count)
    samples = {name: replace(s, state="starting") for name, s in first.samples.items()}
    return [replace(first, samples=samples), *rest]


def test_stream_prints_full_intervals_only(tmp_path: Path) -> None:
    out, complaints = io.StringIO(), list[str]()
    source = source_of(tmp_path / "a", started(9))
    assert headless.stream(source, out, 3, complaints.append) == 0
    objects = [json.loads(line) for line in out.getvalue().splitlines()]
    # Frame 0 was starting, frame 1 is where counting begins.
    assert [obj["time"] for obj in objects] == [1.7e9 + 2, 1.7e9 + 3, 1.7e9 + 4]
    assert [obj["probes"]["syscalls"]["rows"][0]["count"] for obj in objects] == [99, 99, 99]
    assert [len(obj["probes"]["execs"]["events"]) for obj in objects] == [1, 1, 1]
    assert complaints == []


def test_stream_tells_why_it_ended(tmp_path: Path) -> None:
    out, complaints = io.StringIO(), list[str]()
    source = source_of(tmp_path / "a", make_frames(3))
    assert headless.stream(source, out, None, complaints.append) == 1
    assert out.getvalue().count("\n") == 2
    assert complaints == ["The recording ends after 3 frames."]


def test_stream_tells_of_a_failed_probe_once(tmp_path: Path) -> None:
    frames = [
        replace(
            frame,
            samples={
                **frame.samples,
                "execs": replace(
                    frame.samples["execs"], state="failed", why="no BTF", fix="get it"
                ),
            },
        )
        for frame in make_frames(4)
    ]
    out, complaints = io.StringIO(), list[str]()
    headless.stream(source_of(tmp_path / "a", frames), out, 2, complaints.append)
    assert complaints == ["execs: no BTF; get it"]
    failed = json.loads(out.getvalue().splitlines()[0])["probes"]["execs"]
    assert (failed["state"], failed["why"], failed["fix"]) == ("failed", "no BTF", "get it")


def latencies(frame: Frame, **states: str) -> Frame:
    """The Frame with nothing but targets, in these states."""
    why = {"failed": ("no function of that name", "see probetop -f ?")}
    targets = {
        f"uprobe:/bin/x:{name}": Target(
            spec=f"uprobe:/bin/x:{name}", state=cast(State, state), why=words[0], fix=words[1]
        )
        for name, state in states.items()
        for words in (why.get(state, (None, None)),)
    }
    return replace(frame, samples={"latency": LatencySample(state="on", targets=targets)})


FAILED = "uprobe:/bin/x:nosuch: no function of that name; see probetop -f ?"


@pytest.mark.parametrize(
    ("first", "then", "status", "told"),
    [
        ({"nosuch": "starting"}, {"nosuch": "failed"}, 1, [FAILED]),
        ({"nosuch": "failed", "a": "starting"}, {"nosuch": "failed", "a": "on"}, 0, [FAILED]),
        ({"a": "starting"}, {"a": "on"}, 0, []),
        ({}, {}, 0, []),
    ],
)
def test_a_failed_target_is_told_and_is_in_the_status(
    tmp_path: Path, first: dict[str, str], then: dict[str, str], status: int, told: list[str]
) -> None:
    frames = make_frames(6)
    frames = [latencies(frames[0], **first), *[latencies(f, **then) for f in frames[1:]]]
    out, complaints = io.StringIO(), list[str]()
    source = source_of(tmp_path / "a", frames)
    assert headless.stream(source, out, 2, complaints.append) == status
    assert complaints == told
    # The first interval begins when no target is starting any more.
    begun = 2 if first else 1
    times = [json.loads(line)["time"] for line in out.getvalue().splitlines()]
    assert times == [1.7e9 + begun, 1.7e9 + begun + 1]
    complaints.clear()
    source = source_of(tmp_path / "b", frames)
    assert headless.record(source, str(tmp_path / "c"), 2, complaints.append) == status
    assert complaints[:-1] == told
    complaints.clear()
    source = source_of(tmp_path / "d", frames)
    assert snapshot(source, str(tmp_path / "e.json"), 2, complaints.append) == status
    assert complaints[:-1] == told


def test_what_became_of_a_filter_is_told_once(tmp_path: Path) -> None:
    removed = Notice("cgroup_removed", 1.7e9, cgroup="/a\x1b[2J.service")
    back = removed._replace(kind="cgroup_followed", time=1.7e9 + 1)
    frames = make_frames(6)
    frames[2:4] = [replace(frame, notices=(removed,)) for frame in frames[2:4]]
    frames[4:] = [replace(frame, notices=(back,)) for frame in frames[4:]]
    complaints: list[str] = []
    headless.stream(source_of(tmp_path / "a", frames), io.StringIO(), 4, complaints.append)
    first, second = complaints
    assert re.fullmatch(
        r"cgroup \S+ was removed \d\d:\d\d:\d\d: nothing is counted until it is made again", first
    )
    assert re.fullmatch(r"cgroup \S+ was made again \d\d:\d\d:\d\d, and is counted", second)
    assert all(line.isprintable() for line in complaints)


def test_stream_to_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    complaints: list[str] = []
    source = source_of(tmp_path / "a", make_frames(3), loop=True)
    with open(tmp_path / "out", "wb") as file:
        out = Output(2, BrokenPipeError, file.fileno())
        assert headless.stream(source, out, None, complaints.append) == 0
    assert complaints == []


def test_stream_to_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    source = source_of(tmp_path / "a", make_frames(3), loop=True)
    with open(tmp_path / "out", "wb") as file:
        out = Output(2, OSError, file.fileno())
        with pytest.raises(ProbeError, match="cannot write to standard output: No space left"):
            headless.stream(source, out, None, lambda line: None)


def test_record_writes_what_the_source_shows(tmp_path: Path) -> None:
    frames, complaints = started(9), list[str]()
    path = tmp_path / "copy"
    source = source_of(tmp_path / "a", frames)
    assert headless.record(source, str(path), 3, complaints.append) == 0
    with Reader(path) as reader:
        assert list(reader) == frames[:5]
        assert reader.damage is None
    assert len(complaints) == 1
    assert complaints[0].startswith("5 frames, ")


def test_record_never_overwrites_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_text("precious")
    with pytest.raises(UsageError, match="exists already"):
        headless.check_new(str(path), force=False)
    with pytest.raises(ProbeError, match="exists already"):
        headless.record(source_of(tmp_path / "a", make_frames(3)), str(path), 1, print)
    assert path.read_text() == "precious"
    headless.check_new(str(path), force=True)
    source = source_of(tmp_path / "b", make_frames(3))
    assert headless.record(source, str(path), 1, lambda line: None, force=True) == 0
    with Reader(path) as reader:
        assert len(list(reader)) == 2
    assert not any(thread.name == "replay" for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("number", "frames", "status"),
    [(signal.SIGTERM, 4, 0), (signal.SIGINT, 4, 0), (signal.SIGINT, 1, 130)],
)
def test_signals_end_the_stream_cleanly(
    tmp_path: Path, number: signal.Signals, frames: int, status: int
) -> None:
    class Interrupted(ReplaySource):
        seen = 0

        def shown(self, frame: Frame) -> Frame:
            self.seen += 1
            if self.seen == frames:
                # To the main thread, as from the shell.
                os.kill(os.getpid(), number)
                self._stopped = frames == 1
            return frame

    before = signal.getsignal(number)
    source = Interrupted(write(tmp_path / "a", make_frames(5)), loop=True)
    source.set_interval(0.1)
    out, complaints = io.StringIO(), list[str]()
    assert headless.stream(source, out, None, complaints.append) == status
    assert complaints == []
    assert signal.getsignal(number) == before
    for line in out.getvalue().splitlines():
        json.loads(line)
    assert (status == 0) == (len(out.getvalue()) > 0)
