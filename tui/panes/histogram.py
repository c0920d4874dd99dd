# SPDX-License-Identifier: Apache-2.0
"""The durations of an interval as columns over a logarithmic axis, with percentile marks."""

from __future__ import annotations

from collections.abc import Sequence

from probes.latency.view import TargetRow
from tui.panes.scale import Scale, spread
from tui.shared.styled_lines import Line, Span
from tui.shared.text import fit
from tui.shared.theme import Theme, graph, nice_ceiling

LABEL = 5
"""Cells for a label on the left of the axis."""
LEAST_ROWS = 5
"""Least lines: two rows of columns, the title, the axis and its labels."""


def histogram_lines(
    row: TargetRow, scale: Scale, title: Sequence[Span], width: int, height: int, theme: Theme
) -> list[Line]:
    """The histogram in exactly `height` lines, including its title."""
    cells, rows = width - LABEL - 2, height - 3
    counts = spread(row.spent.buckets, scale, cells)
    whole = row.spent.n or 1
    shares: list[float | None] = [100 * count / whole for count in counts]
    top = nice_ceiling(max([share or 0.0 for share in shares], default=1.0))
    wall = theme.glyphs.wall
    lines: list[Line] = [tuple(title)]
    for at, drawn in enumerate(graph(shares, cells, rows, theme.glyphs)):
        label = f"{top:g}%" if at == 0 and row.spent.n else ""
        side = theme.glyphs.notch if label else wall
        lines.append((_label(label), (side, "dim"), (drawn, "graph")))
    lines.append((_label(""), *_axis(row, scale, cells, theme)))
    lines.append((_label(""), (" ", ""), *_labels(scale, cells)))
    return lines


def _label(text: str) -> Span:
    return (" " + fit(text, LABEL, right=True), "dim")


def _axis(row: TargetRow, scale: Scale, cells: int, theme: Theme) -> list[Span]:
    """The axis with ticks; each percentile has a mark at its cell and its name behind the mark."""
    glyphs = theme.glyphs
    axis = [(glyphs.rule, "dim")] * cells
    for cell, _ in scale.labels(cells, gap=2):
        axis[cell] = (glyphs.tick, "dim")
    marks = [
        (scale.place(value, cells), name)
        for name, value in (("p50", row.p50), ("p90", row.p90), ("p99", row.p99))
        if value is not None
    ]
    ends = [*[cell for cell, _ in marks], cells][1:]
    for (cell, name), end in zip(marks, ends, strict=True):
        room = end - cell - 1
        text = next((t for t in (name, name[1:]) if len(t) <= room), "")
        axis[cell] = (glyphs.up, "warn")
        axis[cell + 1 : cell + 1 + len(text)] = [(char, "value") for char in text]
    return [(glyphs.corner, "dim"), *axis]


def _labels(scale: Scale, cells: int) -> list[Span]:
    out, at = "", 0
    for cell, text in scale.labels(cells, gap=2):
        start = max(at, min(cell - (len(text) - 1) // 2, cells - len(text)))
        if start + len(text) <= cells:
            out += " " * (start - at) + text
            at = start + len(text)
    return [(out, "dim")]
