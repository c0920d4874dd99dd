# SPDX-License-Identifier: Apache-2.0
"""The dashboard's screen as SVG that asks no server for a font."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from textual.app import App

from probes.base import Found
from probes.samples import Filters, Frame
from tui.app.app import ProbetopApp
from tui.shared import theme as looks

SIZE = (120, 40)
FONTS = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace"


def picture(app: App[int]) -> str:
    """The screen as it is now; it contains no address of anything."""
    svg = app.export_screenshot(title="probetop", simplify=True)
    # Behind it are texts that processes chose, which may be like anything in it.
    head, end, body = svg.partition("</style>")
    head = re.sub(r"<!--.*?-->\s*", "", head, flags=re.DOTALL)
    head = re.sub(r"@font-face\s*\{.*?\}\s*", "", head, flags=re.DOTALL)
    head = re.sub(r"font-family:\s*[^;]*;", f"font-family: {FONTS};", head)
    head = re.sub(r"terminal-\d+", "terminal", head)
    body = re.sub(r"(<[^>]*)", _named, body)
    svg = head + end + body
    svg = re.sub(r'x="([\d.]+)"( y="[\d.]+") textLength="([\d.]+)"([^>]*)>([^<]*)', tight, svg)
    return "\n".join([line.rstrip() for line in svg.splitlines()]) + "\n"


def _named(match: re.Match[str]) -> str:
    """A tag with the names that it has in the style."""
    return re.sub(r"terminal-\d+", "terminal", match[1])


def tight(match: re.Match[str]) -> str:
    """One text without the blanks around it, which not every program takes for text."""
    x, y, length, rest, text = match.groups()
    bare = text.replace("&#160;", " ")
    cell = float(length) / len(html.unescape(bare))
    start = float(x) + cell * (len(bare) - len(bare.lstrip(" ")))
    inner = bare.strip(" ")
    length = cell * len(html.unescape(inner))
    shown = inner.replace(" ", "&#160;")
    return f'x="{start:g}"{y} textLength="{length:g}"{rest}>{shown}'


class _Still:
    """A Source that gives nothing and takes nothing: the Frames are shown one by one."""

    live = True
    lifts = False
    title = ""

    def start(self, on_frame: Callable[[Frame], None], on_end: Callable[[str], None]) -> None:
        """Nothing begins."""

    def stop(self) -> None:
        """Nothing ends."""

    def toggle(self, probe: str, on: bool) -> None:
        """Nothing is attached."""

    def set_option(self, probe: str, option: str, value: Any) -> None:
        """Nothing has options."""

    def set_filters(self, filters: Filters) -> None:
        """Nothing is counted."""

    def set_interval(self, seconds: float) -> None:
        """Nothing comes."""

    def lift_budget(self, seconds: float) -> None:
        """Nothing was given up."""

    def search(self, query: str, on_found: Callable[[Sequence[Found]], None]) -> None:
        """Nothing is found."""


def draw(frames: Iterable[Frame], size: tuple[int, int] = SIZE) -> str:
    """The dashboard after these Frames, on a screen of this many columns and rows, in colour."""
    return asyncio.run(_draw(frames, size))


async def _draw(frames: Iterable[Frame], size: tuple[int, int]) -> str:
    app = ProbetopApp(_Still())
    app.look = looks.Look(many=True)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        for frame in frames:
            app.show(frame)
        await pilot.pause()
        svg = picture(app)
        app.exit()
    return svg
