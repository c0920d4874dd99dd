# SPDX-License-Identifier: Apache-2.0
"""Draws the dashboard after given Frames, without a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from probes.core.frame import Filters, Frame
from probes.recording.history import History
from probes.source import Found
from tui.app.app import ProbetopApp
from tui.export.picture import picture
from tui.sessions.session import Session
from tui.shared.theme import Theme

SIZE = (120, 40)


class _Still:
    """A Source without Frames of its own that ignores all commands."""

    live = True
    lifts = False
    title = ""

    def start(self, on_frame: Callable[[Frame], None], on_end: Callable[[str], None]) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""

    def toggle(self, probe: str, on: bool) -> None:
        """Do nothing."""

    def set_option(self, probe: str, option: str, value: Any) -> None:
        """Do nothing."""

    def set_filters(self, filters: Filters) -> None:
        """Do nothing."""

    def set_interval(self, seconds: float) -> None:
        """Do nothing."""

    def lift_budget(self, seconds: float) -> None:
        """Do nothing."""

    def search(self, query: str, on_found: Callable[[Sequence[Found]], None]) -> None:
        """Find nothing."""


def draw(frames: Iterable[Frame], size: tuple[int, int] = SIZE) -> str:
    """Return the dashboard after these Frames as an SVG picture of `size` (columns, rows) cells."""
    return asyncio.run(_draw(frames, size))


async def _draw(frames: Iterable[Frame], size: tuple[int, int]) -> str:
    theme = Theme(many=True)
    app = ProbetopApp([Session(_Still(), theme, History())], theme)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        for frame in frames:
            app.controllers.drawing.show(frame)
        await pilot.pause()
        svg = picture(app)
        app.exit()
    return svg
