# SPDX-License-Identifier: Apache-2.0
"""Other machines with made-up data and links that break when told to, for tests only."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from textual.pilot import Pilot

from probes.core.frame import Frame
from probes.remote.state import LinkState
from tests.pilot.fake import FakeSource
from tui.app.app import ProbetopApp
from tui.app.start import attached_dashboard
from tui.shared.styled_lines import line_text


class FakeRemote(FakeSource):
    """A machine called `name`, reached as `target`, whose Frames come when pushed."""

    def __init__(self, name: str, target: str = "", skip: int = 0) -> None:
        """`skip` Frames went before, so that its data are not those of another."""
        super().__init__(target or f"ssh://{name}")
        self.name = name
        self.link = LinkState()
        self.refused: Callable[[str], None] = lambda line: None
        for _ in range(skip):
            super().frame()

    def frame(self) -> Frame:
        frame = super().frame()
        self.title = self.name
        self.link = LinkState("live", time.monotonic(), None, self.link.received + 1000)
        return replace(frame, host=frame.host._replace(name=self.name))

    def cut(self, seconds: float, why: str = "timed out") -> None:
        """Break the link as if that long ago."""
        self.link = LinkState("lost", time.monotonic() - seconds - 0.5, why, self.link.received)


@asynccontextmanager
async def attached(
    sources: Sequence[FakeRemote], columns: int = 80, rows: int = 24, ticks: int = 3
) -> AsyncIterator[tuple[ProbetopApp, Pilot[int]]]:
    """The dashboard of these machines, with some Frames of each."""
    app = attached_dashboard(sources)
    async with app.run_test(size=(columns, rows)) as pilot:
        await pilot.pause()
        for _ in range(ticks):
            for source in sources:
                source.push()
            await pilot.pause()
        app.controllers.hosts.update_links()
        yield app, pilot


def two() -> list[FakeRemote]:
    """Two machines that do not count the same."""
    return [FakeRemote("web-3"), FakeRemote("db-1", skip=7)]


def hosts(app: ProbetopApp) -> str:
    """The text of the line of hosts."""
    (bar,) = app.dashboard.bars
    return line_text(bar.shown[0]).rstrip()


def cells(app: ProbetopApp) -> dict[str, int]:
    """Cells repainted so far, by widget."""
    board = app.dashboard
    widgets = [board.header, *board.bars, *board.panes, board.footer]
    return {widget.id or "": widget.painted for widget in widgets}
