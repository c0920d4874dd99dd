# SPDX-License-Identifier: Apache-2.0
"""The key that records: what is written, and one line for whatever goes wrong."""

from __future__ import annotations

import resource
import stat
from pathlib import Path

import pytest

from probes.core.frame import Frame
from probes.recording.file import Reader
from tests.pilot.conftest import Run, footer
from tests.pilot.moments import Moments, header


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(path: Path) -> tuple[list[Frame], str | None]:
    with Reader(path) as reader:
        return list(reader), reader.damage


async def test_r_records_every_frame_until_the_second_r(run: Run, tmp_path: Path) -> None:
    moments = Moments()
    async with run(120, 24, ticks=1) as (app, pilot, source):
        await pilot.press("r")
        assert "record to: probetop-web-3-" in footer(app)
        await pilot.press("ctrl+u", *"a.ptrec", "enter")
        assert "recording to a.ptrec; r ends it" in footer(app)
        assert " REC 21 B " in header(app)
        assert stat.S_IMODE((tmp_path / "a.ptrec").stat().st_mode) == 0o600
        await moments.live(app, pilot, source, 3)
        # The past on the screen is none of the file's business, nor is a pause.
        await pilot.press("left")
        await moments.live(app, pilot, source, 2)
        await pilot.press("end", "space")
        await moments.live(app, pilot, source, 1)
        assert "REC" in header(app)
        await pilot.press("space", "r")
        size = (tmp_path / "a.ptrec").stat().st_size
        assert f"6 frames, {size / 1e3:.1f} kB in a.ptrec" in footer(app)
        assert "REC" not in header(app)
        source.push()
    wanted = [frame for tick, frame in moments.frames.items() if tick > 1]
    assert read(tmp_path / "a.ptrec") == (wanted, None)


async def test_a_bad_name_is_one_line_and_can_be_mended(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.ptrec").write_text("precious")
    async with run(120, 24, ticks=1) as (app, pilot, source):
        await pilot.press("r", "ctrl+u", *"a.ptrec", "enter")
        assert "it exists already: choose another name, or remove it first" in footer(app)
        assert "record to: a.ptrec" in footer(app)
        await pilot.press("ctrl+u", *"no/a.ptrec", "enter")
        assert "cannot create no/a.ptrec: No such file or directory" in footer(app)
        await pilot.press("ctrl+u", "enter")
        assert "no file name: type one" in footer(app)
        assert "REC" not in header(app)
        await pilot.press("ctrl+u", *"b.ptrec", "enter")
        frame = source.push()
        await pilot.press("r")
    assert (tmp_path / "a.ptrec").read_text() == "precious"
    assert read(tmp_path / "b.ptrec") == ([frame], None)


async def test_a_full_disk_is_one_line_and_keeps_what_was_written(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.ptrec"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with run(120, 24, ticks=1) as (app, pilot, source):
        await pilot.press("r", "ctrl+u", *"a.ptrec", "enter")
        frames = [source.push(), source.push()]
        # The kernel then writes a part of the record, as a full disk would.
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 30, hard))
        try:
            source.push()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await pilot.pause()
        assert "recording ended: cannot write to a.ptrec: File too large" in footer(app)
        assert "REC" not in header(app)
        source.push()
        await pilot.pause()
        assert app.view.frame is not None
        assert app.view.frame.mono == 1005.0
        await pilot.press("r")
        assert "record to: " in footer(app)
    assert read(path) == (frames, None)
