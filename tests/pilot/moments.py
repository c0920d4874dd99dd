# SPDX-License-Identifier: Apache-2.0
"""What the screen showed at each moment, for tests that go back to it."""

from __future__ import annotations

from textual.pilot import Pilot

from probes.core.frame import Frame
from tests.pilot.conftest import screen
from tests.pilot.fake import FakeSource
from tui.app.app import ProbetopApp
from tui.shared.styled_lines import Cell, to_cells

Painted = list[list[Cell]]


def painted(app: ProbetopApp) -> Painted:
    """Every cell of every pane on the screen, with its style."""
    shown = [widget.shown for widget in app.dashboard.panes if widget.display]
    return [to_cells(line) for lines in shown for line in lines]


def header(app: ProbetopApp) -> str:
    """The text of the header."""
    return screen(app)[0]


class Moments:
    """The Frames that were pushed and the cells that were shown for each, by tick from 1."""

    def __init__(self) -> None:
        self.frames: dict[int, Frame] = {}
        self.shown: dict[int, Painted] = {}

    async def live(
        self, app: ProbetopApp, pilot: Pilot[int], source: FakeSource, ticks: int
    ) -> None:
        """Push Frames one by one; the one that is shown already comes first."""
        if app.view.frame is not None and not self.frames:
            self._keep(app, source, app.view.frame)
        for _ in range(ticks):
            frame = source.push()
            # Without a delay: to wait until the process is idle takes longer than to draw.
            await pilot.pause(0)
            self._keep(app, source, frame)

    def _keep(self, app: ProbetopApp, source: FakeSource, frame: Frame) -> None:
        self.frames[source.tick] = frame
        self.shown[source.tick] = painted(app)

    def tick_of(self, app: ProbetopApp) -> int:
        """The tick whose Frame the screen says that it shows."""
        assert app.view.frame is not None
        mono = app.view.frame.mono
        return next(tick for tick, frame in self.frames.items() if frame.mono == mono)
