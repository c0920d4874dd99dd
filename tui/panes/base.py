# SPDX-License-Identifier: Apache-2.0
"""What a pane is: Frames in, Lines out. No terminal, no Textual, no maps.

A pane is told of every Frame (`update`) and of keys, and draws itself into any size on
demand (`lines`). The dashboard adds the title line, the place and the focus.
"""

from __future__ import annotations

from typing import ClassVar

from probes.core.delta import seconds_between
from probes.core.frame import Frame
from probes.core.sample import Sample
from probes.source import Source
from tui.panes.rates import OverTime, mean
from tui.shared.styled_lines import Line, Span
from tui.shared.text import fit, fmt_count, fmt_seconds, safe, wrap
from tui.shared.theme import Look, graph, nice_ceiling

HISTORY = 600
"""Ticks of a rate that a pane keeps for its graph."""
STARTING = "starting: being compiled and attached"


class Pane:
    """The base of all panes; a subclass shows the Sample of the probe called `name`.

    `weight` is its share of a row's width. A pane that `finds` takes what the search for
    things to trace adds (option "add" of its probe), and puts the cursor on it (`select`).
    `reading` is for the help: how to read what it shows.
    Attributes `look` and `source` are set by the dashboard before anything else happens, and
    `awaited`, what is said before the first Frame; `here` tells whether it is of this machine;
    `window` are the seconds that the header says rates and percentiles are of, None for one
    interval.
    """

    name: ClassVar[str] = ""
    weight: ClassVar[int] = 5
    least_rows: ClassVar[int] = 5
    finds: ClassVar[bool] = False
    reading: ClassVar[str] = ""

    def __init__(self) -> None:
        self.look = Look()
        self.source: Source | None = None
        self.awaited = STARTING
        self.here = True
        self.sample: Sample | None = None
        self.waiting = True
        self.filter = ""
        self.window: float | None = None
        self.interval = 1.0
        self.history: OverTime[float] = OverTime(HISTORY, mean)

    def update(
        self, before: Frame | None, after: Frame, window: tuple[Frame, Frame] | None = None
    ) -> None:
        """Take in a Frame, the one before it, and two whose difference is the window.

        Without `window`, it is the interval between the first two.
        """
        self.tick(before, after)
        self.show(*(window or (before, after)), seconds_between(before, after))

    def tick(self, before: Frame | None, after: Frame) -> None:
        """Take in an interval of what is drawn over time; the Frame may never be shown."""

    def show(self, since: Frame | None, after: Frame, passed: float = 0.0) -> None:
        """Take in what tables and figures are of: the time between two Frames.

        `passed` are the seconds since what was shown before, 0 for another view of a moment.
        """
        self.sample = after.samples.get(self.name)
        self.waiting = False
        self.interval = after.interval

    @property
    def seconds(self) -> float | None:
        """How long the time is that figures are of; None while there are none."""
        return None

    def over(self) -> str:
        """How long the time is that figures are of, where that is not what the header says."""
        seconds = self.seconds
        if self.window is None or seconds is None:
            return ""
        if abs(seconds - self.window) <= max(1.5 * self.interval, 0.1 * self.window):
            return ""
        return f"over {fmt_seconds(seconds)} s"

    def reset(self) -> None:
        """Forget what was collected: the next Frame does not follow the last."""
        self.history.clear()

    @property
    def state(self) -> str:
        """The probe's state; "starting" until the first Frame, "off" if that has it not."""
        if self.waiting:
            return "starting"
        return self.sample.state if self.sample is not None else "off"

    def crumbs(self) -> list[str]:
        """Where in the drill-down the pane is, outermost first."""
        return []

    def headline(self) -> list[Span]:
        """The figures for the title line."""
        return []

    def body(self, width: int, height: int, focused: bool) -> list[Line]:
        """The pane's lines while its probe runs."""
        return []

    def lines(self, width: int, height: int, focused: bool = False) -> list[Line]:
        """Everything below the title line, at most `height` lines."""
        if height <= 0:
            return []
        if self.state == "failed" and self.sample is not None:
            return failed_lines(self.sample, width)[:height]
        if self.state == "starting":
            return [((f" {self.awaited if self.waiting else STARTING}", "dim"),)]
        if self.state == "off":
            return []
        return self.body(width, height, focused)[:height]

    def hints(self) -> list[tuple[str, str]]:
        """The pane's own keys now, as (key, what it does)."""
        return []

    def press(self, key: str) -> bool:
        """Handle one of the pane's own keys; False if it is none. May raise ProbeError."""
        return False

    def options(self) -> list[tuple[str, str]]:
        """What the palette lists for this pane, as (key to press, sentence)."""
        return []

    def move(self, to: str) -> None:
        """Move the cursor: up, down, pageup, pagedown, home or end."""

    @property
    def drills(self) -> bool:
        """Whether there is anything to drill into now."""
        return self.state == "on"

    def enter(self) -> bool:
        """Drill into what the cursor is on; False if there is nothing to see."""
        return False

    def back(self) -> bool:
        """One step out of the drill-down; False at the outermost."""
        return False

    def sort(self, reverse: bool = False) -> None:
        """Sort by the next column, or with `reverse` the other way round."""

    def set_filter(self, text: str) -> None:
        """Show only rows that contain `text`, whatever its case."""
        self.filter = text

    def select(self, row: str) -> None:
        """Put the cursor on the row of this name, now or when there is one."""

    def selected_pid(self) -> int | None:
        """The process that the cursor is on, for filters in the kernel."""
        return None


def failed_lines(sample: Sample, width: int) -> list[Line]:
    """Why a probe failed and how to mend it, wrapped."""
    room = max(10, width - 2)
    why = wrap(safe(sample.why or "the probe failed and did not say why"), room)
    # What was detached to stay within the budget has not failed.
    style = "warn" if sample.given_up else "error"
    lines: list[Line] = [((" " + line, style),) for line in why]
    if sample.fix:
        lines += [((" " + line, "text"),) for line in wrap(safe(sample.fix), room)]
    return lines


def graph_rows(height: int) -> int:
    """How many rows of a pane of `height` lines a rate graph may take."""
    return 0 if height < 12 else 2 if height < 26 else 3


def rate_graph(
    history: OverTime[float], width: int, rows: int, look: Look, interval: float
) -> list[Line]:
    """The newest rates as columns, with their scale at the left; empty if there is no room.

    An interval in which the probe was off has an empty column.
    """
    label = 8
    cells = width - label - 1
    if rows <= 0 or cells < 10 or not look.drawings:
        return []
    values = list(history.values)[-cells:]
    top = nice_ceiling(max((v for v in values if v is not None), default=1.0))
    labels = [""] * rows
    labels[0] = fmt_count(int(top)) + "/s"
    if rows > 1:
        labels[-1] = _span(cells * interval)
    drawn = graph(values, cells, rows, look.glyphs)
    return [
        ((fit(text, label - 1, right=True) + " ", "dim"), (line, "graph"))
        for text, line in zip(labels, drawn, strict=True)
    ]


def _span(seconds: float) -> str:
    """How long ago the left edge is."""
    return f"-{seconds:.0f}s" if seconds < 120 else f"-{seconds / 60:.0f}min"
