# SPDX-License-Identifier: Apache-2.0
"""Hostile recordings, links and files: little memory, work in proportion to their size, one line.

Memory is the most that a child process ever had (VmHWM), beside what Python itself needs.
"""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from probes.core.errors import ProbeError
from probes.core.frame import Frame, Host
from probes.core.limits import MOST_ENTRIES, MOST_PACKED, MOST_TEXT, MOST_WEIGHT, CodecError
from probes.core.sample import Counts
from probes.execs.sample import ExecEvent, ExecSample
from probes.recording import bounded_json
from probes.recording.codec import FrameCodec
from probes.recording.file import MAGIC, Reader, Writer
from probes.recording.framing import DELTA, HEADER, KEY, MESSAGE, Decoder, Encoder
from probes.recording.index import Recording
from probes.recording.replay import ReplaySource
from probes.recording.state_size import characters, entries
from probes.recording.timeline import Cursor
from probes.syscalls.sample import SyscallSample
from tests.paths import ROOT
from tests.unit.probes.recording.test_recording import make_frames
from tui.commands.diff import diff
from tui.commands.diff_input import MOST_BYTES, load
from tui.settings.validators import UsageError

BASE = {"time": 1.0, "mono": 1.0, "interval": 1.0, "host": []}


def packed(text: bytes, times: int = 1, end: bytes = b"") -> bytes:
    """The compressed text, so many times, and an end; it is never in memory as a whole."""
    deflater = zlib.compressobj(1)
    parts = [deflater.compress(text) for _ in range(times)]
    return b"".join([*parts, deflater.compress(end), deflater.flush()])


def record(mark: bytes, payload: bytes, seed: int = 0) -> bytes:
    return HEADER.pack(mark, len(payload), zlib.crc32(payload, seed)) + payload


def write(path: Path, *records: bytes) -> Path:
    path.write_bytes(MAGIC + b"1\n" + b"".join(records))
    return path


def chain(values: list[Any]) -> list[bytes]:
    """Records of a whole Frame and of changes, of these encoded values."""
    out, seed = [], 0
    for at, value in enumerate(values):
        payload = bounded_json.deflate(json.dumps(value).encode())
        out.append(record(DELTA if at else KEY, payload, seed))
        seed = zlib.crc32(payload, seed)
    return out


PEAK = """
import sys
from probes.core.limits import CodecError
from probes.core.errors import ProbeError
import tui.commands.diff_input, probes.recording.index, probes.recording.timeline
import probes.recording.framing, probes.recording.file
def memory():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
began, got, refused = memory(), 0, ""
try:
    if sys.argv[1] == "read":
        with probes.recording.file.Reader(sys.argv[2]) as reader:
            for frame in reader:
                got += 1
            refused = reader.damage or ""
    elif sys.argv[1] == "link":
        decoder = probes.recording.framing.Decoder()
        with open(sys.argv[2], "rb") as file:
            file.readline()
            while data := file.read(1 << 16):
                for frame in decoder.feed(data):
                    got += 1
    elif sys.argv[1] == "jump":
        recording = probes.recording.index.Recording(sys.argv[2])
        cursor = probes.recording.timeline.Cursor(recording)
        for number in range(recording.end):
            cursor.frame(number)
            got += 1
        refused = recording.damage or ""
    else:
        tui.commands.diff_input.load(sys.argv[2])
        got = 1
except (CodecError, ProbeError, LookupError) as error:
    refused = str(error)
print(f"{memory() - began}\t{got}\t{refused}")
"""


