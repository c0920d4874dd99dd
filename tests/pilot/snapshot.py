# SPDX-License-Identifier: Apache-2.0
"""Pictures of the screen, compared as SVG text with those kept in snapshots/.

UPDATE_SNAPSHOTS=1 writes them anew; look at them before you commit.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from tui.app.app import ProbetopApp

FOLDER = Path(__file__).parent / "snapshots"


def picture(app: ProbetopApp) -> str:
    """The screen as SVG without what changes from run to run: class ids and the web font."""
    svg = app.export_screenshot(title="probetop", simplify=True)
    svg = re.sub(r"@font-face\s*\{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"terminal-\d+", "terminal", svg)
    return "\n".join([line.rstrip() for line in svg.splitlines()]) + "\n"


def assert_snapshot(app: ProbetopApp, name: str) -> None:
    """Fails when the screen is not the one kept under `name`, or none is kept."""
    path = FOLDER / f"{name}.svg"
    now = picture(app)
    assert "url(http" not in now
    if os.environ.get("UPDATE_SNAPSHOTS") == "1":
        FOLDER.mkdir(exist_ok=True)
        path.write_text(now, encoding="utf-8")
        return
    assert path.exists(), f"no snapshot {path.name}: UPDATE_SNAPSHOTS=1 makes it"
    kept = path.read_text(encoding="utf-8")
    if now != kept:
        was, new = kept.splitlines(), now.splitlines()
        differ = [pair for pair in zip(was, new, strict=False) if pair[0] != pair[1]]
        first = "\n".join([f"- {old}\n+ {line}" for old, line in differ[:5]])
        raise AssertionError(f"the screen is not that of {path.name}:\n{first}")
