# SPDX-License-Identifier: Apache-2.0
"""The key that exports: its prompt, the file, and one line for whatever goes wrong."""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path

import pytest

from tests.pilot.conftest import Run, footer
from tui.app.app import ProbetopApp


async def written(app: ProbetopApp) -> str:
    """The footer once writing has ended."""
    for _ in range(500):
        text = footer(app)
        if "exporting" not in text and app.dashboard.footer.message is not None:
            return text
        await asyncio.sleep(0.02)
    raise AssertionError(footer(app))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def test_e_writes_the_last_minute_and_the_screen_as_it_is(run: Run, tmp_path: Path) -> None:
    async with run(120, 40, ticks=1) as (app, pilot, source):
        source.push(5)
        await pilot.pause()
        await pilot.press("e")
        assert "export to: probetop-web-3-" in footer(app)
        await pilot.press("enter")
        said = await written(app)
    (path,) = tmp_path.iterdir()
    assert re.fullmatch(r"probetop-web-3-\d{8}-\d{6}\.html", path.name)
    assert path.name in said
    page = path.read_text()
    data = re.findall(r'id="probetop-data">(.*?)</script>', page)[0]
    summary = json.loads(data)
    assert (summary["host"], summary["frames"], summary["seconds"]) == ("web-3", 6, 5)
    assert "data:image/svg+xml;base64," in page


@pytest.mark.parametrize("ending", [".json", ".svg"])
async def test_the_name_says_what_it_is(run: Run, tmp_path: Path, ending: str) -> None:
    async with run(120, 40, ticks=1) as (app, pilot, source):
        source.push(2)
        await pilot.pause()
        await pilot.press("e", "ctrl+u", *f"a{ending}", "enter")
        await written(app)
    content = (tmp_path / f"a{ending}").read_text()
    assert content.startswith("{" if ending == ".json" else "<svg")
    assert ("System" in content) == (ending == ".svg")


async def test_what_is_wrong_with_the_name_is_said_and_can_be_mended(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "a.html").write_text("precious")
    async with run(120, 40, ticks=1) as (app, pilot, source):
        source.push(2)
        await pilot.pause()
        await pilot.press("e", "ctrl+u", *"a.html", "enter")
        assert "it exists already: choose another name" in footer(app)
        await pilot.press("ctrl+u", *"a.pdf", "enter")
        assert "let the name end in .html, .json or .svg" in footer(app)
        await pilot.press("ctrl+u", *"no/a.html", "enter")
        assert "No such file or directory" in footer(app)
        await pilot.press("escape")
        assert "export to" not in footer(app)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]


async def test_a_full_disk_is_one_line_and_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    async with run(120, 40, ticks=1) as (app, pilot, source):
        source.push(2)
        await pilot.pause()
        await pilot.press("e", "ctrl+u", *"a.html")
        monkeypatch.setattr(os, "fsync", full)
        await pilot.press("enter")
        assert "cannot write to a.html: No space left on device" in await written(app)
    assert list(tmp_path.iterdir()) == []
