# SPDX-License-Identifier: Apache-2.0
"""Durations over time: one column per interval, one row per range of durations, colour for calls.

Columns keep their place until the map is full, then all move left by a quarter: a map that scrolled
in each interval would be sent as a whole each time.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from math import ceil, log10
from typing import NamedTuple

from probes.core.frame import Frame
from tui.panes.rates import places
from tui.panes.scale import Scale, quarters
from tui.shared.styled_lines import Line, Span, line_width
from tui.shared.text import fit, fmt_count, fmt_seconds
from tui.shared.theme import Theme

COLUMNS = 240
"""Intervals that are kept for each target."""
CLOCK = 20
"""Columns between two times on the axis."""
LABEL = 5
LEAST_ROWS = 5
_COUNT_BITS = 48
_MOST = (1 << _COUNT_BITS) - 1
_DECADES = 4
"""Decades between the palest and the strongest colour: a factor of ten thousand in calls."""


class Moment(NamedTuple):
    """An interval: its end in Unix seconds and its length in seconds."""

    time: float
    seconds: float


class Heat:
    """Histograms of the last intervals for each target, in quarters of a power of two.

    A column packs each (position, count) pair into 64 bits, in rising order, because a dictionary
    per interval needs too much memory for a hundred targets.
    """

    def __init__(self) -> None:
        self.tick = 0
        self.moments: deque[Moment] = deque(maxlen=COLUMNS)
        self._end: float | None = None
        self._columns: dict[str, deque[array[int]]] = {}

    def clear(self) -> None:
        """Drop all intervals."""
        self.tick = 0
        self.moments.clear()
        self._end = None
        self._columns.clear()

    def gap(self, frame: Frame) -> None:
        """Add an empty column for an interval without a measurement."""
        if self.moments:
            self._leave(frame, sum(places(self._end, frame, 0.0)))
        self._end = frame.mono

    def _leave(self, frame: Frame, columns: int) -> None:
        """Add up to `COLUMNS` empty columns up to the end of the Frame's interval."""
        for back in range(min(columns, COLUMNS) - 1, -1, -1):
            self.tick += 1
            self.moments.append(Moment(frame.time - back * frame.interval, frame.interval))
            for kept in self._columns.values():
                kept.append(array("Q"))

    def add(
        self,
        moment: Moment,
        spent: Mapping[str, Mapping[int, int]],
        frame: Frame | None = None,
    ) -> None:
        """Add an interval's buckets by target, and drop targets without any.

        If the `frame` at its end is late, empty columns come first.
        """
        if frame is not None:
            if self.moments:
                self._leave(frame, sum(places(self._end, frame, 0.0)) - 1)
            self._end = frame.mono
        self.tick += 1
        self.moments.append(moment)
        place = quarters()
        for spec in [spec for spec in self._columns if spec not in spent]:
            del self._columns[spec]
        for spec, buckets in spent.items():
            sums: dict[int, int] = {}
            for bucket, count in buckets.items():
                sums[place[bucket]] = sums.get(place[bucket], 0) + count
            packed = array(
                "Q",
                [at << _COUNT_BITS | min(n, _MOST) for at, n in sorted(sums.items()) if n > 0],
            )
            self._columns.setdefault(spec, deque(maxlen=COLUMNS)).append(packed)

    def extent(self, spec: str) -> tuple[int, int] | None:
        """The lowest position with a count, and the position after the highest."""
        filled = [column for column in self._columns.get(spec, ()) if column]
        if not filled:
            return None
        low = min([column[0] for column in filled]) >> _COUNT_BITS
        high = max([column[-1] for column in filled]) >> _COUNT_BITS
        return low, high + 1

    def window(self, cells: int) -> tuple[int, int]:
        """The ticks to show in `cells` cells: the first, and the one after the last."""
        cells = min(cells, COLUMNS)
        step = max(1, cells // 4)
        return max(0, -(-(self.tick - cells) // step) * step), self.tick

    def rates(self, spec: str, first: int, low: int, step: int, rows: int) -> list[list[float]]:
        """Calls per second by row (the lowest first) and by tick, starting with tick `first`.

        A row covers `step` positions; the first row starts at `low`.
        """
        columns = list(self._columns.get(spec, ()))
        missing = self.tick - first - len(columns)
        shown = columns[max(0, -missing) :]
        out = [[0.0] * (self.tick - first) for _ in range(rows)]
        start = self.tick - len(self.moments)
        moments = list(self.moments)
        for at, column in enumerate(shown, max(0, missing)):
            seconds = moments[first + at - start].seconds
            for packed in column:
                row = ((packed >> _COUNT_BITS) - low) // step
                if 0 <= row < rows:
                    out[row][at] += (packed & _MOST) / seconds
        return out


def level(rate: float, top: float, steps: int) -> int:
    """A rate's step, from 1 to `steps`, on a scale that ends at `top`; 0 for a rate of 0."""
    if rate <= 0:
        return 0
    return max(1, steps - int(-log10(rate / top) * steps / _DECADES))


def ceiling(rates: Sequence[Sequence[float]]) -> float:
    """The smallest power of ten that no rate exceeds, so that the scale seldom changes."""
    most = max([max(row, default=0.0) for row in rates], default=0.0)
    return float(10.0 ** ceil(log10(most) - 1e-9)) if most > 0 else 1.0


def heat_lines(
    heat: Heat, spec: str, scale: Scale, width: int, height: int, theme: Theme
) -> list[Line]:
    """The heatmap in exactly `height` lines: a title with the colour scale, the rows, the axis."""
    cells, rows = width - LABEL - 2, height - 2
    step = -(-(scale.high - scale.low) // rows)
    low = max(0, scale.low - (rows * step - (scale.high - scale.low)) // 2)
    shown = scale._replace(low=low, high=low + rows * step)
    first, end = heat.window(cells)
    rates = heat.rates(spec, first, low, step, rows)
    top = ceiling(rates)
    labels = dict(shown.labels(rows))
    lines: list[Line] = [_title(heat, top, width, theme)]
    for row in range(rows - 1, -1, -1):
        text = labels.get(row, "")
        side = theme.glyphs.notch if text else theme.glyphs.wall
        label = (" " + fit(text, LABEL, right=True), "dim")
        lines.append((label, (side, "dim"), *_cells(rates[row], top, theme)))
    lines.append(((" " * (LABEL + 1), ""), *_time_axis(heat, first, end, cells, theme)))
    return lines


def _cells(rates: Sequence[float], top: float, theme: Theme) -> list[Span]:
    steps = theme.heat
    out: list[Span] = []
    for rate in rates:
        at = level(rate, top, len(steps))
        char, style = steps[at - 1] if at else (" ", "")
        if out and out[-1][1] == style:
            out[-1] = (out[-1][0] + char, style)
        else:
            out.append((char, style))
    return out


def _title(heat: Heat, top: float, width: int, theme: Theme) -> Line:
    seconds = heat.moments[-1].seconds if heat.moments else 1.0
    low = top / 10**_DECADES
    legend: list[Span] = [
        (f"calls/s {low:g} " if low < 1 else f"calls/s {fmt_count(int(low))} ", "dim"),
        *theme.heat,
        (f" {fmt_count(int(top)) if top >= 1 else f'{top:g}'}", "dim"),
    ]
    for words in (f" over time, a column is {fmt_seconds(seconds)} s", " over time", ""):
        gap = width - len(words) - line_width(legend) - 1
        if gap >= 2:
            return ((words, "dim"), (" " * gap, ""), *legend)
    return (("", ""),)


def _time_axis(heat: Heat, first: int, end: int, cells: int, theme: Theme) -> list[Span]:
    """The time axis; its times belong to fixed columns, so it moves only with them."""
    glyphs = theme.glyphs
    axis = [glyphs.rule] * cells
    start = heat.tick - len(heat.moments)
    for tick in range(-(-first // CLOCK) * CLOCK, end, CLOCK):
        when = heat.moments[tick - start].time
        text = glyphs.tick + time.strftime("%H:%M:%S", time.localtime(when))
        at = tick - first
        if at + len(text) <= cells:
            axis[at : at + len(text)] = text
    return [(glyphs.corner, "dim"), ("".join(axis), "dim")]