def peak(how: str, path: Path) -> tuple[int, int, str]:
    """Megabytes that reading a file took at most, how many Frames there were, what was refused."""
    # A limit that only a mistake meets, lest the machine suffers for it.
    done = subprocess.run(
        ["prlimit", "--as=6000000000", sys.executable, "-c", PEAK, how, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    size, got, refused = done.stdout.rstrip("\n").split("\t")
    print(how, int(size) >> 10, "MB", got, refused)
    return int(size) >> 10, int(got), refused


# -- sizes ----------------------------------------------------------------------------------

LITTLE = 300
"""Megabytes: the largest text, twice, while it is put together."""
MOST = 1024
"""Megabytes: what any file can make a reader take, as the documents say."""


@pytest.mark.parametrize("how", ["read", "link", "jump", "diff"])
def test_a_bomb_costs_little_memory(tmp_path: Path, how: str) -> None:
    bomb = packed(b" " * (1 << 20), 600, b"{}")
    assert len(bomb) < 3_000_000
    head = b'{"time":1.0,"mono":1.0,'
    late = packed(head + b" " * (1 << 20), 500)
    path = write(tmp_path / "a", record(KEY, bomb), record(KEY, late))
    size, got, refused = peak(how, path)
    assert (got, size < LITTLE) == (0, True), size
    assert refused


@pytest.mark.parametrize(
    ("text", "times"),
    [(b"[],", 5_000_000), (b"[[[[[[[[[[]]]]]]]]]],", 700_000), (b'{"":0},', 2_000_000)],
)
def test_json_that_takes_much_more_memory_than_text_is_refused(
    tmp_path: Path, text: bytes, times: int
) -> None:
    whole = b"[" + text * times + b"0]"
    assert len(whole) < 20_000_000
    path = write(tmp_path / "a", record(KEY, bounded_json.deflate(whole)))
    size, got, refused = peak("link", path)
    assert "values" in refused
    assert (got, size < LITTLE) == (0, True), size


def test_what_is_just_within_the_limits_fits(tmp_path: Path) -> None:
    """The largest tables, twice: as a whole and replaced by changes."""
    many = 500_000
    keys = [[1, "x"] for _ in range(many)]
    values = [[10**9, 1] for _ in range(many)]
    sample = ["SyscallSample", {"state": "on", "matrix": [keys, values]}]
    samples = {"samples": [["syscalls"], [sample]]}
    path = write(tmp_path / "a", *chain([{**BASE, **samples}, samples, samples]))
    size, got, refused = peak("read", path)
    assert (got, refused) == (3, "")
    assert size < MOST, size


def test_changes_do_not_make_a_frame_grow_for_ever(tmp_path: Path) -> None:
    values: list[Any] = []
    for step in range(MOST_ENTRIES // 100_000 + 4):
        start = 1 + step * 100_000
        keys = [[start if at == 0 else 1, "x"] for at in range(100_000)]
        sample = ["SyscallSample", {"matrix": [keys, [[1, 0]] * 100_000]}]
        values.append({**(BASE if step == 0 else {}), "samples": [["a"], [sample]]})
    path = write(tmp_path / "a", *chain(values))
    size, got, refused = peak("link", path)
    assert got == MOST_ENTRIES // 100_000
    assert "rows" in refused
    assert size < MOST, size


def test_changes_do_not_make_texts_grow_for_ever(tmp_path: Path) -> None:
    values: list[Any] = []
    for step in range(2 * MOST_TEXT // 5_000_000 + 2):
        keys = [1 + step * 5_000, *[1] * 4_999]
        names = [f"{step}{at}".ljust(1000, "x") for at in range(5_000)]
        sample = ["SyscallSample", {"comms": [keys, names]}]
        values.append({**(BASE if step == 0 else {}), "samples": [["a"], [sample]]})
    path = write(tmp_path / "a", *chain(values))
    for how in ("link", "read"):
        size, got, refused = peak(how, path)
        assert MOST_TEXT // 5_000_000 <= got <= 2 * MOST_TEXT // 5_000_000
        assert refused
        assert size < MOST, size


def test_sums_of_made_up_names_stay_small(tmp_path: Path) -> None:
    """Each interval has programs, calls, notes and targets that no other has."""
    values: list[Any] = []
    for step in range(60):
        names = [f"{step}-{at}".ljust(900, "x") for at in range(3000)]
        calls = ["SyscallSample", {"state": "on", "calls": [names, [[step + 1, 0]] * 3000]}]
        events = [
            ["ExecEvent", {"time": 1.0, "pid": at, "ppid": 1, "uid": 0, "comm": "a", "args": None,
                           "parent": "b", "truncated": False, "ret": 0, "cgroup": None,
                           "path": f"/{name}"}]
            for at, name in enumerate(names)
        ]  # fmt: skip
        execs = ["ExecSample", {"state": "on", "events": events}]
        base = {**BASE, "time": 1.0 + step, "mono": 1.0 + step}
        values.append({**base, "samples": [["syscalls", "execs"], [calls, execs]]})
    records = [record(KEY, bounded_json.deflate(json.dumps(value).encode())) for value in values]
    size, got, refused = peak("diff", write(tmp_path / "a", *records))
    assert (got, refused) == (1, "")
    # 180,000 programs and calls with names of 900 characters are 330 MB of text alone.
    assert size < LITTLE, size


def test_a_record_that_says_it_is_too_long_is_refused_at_once() -> None:
    with pytest.raises(CodecError, match="MB"):
        list(Decoder().feed(HEADER.pack(KEY, MOST_PACKED + 1, 0)))
    with pytest.raises(CodecError, match="more than 0 MB"):
        list(Decoder(most=1000).feed(record(MESSAGE, packed(b'{"why":"' + b"x" * 5000 + b'"}'))))


def padded(frame: Frame, blanks: int) -> bytes:
    """A sound record of a Frame, with blanks behind its JSON."""
    text = bounded_json.encode(FrameCodec().encode(frame))
    return record(KEY, zlib.compress(text + b" " * blanks))


def test_sound_records_that_are_packed_too_much_are_refused(tmp_path: Path) -> None:
    """3 MB of them would take as long to read as 3 GB."""
    frames = make_frames(4)
    bombs = [padded(frame, 1 << 20) for frame in frames]
    with pytest.raises(CodecError, match="packed more than 100 times"):
        list(Decoder().feed(bombs[0]))
    path = write(tmp_path / "bombs", *bombs)
    with pytest.raises(UsageError, match=r"no interval to compare; .* damaged in 1 place"):
        diff(str(path), str(path), io.StringIO(), as_json=False, html=None, force=False)
    with pytest.raises(ProbeError, match="cannot replay"):
        ReplaySource(path)
    path = write(tmp_path / "mixed", padded(frames[0], 10), bombs[1], padded(frames[2], 10))
    cursor = Cursor(Recording(path))
    assert [cursor.frame(n).mono for n in range(3)] == [frames[n].mono for n in (0, 0, 2)]


def test_what_repeats_itself_is_written_so_that_it_is_read() -> None:
    text = b"[" + b"0," * 100_000 + b"0]"
    payload = bounded_json.deflate(text)
    assert len(payload) >= len(text) / bounded_json.MOST_TIMES
    assert bounded_json.inflate(payload) == text
    usual = json.dumps(list(range(1000))).encode()
    assert bounded_json.deflate(usual) == zlib.compress(usual, bounded_json.LEVEL)


def test_the_largest_real_frame_fits_with_room() -> None:
    """Every table of this version's probes as full as it gets, in one Frame."""
    calls = [f"call_{at}" for at in range(10)]
    matrix = {(pid, call): Counts(10**12, 10**6) for pid in range(10**6, 10**6 + 6000)
              for call in calls}  # fmt: skip
    events = tuple([
        ExecEvent(time=1.7e9, pid=10**6 + at, ppid=1, uid=0, comm="worker-123456", parent="sh",
                  args=("/usr/bin/env", "x" * 100), truncated=False, ret=0, cgroup="/a/b/c/d")
        for at in range(20_000)
    ])  # fmt: skip
    frame = Frame(
        time=1.7e9, mono=1.0, interval=1.0, host=Host(),
        samples={"syscalls": SyscallSample(matrix=matrix), "execs": ExecSample(events=events)},
    )  # fmt: skip
    text = bounded_json.encode(FrameCodec().encode(frame))
    assert 2 * len(text) < MOST_TEXT
    assert 2 * bounded_json.weight(text) < MOST_WEIGHT
    assert 2 * entries(frame.samples["syscalls"]) < MOST_ENTRIES
    assert 4 * characters(frame) < MOST_TEXT
    assert list(Decoder().feed(Encoder().frame(frame))) == [frame]


def test_a_frame_that_no_reader_would_take_is_written_without_its_oldest_events() -> None:
    event = make_frames(1)[0].samples["execs"].events[0]  # type: ignore[attr-defined]
    chance = random.Random(1)
    events = tuple(
        [replace(event, pid=at, args=(chance.randbytes(2000).hex(),)) for at in range(20_000)]
    )
    first, second = make_frames(2)
    frame = replace(first, samples={"execs": ExecSample(state="on", events=events, dropped=5)})
    encoder, decoder = Encoder(), Decoder()
    (decoded,) = decoder.feed(encoder.frame(frame))
    assert isinstance(decoded, Frame)
    kept = decoded.samples["execs"]
    assert isinstance(kept, ExecSample)
    assert kept.events == events[-10_000:]
    assert kept.dropped == 10_005
    # What follows is told as changes since what was written.
    assert list(decoder.feed(encoder.frame(second))) == [second]


def test_a_frame_that_cannot_be_made_smaller_is_one_sentence(tmp_path: Path) -> None:
    names = dict.fromkeys(range(70000), "x" * 1000)
    frame = replace(make_frames(1)[0], samples={"a": SyscallSample(comms=names)})
    with Writer(tmp_path / "a") as writer, pytest.raises(ProbeError, match="64 MiB") as caught:
        writer.write(frame)
    assert caught.value.fix


# -- ranges ---------------------------------------------------------------------------------


# -- work -----------------------------------------------------------------------------------


def test_fake_marks_cost_work_in_proportion_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that are read in vain: four times as many marks must not be sixteen times the work."""
    taken: list[int] = []
    pread = os.pread

    def counted(fd: int, count: int, offset: int) -> bytes:
        data = pread(fd, count, offset)
        taken.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", counted)
    monkeypatch.setattr("probes.recording.file.WASTE_BYTES", 0)
    costs = []
    for many in (20_000, 80_000):
        marks = HEADER.pack(KEY, many * HEADER.size // 2, 1) * many
        taken.clear()
        with Reader(write(tmp_path / f"{many}", marks)) as reader:
            assert list(reader) == []
            assert reader.damage is not None
        costs.append(sum(taken) / (many * HEADER.size))
    assert max(costs) < 40, costs


def test_a_sparse_file_is_skipped_over(tmp_path: Path) -> None:
    frames = make_frames(2)
    path = tmp_path / "a"
    with Writer(path) as writer:
        for frame in frames:
            writer.write(frame)
        end = writer.size
    os.truncate(path, 1 << 42)
    with Reader(path) as reader:
        assert list(reader) == frames
        assert reader.damage is not None
    with path.open("r+b") as file:
        file.seek(1 << 41)
        file.write(write(tmp_path / "b", *chain([BASE])).read_bytes())
    with Reader(path) as reader:
        assert len(list(reader)) == 3
    assert end < 10_000


# -- files ----------------------------------------------------------------------------------


@pytest.fixture
def odd(tmp_path: Path) -> dict[str, Path]:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", MOST_BYTES * 1000)
    (tmp_path / "link").symlink_to("/dev/zero")
    return {
        "zero": Path("/dev/zero"), "fifo": tmp_path / "fifo", "folder": tmp_path,
        "huge": tmp_path / "huge", "link": tmp_path / "link", "mem": Path("/proc/self/mem"),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["zero", "fifo", "folder", "huge", "link", "mem"])
def test_what_is_no_file_of_ours_is_one_line(
    odd: dict[str, Path], name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    from tui import cli

    path = str(odd[name])
    for arguments in (["diff", path, path], ["replay", path], ["demo", "--config", path]):
        assert cli.main(arguments) == 2
        out, err = capfd.readouterr()
        assert (out, err.count("\n")) == ("", 1)
    with pytest.raises(ProbeError):
        load(path)


def test_a_page_of_a_thousand_beginnings_is_read_once(tmp_path: Path) -> None:
    """A search that starts anew at each of them would take minutes."""
    tag = b'<script type="application/json" id="probetop-data">'
    path = tmp_path / "a.html"
    path.write_bytes(b"<" + tag * (MOST_BYTES // len(tag) - 1))
    with pytest.raises(UsageError, match="not a page"):
        diff(str(path), str(path), sys.stdout, as_json=False, html=None, force=False)
