# SPDX-License-Identifier: Apache-2.0
"""A picture of the dashboard after some Frames, without a terminal."""

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
from tui.shared.theme import Look

SIZE = (120, 40)


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
    look = Look(many=True)
    app = ProbetopApp([Session(_Still(), look, History())], look)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        for frame in frames:
            app.controllers.drawing.show(frame)
        await pilot.pause()
        svg = picture(app)
        app.exit()
    return svg
