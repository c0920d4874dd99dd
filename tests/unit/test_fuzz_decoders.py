# SPDX-License-Identifier: Apache-2.0
"""Whatever a file or a link holds is refused, or taken by everything behind the decoder."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from probes.core.errors import ProbeError
from probes.core.frame import Frame
from probes.core.limits import CodecError
from probes.core.sample import Duty, Estimate, Estimates, Sample
from probes.execs.sample import ExecSample
from probes.latency.sample import LatencySample
from probes.pmc.bursts import BUSY, CLOCK, IDLE, MIGRATIONS, SWITCHES, WAIT
from probes.pmc.sample import PmcSample
from probes.recording.codec import FrameCodec
from probes.recording.file import MAGIC, Reader
from probes.recording.framing import DELTA, HEADER, KEY, Decoder
from probes.recording.index import Recording
from probes.recording.replay import ReplaySource
from probes.report.stream import dumps, stream_object
from probes.syscalls.sample import SyscallSample
from tests.fuzzing import inputs, long
from tests.pilot.fake import FakeSource
from tests.unit.hostile import hostile_frames
from tests.unit.mutation import mutated
from tui.agent.metrics.collector import Metrics
from tui.commands.comparison import as_object, compare
from tui.commands.diff import as_text
from tui.commands.diff_input import load
from tui.export.html import snapshot_page
from tui.export.write import content, new_summarizer
from tui.panes.base import Pane
from tui.registry import REGISTRY
from tui.sessions.timeline_player import TimelinePlayer
from tui.settings import config_file
from tui.settings.options import resolve
from tui.settings.validators import UsageError
from tui.shared.styled_lines import compose

KINDS = {entry.name: entry.probe_class() for entry in REGISTRY}
PROTOBUF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
)
QUANTITIES = ("cycles", "page-faults", BUSY, CLOCK, IDLE, MIGRATIONS, SWITCHES, WAIT)
"""Of what PMC estimates, some."""
PAGES = 0.02
"""Of so many summaries the page is written: that takes long."""
DATA = '<script type="application/json" id="probetop-data">'


def real_frames() -> list[Frame]:
    """Frames of a made-up machine whose probes all run, and one of hostile names."""
    source = FakeSource()
    source.latency = True
    source.latencies.add("uprobe:libc:free")
    return [source.frame() for _ in range(3)]


def sampled_frames() -> list[Frame]:
    """Frames of a made-up machine whose probes are attached in bursts."""
    return [_sampled(frame, at) for at, frame in enumerate(real_frames())]


def _sampled(frame: Frame, at: int) -> Frame:
    duty = Duty(4 * at, 0.1 * at, 4.0 * at, 0.001 * at, 3 * at)
    one, both = Estimate(90 * at, 70 * at), Estimates(90 * at, 9 * at, 70 * at, 7 * at)
    calls, execs, latency, pmc = (
        frame.samples[name] for name in ("syscalls", "execs", "latency", "pmc")
    )
    assert isinstance(calls, SyscallSample)
    assert isinstance(execs, ExecSample)
    assert isinstance(latency, LatencySample)
    assert isinstance(pmc, PmcSample)
    rows = list(calls.matrix)[:9]
    targets = {
        spec: replace(target, duty=duty, estimated=one, in_bursts=target.histogram)
        for spec, target in latency.targets.items()
    }
    samples: dict[str, Sample] = {
        "syscalls": replace(
            calls, duty=duty, estimated_total=both, estimated_matrix=dict.fromkeys(rows, both),
            estimated={name: both for _, name in rows},
            estimated_errnos={(name, "EAGAIN"): one for _, name in rows},
            estimated_processes={pid: both for pid, _ in rows},
        ),
        "execs": replace(execs, failed_duty=duty, estimated_failed=one),
        "latency": replace(
            latency, targets=targets, estimated_processes={(spec, 7): one for spec in targets},
            estimated_texts={(spec, "text"): one for spec in targets},
        ),
        "pmc": replace(
            pmc, duty=duty,
            estimated={(pid, name): one for pid in pmc.tasks for name in QUANTITIES},
            estimated_cpus={(cpu, name): one for cpu in pmc.cpus for name in QUANTITIES},
            estimated_machine=dict.fromkeys(QUANTITIES, one),
        ),
    }  # fmt: skip
    return replace(frame, samples=samples)


def record(mark: bytes, value: Any, seed: int = 0) -> bytes:
    payload = zlib.compress(json.dumps(value).encode("ascii"), 1)
    return HEADER.pack(mark, len(payload), zlib.crc32(payload, seed)) + payload


ACTIONS: tuple[Callable[[Pane], object], ...] = (
    lambda pane: pane.press("v"),
    lambda pane: pane.enter(),
    lambda pane: pane.enter(),
    lambda pane: pane.back(),
    lambda pane: pane.move("down"),
    lambda pane: pane.move("end"),
    lambda pane: pane.sort(),
    lambda pane: pane.set_filter("e"),
)
"""What a user does in a pane."""


def show(frames: list[Frame], chance: Random) -> None:
    """Draw all panes, as the dashboard does."""
    panes: list[Pane] = [entry.pane_class()() for entry in REGISTRY]
    before: Frame | None = None
    for frame in frames:
        for pane in panes:
            pane.update(before, frame)
            chance.choice(ACTIONS)(pane)
            pane.headline()
            pane.selected_pid()
            width, height = chance.choice(((100, 20), (40, 6), (200, 60)))
            for line in pane.lines(width, height, True):
                assert "\x1b" not in "".join([span[0] for span in compose(line, width)])
        before = frame


def stream(frames: list[Frame], chance: Random) -> None:
    """Print them, as `stream` does."""
    for before, frame in zip([None, *frames], frames, strict=False):
        json.loads(dumps(stream_object(before, frame, KINDS)).encode("utf-8"))


def sum_up(frames: list[Frame], chance: Random) -> None:
    """Write a snapshot of them, as `snapshot` and the export do, and at times the page."""
    summarizer = new_summarizer()
    for frame in frames:
        summarizer.add(frame)
    summary = json.loads(dumps(summarizer.summary()).encode("utf-8"))
    if chance.random() < PAGES:
        snapshot_page(summary, None).encode("utf-8")


def scrape(frames: list[Frame], chance: Random) -> None:
    """Count them, as the agent does, whose probes have Samples of their own class."""
    metrics = Metrics(read=lambda pid: "/")
    for frame in frames:
        if all(type(s) is KINDS[n].sample_type for n, s in frame.samples.items() if n in KINDS):
            metrics.add(frame)
    for accept in ("text/plain", "application/openmetrics-text", PROTOBUF):
        metrics.render(accept)


READERS = (show, show, stream, sum_up, scrape)


def values() -> list[tuple[Any, Any]]:
    """Encoded Frames: each as a whole, and as the changes since the one before."""
    codec, out = FrameCodec(), []
    for frames in (real_frames(), hostile_frames(2), sampled_frames()):
        for old, new in pairwise(frames):
            out.append((plain(codec.encode(old)), plain(codec.encode(new, old))))
    return out


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def check_line(error: ProbeError) -> None:
    assert "\n" not in error.why + error.fix
    assert error.why
    assert error.fix


def mutated_records(chance: Random, pairs: list[tuple[Any, Any]]) -> tuple[bytes, bytes]:
    """A whole Frame and changes, either of them with nothing, something or much of it changed."""
    whole, changes = chance.choice(pairs)
    whole = mutated(whole, chance, chance.choice((0, 1, 1, 2, 5)))
    changes = mutated(changes, chance, chance.choice((0, 1, 1, 2, 5)))
    first = record(KEY, whole)
    return first, record(DELTA, changes, HEADER.unpack(first[: HEADER.size])[2])


PARTS = 4
"""Of the longest test, so that several processes share it."""


@long
@pytest.mark.parametrize("part", range(PARTS))
def test_mutated_frames_are_refused_or_taken_by_every_reader(part: int) -> None:
    chance, pairs, accepted = Random(PARTS + part), values(), 0
    count = max(1, inputs() // PARTS)
    for _ in range(count):
        decoder = Decoder()
        frames: list[Frame] = []
        try:
            for data in mutated_records(chance, pairs):
                frames += [item for item in decoder.feed(data) if isinstance(item, Frame)]
        except CodecError:
            pass
        if frames:
            accepted += 1
            chance.choice(READERS)(frames, chance)
    assert count // 10 < accepted < count


def test_random_json_is_refused() -> None:
    chance, codec = Random(2), FrameCodec()
    base: dict[str, Any] = {"time": 1.0, "mono": 1.0, "interval": 1.0, "host": []}
    for _ in range(inputs()):
        value = {**base, **mutated({"samples": [["x"], [["Sample", {}]]], "load": 1.0}, chance, 3)}
        try:
            frame = codec.decode(value)
        except CodecError:
            continue
        chance.choice(READERS)([frame], chance)


@long
def test_mutated_recordings_are_read_or_refused(tmp_path: Path) -> None:
    chance, pairs = Random(3), values()
    path = tmp_path / "a.ptrec"
    for _ in range(max(1, inputs() // 4)):
        data = bytearray(MAGIC + b"1\n")
        for _ in range(chance.randrange(1, 4)):
            for part in mutated_records(chance, pairs):
                data += part
        for _ in range(chance.choice((0, 0, 1, 3))):
            at = chance.randrange(len(data))
            data[at : at + chance.randrange(9)] = chance.randbytes(chance.randrange(9))
        path.write_bytes(data)
        try:
            with Reader(path) as reader:
                list(reader)
            ReplaySource(path).stop()
            recording = Recording(path)
        except ProbeError as error:
            check_line(error)
            continue
        player = TimelinePlayer(recording, [entry.pane_class()() for entry in REGISTRY])
        try:
            for number in range(recording.end):
                player.go(number)
        except LookupError:
            assert recording.damage
        recording.close()


@long
def test_mutated_snapshots_are_compared_or_refused(tmp_path: Path) -> None:
    chance, path = Random(4), tmp_path / "a.json"
    summarizer = new_summarizer()
    for frame in real_frames():
        summarizer.add(frame)
    whole = json.loads(content(summarizer, ".json", None))
    page = content(summarizer, ".html", None).partition("</script>")[2]
    refused = 0
    count = inputs()
    for _ in range(count):
        text = json.dumps(mutated(whole, chance, chance.choice((1, 2, 5))))
        if chance.random() < 0.3:
            text = f"<!doctype html>{DATA}{text}</script>{page[: chance.randrange(200)]}"
        data = bytearray(text.encode("utf-8", "surrogatepass"))
        if chance.random() < 0.2:
            at = chance.randrange(len(data))
            data[at : at + chance.randrange(9)] = chance.randbytes(chance.randrange(9))
        path.write_bytes(data)
        try:
            run = load(str(path))
        except ProbeError as error:
            check_line(error)
            refused += 1
            continue
        changes = compare(run, run._replace(figures=dict(list(run.figures.items())[::2])))
        dumps(as_object(run, run, changes))
        assert all(line.isprintable() for line in as_text(run, run, changes))
    assert count // 10 < refused < count


@long
def test_mutated_configurations_are_taken_or_refused(tmp_path: Path) -> None:
    chance, path = Random(5), tmp_path / "config.toml"
    lines = (
        "interval = 2", "pid = 1", 'comm = "x"', 'user = "root"', 'cgroup = "/"', "ascii = true",
        'probes = ["syscalls", "execs"]', "latency = true", 'function = ["runq"]', "budget = 2.5",
        'event = ["cycles"]', 'cost = "always"', "sample = 4", "history = 60.0", "no-args = true",
        'run-as = "root"', 'log = "/tmp/x"', 'event-set = "cache"', "user-only = false",
    )  # fmt: skip
    words = (*lines, "[a]", "[[a]]", "a.b.c = 1", "x = {y = 1}", "=", "\x00", "é", "\u202e", "\r")
    odd = (
        "inf", "nan", "-1", "1e400", "9" * 400, f"0x{'f' * 6000}", "[[1]]", '"\\u0000"', '""',
        "1979-05-27", "0x5", "true", "[]", '["\\u202e"]',
    )  # fmt: skip
    for _ in range(inputs()):
        some = [chance.choice(words) for _ in range(chance.randrange(1, 5))]
        some = [
            f"{line.partition('=')[0]} = {chance.choice(odd)}" if chance.random() < 0.3 else line
            for line in some
        ]
        data = bytearray("\n".join(some).encode())
        if chance.random() < 0.3:
            at = chance.randrange(len(data))
            data[at : at + chance.randrange(4)] = chance.randbytes(chance.randrange(4))
        path.write_bytes(data)
        try:
            resolve({}, config_file.load(str(path)), live=True)
        except UsageError as error:
            check_line(error)
