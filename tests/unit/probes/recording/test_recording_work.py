# SPDX-License-Identifier: Apache-2.0
"""Recordings that are small and dear to read: many changes of a large table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from probes.core.frame import Frame
from probes.core.sample import Counts
from probes.recording import file as recording
from probes.recording import timeline
from probes.recording.file import MAGIC, MOST_CHANGES, Reader
from probes.recording.framing import Encoder
from probes.recording.index import Recording
from probes.recording.timeline import Cursor
from probes.syscalls.sample import SyscallSample
from tests.pilot.fake import FakeSource

ROWS = 2000


def frames(count: int, rows: int) -> Iterator[Frame]:
    """Frames of that many rows, of which one changes each time."""
    first = replace(FakeSource().frame(), samples={})
    matrix = {(number, "a"): Counts(1, 0) for number in range(1, rows + 1)}
    for number in range(count):
        matrix = {**matrix, (1, "a"): Counts(number + 1, 0)}
        samples = {"syscalls": SyscallSample(state="on", matrix=matrix)}
        yield replace(first, mono=1000.0 + number, samples=samples)


def written(path: Path, count: int, rows: int, whole: int) -> str:
    encoder = Encoder(whole)
    records = [encoder.frame(frame) for frame in frames(count, rows)]
    path.write_bytes(MAGIC + b"1\n" + b"".join(records))
    return str(path)


def test_changes_without_a_whole_frame_end_after_some(tmp_path: Path) -> None:
    path = written(tmp_path / "a", MOST_CHANGES + 100, 1, 0)
    reader = Reader(path)
    assert len(list(reader)) == MOST_CHANGES + 1
    assert reader.damage is not None
    shown = Recording(path)
    assert shown.end == MOST_CHANGES + 1
    assert shown.damage is not None


def test_what_a_writer_writes_is_read_to_its_end(tmp_path: Path) -> None:
    reader = Reader(written(tmp_path / "a", 700, 3, 60))
    assert len(list(reader)) == 700
    assert reader.damage is None


def test_copying_rows_over_and_over_ends_a_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "ROWS", 100 * ROWS)
    monkeypatch.setattr(recording, "ROWS_TIMES", 1)
    reader = Reader(written(tmp_path / "a", 400, ROWS, 0))
    read = len(list(reader))
    assert 100 <= read < 200
    assert reader.damage is not None
    assert len(list(reader)) == read, "each iteration counts from zero"


def test_a_jump_copies_only_so_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "MOST_ROWS", 100 * ROWS)
    monkeypatch.setattr(timeline, "MOST_ROWS_TIMES", 1)
    shown = Recording(written(tmp_path / "a", 400, ROWS, 0))
    assert Cursor(shown).frame(50).mono == 1050.0
    last = Cursor(shown).frame(399)
    assert 1100.0 <= last.mono < 1200.0, "the newest that can be had for so much"
    assert shown.unreadable is not None


def test_the_largest_machines_recording_is_within_what_may_be_copied(tmp_path: Path) -> None:
    """All of 60,000 rows in each Frame, one of which changes: most copies for fewest bytes."""
    path = written(tmp_path / "a", 60, 60_000, 60)
    reader = Reader(path)
    assert len(list(reader)) == 60
    assert reader.damage is None
    assert Cursor(Recording(path)).frame(59).mono == 1059.0
