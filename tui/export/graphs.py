# SPDX-License-Identifier: Apache-2.0
"""A summary's graphs as coordinates: lines over time, histograms, heatmaps.

All are drawn into a box of WIDTH by HEIGHT with margins for the axes; the template makes SVG
of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor, log10
from typing import Any, NamedTuple

from probes.core import histogram as hdr
from probes.sums.summary_limits import QUARTER, quarter_bounds
from tui.export.tables import clock
from tui.shared.text import fmt_count, fmt_ns
from tui.shared.theme import nice_ceiling

WIDTH, HEIGHT = 640, 150
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 8, 20
INNER, TALL = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
STEPS = 8
"""Colours of a heatmap: each is for about three times as many calls as the one before."""

Format = Callable[[float | None], str]


class Mark(NamedTuple):
    """A label of an axis: where it is, and its text."""

    at: float
    text: str


class Hit(NamedTuple):
    """A part of a graph that tells its values to who points at it."""

    x: float
    width: float
    title: str


class Stroke(NamedTuple):
    """A line: its name, CSS class and the `d` of an SVG path."""

    name: str
    style: str
    path: str


@dataclass(slots=True)
class Chart:
    """Lines over time."""

    title: str
    strokes: list[Stroke]
    hits: list[Hit]
    ys: list[Mark]
    xs: list[Mark]


@dataclass(slots=True)
class Bar:
    """One range of durations in a histogram."""

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(slots=True)
class Bars:
    """A histogram; `marks` are percentiles, `xs` the axis of durations."""

    title: str
    bars: list[Bar]
    marks: list[Mark]
    xs: list[Mark]
    ys: list[Mark]


class Spot(NamedTuple):
    """A cell of a heatmap, its colour from 1 to STEPS, and its meaning.

    Places are in columns; those of intervals of one length have whole numbers.
    """

    x: str
    y: int
    width: str
    level: int
    title: str


@dataclass(slots=True)
class Heat:
    """Calls by time (columns) and duration (rows, the longest on top)."""

    title: str
    columns: int
    rows: int
    spots: list[Spot]
    ys: list[Mark]
    xs: list[Mark]
    top: str
    bottom: str = field(default="")


def _spread(count: int, wanted: int) -> list[int]:
    """Some of so many places, evenly."""
    step = max(1, -(-count // wanted))
    return list(range(0, count, step))


class Spans(NamedTuple):
    """Where intervals begin and end on an axis of time that is one long."""

    starts: list[float]
    ends: list[float]

    def middle(self, at: int) -> float:
        """The middle of an interval."""
        return (self.starts[at] + self.ends[at]) / 2


def spans(times: Sequence[float], lengths: Sequence[float]) -> Spans:
    """The intervals' places by their ends and lengths in seconds: time without one is a gap.

    Where the clock was set back, the next interval follows at once.
    """
    starts, ends = [], []
    now, last = 0.0, times[0] - lengths[0] if times else 0.0
    for when, length in zip(times, lengths, strict=True):
        now += max(0.0, when - length - last)
        starts.append(now)
        now += length
        ends.append(now)
        last = when
    whole = now or 1.0
    return Spans([start / whole for start in starts], [end / whole for end in ends])


def _times(times: Sequence[float], places: Spans) -> list[Mark]:
    """The clock at some places, evenly over time."""
    out: list[Mark] = []
    for at, when in enumerate(times):
        if not out or places.middle(at) - (out[-1].at - LEFT) / INNER >= 1 / 6:
            out.append(Mark(LEFT + places.middle(at) * INNER, clock(when)))
    return out


class Axis(NamedTuple):
    """An upright axis: the height of a value, and its labels."""

    height: Callable[[float], float]
    marks: list[Mark]


def _label(value: float, fmt: Format) -> str:
    """A number or duration without digits that say nothing: "1M" for "1.00M"."""
    return re.sub(r"\.?0+(?=\D*$)", "", shown) if "." in (shown := fmt(value)) else shown


def _linear(top: float, fmt: Format) -> Axis:
    """From 0 to `top`."""

    def height(value: float) -> float:
        return round(TOP + TALL * (1 - value / top), 1)

    return Axis(height, [Mark(height(n * top), _label(n * top, fmt)) for n in (0, 0.5, 1)])


def _logarithmic(least: float, most: float, fmt: Format) -> Axis:
    """Whole powers of ten around the values."""
    low = 10.0 ** floor(log10(max(1.0, least)))
    decades = max(1, ceil(log10(max(most, 1.0) / low)))

    def height(value: float) -> float:
        return round(TOP + TALL * (1 - log10(max(value, low) / low) / decades), 1)

    steps = range(0, decades + 1, max(1, decades // 3))
    values = [low * 10.0**n for n in steps]
    return Axis(height, [Mark(height(value), _label(value, fmt)) for value in values])


def chart(
    title: str,
    series: Mapping[str, Any],
    lines: Sequence[tuple[str, str, Sequence[float | None]]],
    fmt: Format = fmt_count,
    *,
    log: bool = False,
    top: float | None = None,
) -> Chart | None:
    """Lines (name, CSS class, a value an interval) over the series' time; None without any.

    Where a value is not known the line has a gap. `top` fixes the upper end of the axis.
    """
    known = [value for _, _, values in lines for value in values if value is not None]
    if not known:
        return None
    times, lengths = series["time"], series["seconds"]
    places = spans(times, lengths)
    axis = (
        _logarithmic(min(known), max(known), fmt)
        if log
        else _linear(top or nice_ceiling(max(known)), fmt)
    )
    xs = [round(LEFT + places.middle(at) * INNER, 1) for at in range(len(times))]
    strokes = [Stroke(name, style, _path(xs, ys, axis.height)) for name, style, ys in lines]
    hits = []
    for at, when in enumerate(times):
        words = [f"{name} {fmt(values[at])}" for name, _, values in lines]
        said = f"{clock(when)}, {lengths[at]:g} s: {', '.join(words)}"
        start, end = places.starts[at] * INNER, places.ends[at] * INNER
        hits.append(Hit(round(LEFT + start, 1), round(end - start, 1), said))
    return Chart(title, strokes, hits, axis.marks, _times(times, places))


def _path(xs: Sequence[float], values: Sequence[float | None], y: Callable[[float], float]) -> str:
    """A line with gaps; a value alone between two gaps is a short dash."""
    out: list[str] = []
    pen = False
    for at, (x, value) in enumerate(zip(xs, values, strict=True)):
        if value is None:
            pen = False
            continue
        out.append(f"{'L' if pen else 'M'}{x:g} {y(value):g}")
        alone = not pen and (at + 1 == len(values) or values[at + 1] is None)
        if alone:
            out.append("m-2 0h4")
        pen = True
    return "".join(out)


def _low(quarter: int) -> float:
    return float(quarter_bounds(quarter)[0])


def _scale_marks(low: int, high: int, fmt: Format, most: int) -> list[Mark]:
    """Round durations on an axis of quarters, as many as there is room for."""
    for factors in ((1, 2, 5), (1,)):
        values = [n * 10**power for power in range(14) for n in factors]
        found = [Mark(hdr.index(value) / QUARTER, _label(value, fmt)) for value in values]
        inside = [mark for mark in found if low <= mark.at <= high]
        if len(inside) <= most:
            break
    return [inside[at] for at in _spread(len(inside), most)]


def histogram(target: Mapping[str, Any]) -> Bars | None:
    """The durations of a latency target of the summary; None where it has none."""
    sums: dict[int, int] = {}
    for low, _, n in target["buckets"] or ():
        at = hdr.index(low) // QUARTER
        sums[at] = sums.get(at, 0) + n
    if not sums:
        return None
    fmt: Format = fmt_ns if target["unit"] == "ns" else fmt_count
    first, end = max(0, min(sums) - 2), max(sums) + 3
    each, total, most = INNER / (end - first), sum(sums.values()), max(sums.values())
    bars = []
    for at, n in sorted(sums.items()):
        tall = max(1.0, TALL * n / most)
        low, high = quarter_bounds(at)
        said = f"{fmt(low)} to {fmt(high)}: {n} calls, {100 * n / total:.2g}% of all"
        x = LEFT + (at - first) * each
        bars.append(Bar(round(x, 1), round(TOP + TALL - tall, 1), round(each * 0.9, 1),
                        round(tall, 1), said))  # fmt: skip
    marks = [
        Mark(round(LEFT + (hdr.index(int(target[name])) / QUARTER - first) * each, 1), label)
        for name, label in (("p50", "p50"), ("p99", "p99"))
        if target[name] is not None
    ]
    labels = _scale_marks(first, end, fmt, 12)
    xs = [Mark(round(LEFT + (at - first) * each, 1), label) for at, label in labels]
    ys = [Mark(TOP + TALL, "0"), Mark(TOP, fmt_count(most))]
    return Bars(f"{target['spec']}: calls by duration", bars, marks, xs, ys)


def heatmap(spec: str, unit: str, heat: Mapping[str, Any]) -> Heat | None:
    """A target's heatmap of the summary; None where it has none."""
    columns = heat["targets"].get(spec)
    filled = [quarter for column in columns or () for quarter, _ in column]
    if not columns or not filled:
        return None
    fmt: Format = fmt_ns if unit == "ns" else fmt_count
    low, high = min(filled), max(filled) + 1
    if high - low < 12:
        low, high = max(0, low - (12 - high + low) // 2), max(0, low - (12 - high + low) // 2) + 12
    rates = [
        [(quarter, n / (seconds or 1)) for quarter, n in column]
        for column, seconds in zip(columns, heat["seconds"], strict=True)
    ]
    most = max([rate for column in rates for _, rate in column])
    spots = []
    places, many = spans(heat["time"], heat["seconds"]), len(columns)
    for at, column in enumerate(rates):
        when = clock(heat["time"][at])
        x, end = places.starts[at] * many, places.ends[at] * many
        for quarter, rate in column:
            level = max(1, STEPS - int(-log10(rate / most) * 2))
            said = f"{when} {fmt(_low(quarter))}: {fmt_count(rate)}/s"
            spots.append(Spot(f"{x:.4g}", high - 1 - quarter, f"{end - x:.3g}", level, said))
    tall = TALL / (high - low)
    ys = [
        Mark(round(TOP + (high - at) * tall, 1), label)
        for at, label in _scale_marks(low, high, fmt, 7)
    ]
    return Heat(
        f"{spec}: calls a second by duration, over time",
        len(columns), high - low, spots, ys, _times(heat["time"], places),
        fmt_count(most), fmt_count(most / 10 ** ((STEPS - 1) / 2)),
    )  # fmt: skip
