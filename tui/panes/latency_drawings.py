# SPDX-License-Identifier: Apache-2.0
"""The durations of one target as a histogram and a heatmap."""

from __future__ import annotations

from collections.abc import Collection

from tui.panes import heatmap, histogram
from tui.panes.heatmap import Heat, heat_lines
from tui.panes.histogram import histogram_lines
from tui.panes.scale import Scale, settle
from tui.panes.targets import Row, label, why_lines
from tui.shared.styled_lines import Line, Span, compose
from tui.shared.text import fmt_count, fmt_seconds, safe, shorten, wrap
from tui.shared.theme import Theme

PAIR = 72
"""Columns from which a histogram and a heatmap stand side by side."""


class Drawings:
    """Draws one target at a time; `heat` holds the intervals of all targets."""

    def __init__(self) -> None:
        self.heat = Heat()
        self._scales: dict[str, Scale] = {}

    def keep(self, specs: Collection[str]) -> None:
        """Drop the axes of all other targets."""
        self._scales = {spec: scale for spec, scale in self._scales.items() if spec in specs}

    def clear(self) -> None:
        """Drop all intervals and axes."""
        self.heat.clear()
        self._scales.clear()

    def lines(self, row: Row, shows: str, size: tuple[int, int], theme: Theme) -> list[Line]:
        """The drawings of a target in (columns, lines).

        `shows` is "histogram", "heatmap", or "both" if both fit.
        """
        width, height = size
        scale = self._scale(row, height)
        if scale is None:
            return _instead(row, width, height)
        if shows == "histogram":
            return _histogram(row, scale, size, theme)
        if shows == "heatmap":
            return self._heatmap(row, scale, size, theme)
        if height >= (18 if width < 2 * PAIR else 26):
            upper = height * 2 // 5
            lines = _histogram(row, scale, (width, upper), theme)
            return lines + self._heatmap(row, scale, (width, height - upper), theme)
        if width < PAIR:
            return _histogram(row, scale, size, theme)
        half = width // 2
        left = _histogram(row, scale, (half, height), theme)
        right = self._heatmap(row, scale, (width - half, height), theme)
        return [(*compose(a, half, theme.plain), *b) for a, b in zip(left, right, strict=True)]

    def _scale(self, row: Row, height: int) -> Scale | None:
        """The axis of durations; None if there is nothing to draw or it does not fit."""
        target = row.target.target
        extent = self.heat.extent(row.spec)
        if height < histogram.LEAST_ROWS or extent is None:
            return None
        if target.state != "on" or target.counts_only:
            return None
        scale = settle(self._scales.get(row.spec), *extent, unit=target.unit)
        self._scales[row.spec] = scale
        return scale

    def _heatmap(self, row: Row, scale: Scale, size: tuple[int, int], theme: Theme) -> list[Line]:
        width, height = size
        if height < heatmap.LEAST_ROWS:
            return [()] * height
        return heat_lines(self.heat, row.spec, scale, width, height, theme)


def _instead(row: Row, width: int, height: int) -> list[Line]:
    """The text that says why there is nothing to draw."""
    target = row.target.target
    if target.state == "failed" or height < histogram.LEAST_ROWS:
        return [(), *why_lines(row, width)]
    why = "only counted: a single event has no duration; join two by a comma"
    state = {"starting": "starting: being attached", "off": "off"}.get(target.state)
    if state is None and target.counts_only and target.why:
        return [(), *why_lines(row, width)]
    said = state or (why if target.counts_only else "no call has ended yet")
    return [(), *[((" " + line, "dim"),) for line in wrap(said, max(10, width - 2))]]


def _histogram(row: Row, scale: Scale, size: tuple[int, int], theme: Theme) -> list[Line]:
    width, height = size
    spec = shorten(safe(label(row.spec)), max(12, width // 2), theme.glyphs.more)
    calls = "call" if row.target.count == 1 else "calls"
    mark = "~" if row.target.estimated else ""
    title: list[Span] = [
        (f" {spec}  ", "name"),
        (f"{mark}{fmt_count(row.target.count)} {calls} in {fmt_seconds(row.seconds)} s", "dim"),
    ]
    return histogram_lines(row.target, scale, title, width, height, theme)


def side_by_side(
    left: list[Line], right: list[Line], cells: int, height: int, theme: Theme
) -> list[Line]:
    """Join two blocks side by side, the left one `cells` wide, with a rule between them."""
    wall = (theme.glyphs.wall, "rule")
    left = left + [()] * (height - len(left))
    right = right + [()] * (height - len(right))
    return [
        (*compose(one, cells, theme.plain), wall, *two)
        for one, two in zip(left, right, strict=True)
    ]
