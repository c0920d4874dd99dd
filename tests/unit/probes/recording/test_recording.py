# SPDX-License-Identifier: Apache-2.0
"""Recordings: what was written is read, and no damage does more than cost its own place."""

from __future__ import annotations

import json
import os
import random
import resource
import stat
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probes.core.errors import ProbeError
from probes.core.frame import Frame, Host
from probes.core.limits import CodecError
from probes.core.sample import Counts
from probes.execs.sample import ExecEvent, ExecSample
from probes.recording import index as recorded
from probes.recording.codec import FrameCodec
from probes.recording.file import Reader, Writer
from probes.recording.framing import KEY, KEY_EVERY
from probes.syscalls.sample import SyscallSample
from tests.fuzzing import inputs, long
from tests.unit import strategies as own


def make_frames(count: int) -> list[Frame]:
    """Frames as a machine produces them: counters grow, most entries stay as they are."""
    matrix = {(pid, "read"): Counts(pid, 0) for pid in range(1, 40)}
    frames = []
    for tick in range(count):
        matrix = {**matrix, (tick % 39 + 1, "read"): Counts(100 + tick, tick)}
        event = ExecEvent(
            time=1.7e9 + tick,
            pid=1000 + tick,
            ppid=1,
            uid=0,
            comm="sh",
            parent="init",
            args=("sh", "-c", f"echo {tick}"),
            truncated=False,
            ret=0,
            cgroup="/",
        )
        calls = {"read": Counts(sum(n.n for n in matrix.values()), tick)}
        frames.append(
            Frame(
                time=1.7e9 + tick,
                mono=50.0 + tick,
                interval=1.0,
                host=Host("web-3", "6.18.0", "x86_64", 2),
                load=0.5,
                samples={
                    "syscalls": SyscallSample(state="on", calls=calls, matrix=matrix),
                    "execs": ExecSample(state="on", execs=tick, events=(event,)),
                },
            )
        )
    return frames


def write(path: Path, frames: list[Frame]) -> Path:
    with Writer(path) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def read(path: Path) -> tuple[list[Frame], str | None]:
    with Reader(path) as reader:
        return list(reader), reader.damage


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(own.frames, min_size=1, max_size=4))
def test_decode_is_the_inverse_of_encode(frames: list[Frame]) -> None:
    codec = FrameCodec()
    before: Frame | None = None
    decoded: Frame | None = None
    for frame in frames:
        data = json.loads(json.dumps(codec.encode(frame, before), allow_nan=False))
        decoded = codec.decode(data, decoded)
        assert decoded == frame
        for name, sample in frame.samples.items():
            assert type(decoded.samples[name]) is type(sample)
        before = frame


def test_file_gives_back_every_frame(tmp_path: Path) -> None:
    frames = make_frames(3 * KEY_EVERY + 5)
    decoded, damage = read(write(tmp_path / "a.ptrec", frames))
    assert decoded == frames
    assert damage is None


def test_unchanged_entries_stay_the_same_objects(tmp_path: Path) -> None:
    first, second = read(write(tmp_path / "a.ptrec", make_frames(2)))[0]
    old, new = first.samples["syscalls"], second.samples["syscalls"]
    assert isinstance(old, SyscallSample)
    assert isinstance(new, SyscallSample)
    assert new.matrix[39, "read"] is old.matrix[39, "read"]
    assert new.matrix[2, "read"] == Counts(101, 1)
    assert new.comms is old.comms
    assert second.host is first.host


def test_a_quiet_frame_takes_few_bytes(tmp_path: Path) -> None:
    frame = make_frames(1)[0]
    with Writer(tmp_path / "a") as writer:
        writer.write(frame)
        whole = writer.size
        writer.write(replace(frame, time=frame.time + 1, mono=frame.mono + 1))
        assert 0 < writer.size - whole < 80 < whole


