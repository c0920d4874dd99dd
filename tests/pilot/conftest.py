# SPDX-License-Identifier: Apache-2.0
"""A dashboard without a terminal, on made-up data, in a place that is the same everywhere."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from textual.pilot import Pilot

from tests.pilot.fake import FakeSource
from tui.app.app import ProbetopApp
from tui.app.start import dashboard
from tui.shared.styled_lines import line_text

Running = tuple[ProbetopApp, Pilot[int], FakeSource]
Run = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture(autouse=True)
def _same_everywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One time zone, colours, a UTF-8 terminal, and user 0 called root."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("locale.getencoding", lambda: "UTF-8")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def run() -> Run:
    """Starts the dashboard at a size, with some Frames already shown."""

    @asynccontextmanager
    async def start(
        columns: int = 80,
        rows: int = 24,
        ticks: int = 3,
        source: FakeSource | None = None,
        ascii: bool = False,  # noqa: A002
    ) -> AsyncIterator[Running]:
        source = source or FakeSource()
        app = dashboard(source, ascii=ascii)
        async with app.run_test(size=(columns, rows)) as pilot:
            await pilot.pause()
            for _ in range(ticks - 1):
                app.controllers.drawing.show(source.frame())
            source.push()
            await pilot.pause()
            yield app, pilot, source

    return start


def screen(app: ProbetopApp) -> list[str]:
    """The text of the screen, line by line, as the compositor would send it."""
    strips = app.dashboard._compositor.render_strips()
    return [strip.text.rstrip() for strip in strips]


def shown(app: ProbetopApp, pane: str) -> str:
    """The text of one pane."""
    widget = next(w for w in app.dashboard.panes if w.entry.name == pane)
    return "\n".join([line_text(line).rstrip() for line in widget.shown])


def footer(app: ProbetopApp) -> str:
    """The text of the footer."""
    return "\n".join([line_text(line).rstrip() for line in app.dashboard.footer.shown])
