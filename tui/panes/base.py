# SPDX-License-Identifier: Apache-2.0
"""The interface of a pane: Frames in, Lines out; no terminal, no Textual, no maps.

A pane receives every Frame (`update`) and its keys, and draws itself into any size (`lines`). The
dashboard adds the title line, the place and the focus.
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
from tui.shared.theme import Theme, graph, nice_ceiling

HISTORY = 600
"""Intervals that a pane keeps for its rate graph."""
STARTING = "starting: being compiled and attached"


class Pane:
    """The base class of all panes; a subclass shows the Sample of the probe called `name`.

    `weight` is the pane's share of a row's width. `finds` is True if the pane takes search results:
    its probe has the option "add", and `select` moves the cursor to the new row. `reading` explains
    the pane's figures in the help.

    The dashboard sets `theme`, `source`, `awaited` and `here` first. `awaited` is the text before
    the first Frame; `here` is True if the Frames come from this machine. `window` is the window
    that the header shows, in seconds; None is one interval.
    """

    name: ClassVar[str] = ""
    weight: ClassVar[int] = 5
    least_rows: ClassVar[int] = 5
    finds: ClassVar[bool] = False
    reading: ClassVar[str] = ""

    def __init__(self) -> None:
        self.theme = Theme()
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
        """Take a Frame, its predecessor, and two Frames whose difference is the window.

        Without `window`, the window is the interval between the first two.
        """
        self.tick(before, after)
        self.show(*(window or (before, after)), seconds_between(before, after))

    def tick(self, before: Frame | None, after: Frame) -> None:
        """Add an interval to the graphs; the Frame itself may never be shown."""

    def show(self, since: Frame | None, after: Frame, passed: float = 0.0) -> None:
        """Compute tables and figures from the difference of two Frames.

        `passed` is the number of seconds since the last shown Frame, 0 for another view of the same
        moment.
        """
        self.sample = after.samples.get(self.name)
        self.waiting = False
        self.interval = after.interval

    @property
    def seconds(self) -> float | None:
        """The seconds that the figures cover; None while there are none."""
        return None

    def over(self) -> str:
        """The seconds that the figures cover, as text, if they differ from the header's window."""
        seconds = self.seconds
        if self.window is None or seconds is None:
            return ""
        if abs(seconds - self.window) <= max(1.5 * self.interval, 0.1 * self.window):
            return ""
        return f"over {fmt_seconds(seconds)} s"

    def reset(self) -> None:
        """Drop all accumulated data: the next Frame does not follow the last one."""
        self.history.clear()

    @property
    def state(self) -> str:
        """The probe's state; "starting" before the first Frame, "off" if it is not in the Frame."""
        if self.waiting:
            return "starting"
        return self.sample.state if self.sample is not None else "off"

    def crumbs(self) -> list[str]:
        """The path of the drill-down, outermost first."""
        return []

    def headline(self) -> list[Span]:
        """The figures in the title line."""
        return []

    def body(self, width: int, height: int, focused: bool) -> list[Line]:
        """The pane's lines while its probe runs."""
        return []

    def lines(self, width: int, height: int, focused: bool = False) -> list[Line]:
        """All lines below the title, at most `height` of them."""
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
        """The pane's own keys that apply now, as (key, action)."""
        return []

    def press(self, key: str) -> bool:
        """Handle one of the pane's own keys; False for any other key. May raise ProbeError."""
        return False

    def options(self) -> list[tuple[str, str]]:
        """The pane's entries in the palette, as (key to press, sentence)."""
        return []

    def move(self, to: str) -> None:
        """Move the cursor: up, down, pageup, pagedown, home or end."""

    @property
    def drills(self) -> bool:
        """True if the row under the cursor can be drilled into."""
        return self.state == "on"

    def enter(self) -> bool:
        """Drill down into the row under the cursor; return False if there is nothing to show."""
        return False

    def back(self) -> bool:
        """Leave one level of the drill-down; return False at the outermost level."""
        return False

    def sort(self, reverse: bool = False) -> None:
        """Sort by the next column, or reverse the order with `reverse`."""

    def set_filter(self, text: str) -> None:
        """Show only rows that contain `text`, ignoring case."""
        self.filter = text

    def select(self, row: str) -> None:
        """Move the cursor to the row of this name, now or as soon as it appears."""

    def selected_pid(self) -> int | None:
        """The process id under the cursor, for kernel filters; None if the row is no process."""
        return None


def failed_lines(sample: Sample, width: int) -> list[Line]:
    """The reason for a probe's failure and its remedy, wrapped."""
    room = max(10, width - 2)
    why = wrap(safe(sample.why or "the probe failed without a reason"), room)
    # A probe that was detached to stay within the budget has not failed.
    style = "warn" if sample.given_up else "error"
    lines: list[Line] = [((" " + line, style),) for line in why]
    if sample.fix:
        lines += [((" " + line, "text"),) for line in wrap(safe(sample.fix), room)]
    return lines


def graph_rows(height: int) -> int:
    """Lines that a rate graph may use in a pane of `height` lines."""
    return 0 if height < 12 else 2 if height < 26 else 3


def rate_graph(
    history: OverTime[float], width: int, rows: int, theme: Theme, interval: float
) -> list[Line]:
    """The newest rates as columns, with the scale on the left; empty if they do not fit.

    Intervals in which the probe was off are empty columns.
    """
    label = 8
    cells = width - label - 1
    if rows <= 0 or cells < 10 or not theme.drawings:
        return []
    values = list(history.values)[-cells:]
    top = nice_ceiling(max((v for v in values if v is not None), default=1.0))
    labels = [""] * rows
    labels[0] = fmt_count(int(top)) + "/s"
    if rows > 1:
        labels[-1] = _span(cells * interval)
    drawn = graph(values, cells, rows, theme.glyphs)
    return [
        ((fit(text, label - 1, right=True) + " ", "dim"), (line, "graph"))
        for text, line in zip(labels, drawn, strict=True)
    ]


def _span(seconds: float) -> str:
    """The age of the graph's left edge, as text."""
    return f"-{seconds:.0f}s" if seconds < 120 else f"-{seconds / 60:.0f}min"