def test_file_is_private_and_never_overwrites(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ptrec", make_frames(1))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kept = path.read_bytes()
    with pytest.raises(ProbeError, match="exists already"):
        Writer(path)
    assert path.read_bytes() == kept
    Writer(path, force=True).close()
    assert path.read_bytes() == b"PROBETOP RECORDING 1\n"


@pytest.mark.parametrize("force", [False, True])
def test_symbolic_links_are_not_followed(tmp_path: Path, force: bool) -> None:
    target = tmp_path / "target"
    link = tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(ProbeError):
        Writer(link, force=force)
    assert not target.exists()
    assert link.is_symlink()


@pytest.mark.parametrize(
    ("path", "why"),
    [("/nowhere/a", "No such file"), ("/dev/null/a", "Not a directory"), ("/tmp\0", "null")],
)
def test_unwritable_paths_are_one_sentence(path: str, why: str) -> None:
    with pytest.raises(ProbeError, match=why) as caught:
        Writer(path)
    assert caught.value.fix
    assert "\n" not in str(caught.value)


def test_a_record_that_does_not_fit_leaves_the_frames_before(tmp_path: Path) -> None:
    frames = make_frames(2)
    path = tmp_path / "a"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Writer(path) as writer:
        writer.write(frames[0])
        size = writer.size
        # The kernel then writes a part of the record, as a full disk would.
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 30, hard))
        try:
            with pytest.raises(ProbeError, match=r"cannot write to .*: File too large"):
                writer.write(frames[1])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.stat().st_size == size
    assert read(path) == (frames[:1], None)


