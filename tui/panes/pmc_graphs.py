# SPDX-License-Identifier: Apache-2.0
"""Two figures over time, for the machine and its busiest processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from probes.core.frame import Frame
from probes.pmc.view import Counters, CpuRow, PmcView
from tui.panes.pmc_columns import fmt_share, fmt_small, metrics
from tui.panes.rates import OverTime
from tui.shared.styled_lines import Line, Span, compose, line_width
from tui.shared.text import fit, fmt_ns
from tui.shared.theme import Theme, graph, nice_ceiling

KEPT = 300
"""Intervals that are kept, more than a graph has cells."""
FOLLOWED = 64
"""Busiest processes whose figures are kept, so that the selected one is usually among them."""
LABEL = 7
SIDE = 80
"""Columns from which the two graphs stand side by side."""


class Figure(NamedTuple):
    """A graph's figure: its name, its format, and the least range of its scale."""

    name: str
    show: Callable[[float | None], str]
    least: float


Pair = tuple[float | None, float | None]


class Moment(NamedTuple):
    """The two figures of one interval, for the machine and by process."""

    machine: Pair
    tasks: Mapping[int, Pair]


def _joined(moments: list[Moment | None]) -> Moment | None:
    """Merge several intervals: a mean would need the counts, so the newest value is used."""
    return next((moment for moment in reversed(moments) if moment is not None), None)


class Past:
    """The past intervals with the same counted events."""

    def __init__(self) -> None:
        self._moments: OverTime[Moment] = OverTime(KEPT, _joined)
        self._kind: tuple[object, ...] = ()

    def clear(self) -> None:
        """Drop all intervals."""
        self._moments.clear()

    def gap(self, frame: Frame) -> None:
        """Add an empty place for an interval without counts."""
        if self._moments.values:
            self._moments.add(frame, None)

    def add(self, frame: Frame, view: PmcView) -> None:
        """Add an interval; a change of the counted events drops the earlier ones."""
        sample = view.sample
        kind: tuple[object, ...] = (sample.event_set, sample.mode, sample.events)
        if not sample.hardware:
            kind = ()  # CPU use and waiting do not depend on the chosen event set
        if kind != self._kind:
            self.clear()
            self._kind = kind
        tasks = {row.number: _pair(row, view) for row in view.processes[:FOLLOWED]}
        self._moments.add(frame, Moment(_pair(view.machine, view), tasks), view.seconds)

    def of(self, pid: int | None, which: int) -> list[float | None]:
        """One of the two figures, for a process or the machine, the oldest first."""
        none: Pair = (None, None)
        pairs = [
            none if m is None else m.machine if pid is None else m.tasks.get(pid, none)
            for m in self._moments.values
        ]
        return [pair[which] for pair in pairs]


def figures(view: PmcView) -> tuple[Figure, Figure]:
    """The two figures of the graphs: IPC and misses, else CPU use and waiting."""
    if not view.sample.hardware:
        return (
            Figure("CPU use", fmt_share, 0.01),
            Figure("run-queue wait a second", fmt_ns, 1000.0),
        )
    found = metrics(view.sample)
    if not found:
        return Figure("IPC", fmt_small, 1.0), Figure("run-queue wait a second", fmt_ns, 1000.0)
    least = 0.01 if found[0].show is fmt_share else 1.0
    return Figure("IPC", fmt_small, 1.0), Figure(found[0].title, found[0].show, least)


def _pair(row: Counters, view: PmcView) -> Pair:
    wait = None if row.wait is None else row.wait / view.seconds
    if not view.sample.hardware:
        if isinstance(row, CpuRow):
            return row.busy, wait
        return row.clock / (1e9 * view.seconds), wait
    found = metrics(view.sample)
    return row.ipc, found[0].value(row, view.seconds) if found else wait


def graphs(
    past: Past,
    view: PmcView,
    who: tuple[str, int | None],
    size: tuple[int, int],
    theme: Theme,
    interval: float,
) -> list[Line]:
    """Both graphs in `size` (columns, lines) cells, stacked if the pane is narrow.

    `who` is the name and process id of the shown process.
    """
    width, height = size
    both = figures(view)
    values = [past.of(who[1], which) for which in (0, 1)]
    if width < SIDE:
        upper = height // 2
        rows = (upper, height - upper)
        return [
            line
            for figure, value, many in zip(both, values, rows, strict=True)
            for line in _one(figure, value, who[0], width, many, theme, interval)
        ]
    half = width // 2
    left = _one(both[0], values[0], who[0], half, height, theme, interval)
    right = _one(both[1], values[1], who[0], width - half, height, theme, interval)
    return [(*compose(one, half, theme.plain), *two) for one, two in zip(left, right, strict=True)]


def _one(
    figure: Figure,
    values: list[float | None],
    who: str,
    width: int,
    height: int,
    theme: Theme,
    interval: float,
) -> list[Line]:
    """One title line and `height` - 1 lines of columns with their scale."""
    now = values[-1] if values else None
    title: list[Span] = [(f" {figure.name} ", "dim"), (f"{figure.show(now):<5}", "value")]
    title.append((" " + who, "dim"))
    rows, cells = height - 1, width - LABEL - 2
    if rows < 1 or cells < 10:
        return [tuple(title)] + [()] * rows
    shown = values[-cells:]
    top = nice_ceiling(max((v for v in shown if v is not None), default=0.0) / figure.least)
    labels = [""] * rows
    labels[0] = figure.show(top * figure.least)
    span = f"-{cells * interval:.0f}s"
    if rows > 1:
        labels[-1] = span
    else:
        title.append((" " * max(1, width - line_width(title) - len(span) - 1) + span, "dim"))
    parts = [None if v is None else v / figure.least for v in shown]
    drawn = graph(parts, cells, rows, theme.glyphs)
    return [
        tuple(title),
        *[
            ((fit(label, LABEL, right=True) + " ", "dim"), (line, "graph"))
            for label, line in zip(labels, drawn, strict=True)
        ],
    ]