@pytest.mark.parametrize("content", [b"", b"PROBETOP", b"\x7fELF" + bytes(100), b"{}\n"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(ProbeError, match="not a probetop recording"):
        Reader(path)


@pytest.mark.parametrize("version", [b"0", b"2", b"99999999999999999999"])
def test_unknown_version_is_one_line(tmp_path: Path, version: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"PROBETOP RECORDING " + version + b"\nrest")
    with pytest.raises(ProbeError, match="version") as caught:
        Reader(path)
    assert caught.value.fix == "replay it with the version of probetop that wrote it"


def test_unreadable_paths(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, why in (("missing", "No such file"), (".", "not a file"), ("fifo", "not a file")):
        with pytest.raises(ProbeError, match=why):
            Reader(tmp_path / path)
    with pytest.raises(ProbeError, match=r"'.*\\x1b\[2J'"):
        Reader(tmp_path / "\x1b[2J")


def test_cut_off_tail_costs_only_itself(tmp_path: Path) -> None:
    frames = make_frames(5)
    path = write(tmp_path / "a", frames)
    whole = path.read_bytes()
    with Writer(tmp_path / "b") as writer:
        for frame in frames[:4]:
            writer.write(frame)
        last = writer.size
    for size in range(last + 1, len(whole)):
        path.write_bytes(whole[:size])
        assert read(path) == (
            frames[:4],
            f"the recording is damaged in 1 place: {size - last} bytes of it were skipped",
        )
    path.write_bytes(whole[:last])
    assert read(path) == (frames[:4], None)


def test_damage_in_the_middle_resumes_at_a_whole_frame(tmp_path: Path) -> None:
    frames = make_frames(3 * KEY_EVERY)
    path = write(tmp_path / "a", frames)
    data = bytearray(path.read_bytes())
    second = data.index(KEY, data.index(KEY) + 1)
    data[second + 20] ^= 1
    path.write_bytes(data)
    decoded, damage = read(path)
    assert decoded == frames[:KEY_EVERY] + frames[2 * KEY_EVERY :]
    assert damage is not None
    assert "1 place" in damage


def test_changes_are_never_applied_to_another_frame(tmp_path: Path) -> None:
    frames = make_frames(6)
    path = tmp_path / "a"
    ends = []
    with Writer(path) as writer:
        for frame in frames:
            writer.write(frame)
            ends.append(writer.size)
    data = path.read_bytes()
    # A whole record is missing: each of those that follow is sound by itself.
    path.write_bytes(data[: ends[2]] + data[ends[3] :])
    decoded, damage = read(path)
    assert decoded == frames[:3]
    assert damage is not None


@long
@pytest.mark.parametrize("part", range(4))
def test_random_damages_never_raise(tmp_path: Path, part: int) -> None:
    """Thousands of them; several processes share the work."""
    rng, count = random.Random(6 + part), max(1, inputs() // 4)
    frames = make_frames(KEY_EVERY + 6)
    known = {frame.time: frame for frame in frames}
    whole = write(tmp_path / "a", frames).read_bytes()
    path = tmp_path / "b"
    refused = 0
    for _ in range(count):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 1, 3, 30))):
            at = rng.randrange(len(data))
            kind = rng.randrange(4)
            if kind == 0:
                data[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                del data[at : at + rng.randrange(1, 200)]
            elif kind == 2:
                data[at:at] = rng.randbytes(rng.randrange(1, 50))
            else:
                data[at : at + 8] = rng.randbytes(8)
            data = data or bytearray(1)
        path.write_bytes(data)
        try:
            decoded, _damage = read(path)
        except ProbeError:
            refused += 1
        else:
            # The checksum lets nothing through that was not written.
            assert all(frame == known[frame.time] for frame in decoded)
    assert 0 < refused < count // 5


BAD_VALUES: list[object] = [
    None, [], {}, 5, "x", [[[]]], {"time": "now"}, {"time": 1e300}, {"interval": 0},
    {"samples": {}}, {"samples": [["a"], []]}, {"samples": [[], [], [], []]},
    {"samples": [["a"], [["ExecSample", {"events": [["Bomb", {}]]}]]]},
    {"samples": [["a"], [["SyscallSample", {"calls": ["read"]}]]]},
    {"samples": [["a"], [["SyscallSample", {"calls": [["read"], [[1]]]}]]]},
    {"samples": [["a"], [["SyscallSample", {"calls": [["read"], [["1", "2"]]]}]]]},
    {"samples": [["a"], [["SyscallSample", {"state": "burning"}]]]},
    {"samples": [["a"], [["SyscallSample", {"lost": True}]]]},
    {"samples": [["a"], [["SyscallSample", {"lost": 1.5}]]]},
    {"samples": [["a"], [["SyscallSample", {"matrix": [[[1]], [[1, 1]]]}]]]},
]  # fmt: skip


@pytest.mark.parametrize("value", BAD_VALUES, ids=repr)
def test_sound_records_of_a_wrong_shape_are_damage(tmp_path: Path, value: object) -> None:
    good = {"time": 1.0, "mono": 1.0, "interval": 1.0, "host": []}
    codec = FrameCodec()
    assert codec.decode(good) == Frame(time=1.0, mono=1.0, interval=1.0, host=Host())
    bad = {**good, **value} if isinstance(value, dict) and value else value
    if bad != {**good, "interval": 0}:
        with pytest.raises(CodecError):
            codec.decode(bad)
    path = tmp_path / "a"
    payload = zlib.compress(json.dumps(bad).encode())
    header = struct.pack("<4sII", KEY, len(payload), zlib.crc32(payload))
    path.write_bytes(b"PROBETOP RECORDING 1\n" + header + payload)
    decoded, damage = read(path)
    assert decoded == []
    assert damage is not None


@pytest.mark.parametrize("payload", [b"[" * 100_000, b"\xff\xfe", b"9" * 5000, b"NaN"])
def test_hostile_json_is_damage(tmp_path: Path, payload: bytes) -> None:
    path = tmp_path / "a"
    payload = zlib.compress(payload)
    header = struct.pack("<4sII", KEY, len(payload), zlib.crc32(payload))
    path.write_bytes(b"PROBETOP RECORDING 1\n" + header + payload)
    assert read(path)[1] is not None


def test_newer_recordings_lose_only_what_is_unknown() -> None:
    codec = FrameCodec()
    frame = make_frames(1)[0]
    data = codec.encode(frame)
    data["mood"] = "good"
    data["samples"][0].append("weather")
    data["samples"][1].append(["WeatherSample", {"rain": 1}])
    assert codec.decode(data) == frame


@pytest.mark.parametrize("mono", ["1e999", "-1e999", "-1e308", "1e12"])
def test_a_moment_that_no_clock_can_show_is_none(mono: str) -> None:
    assert recorded._mono(zlib.compress(b'{"time":1.0,"mono":%s}' % mono.encode())) is None
