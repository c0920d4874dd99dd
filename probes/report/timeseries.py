# SPDX-License-Identifier: Apache-2.0
"""A run over time: what its intervals counted, as rates and as calls by duration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from probes.core import histogram
from probes.core.schema import Line, RatioLine, Schema, SpreadLines
from probes.sums.accumulators import Tick
from probes.sums.summary_limits import QUARTER

POINT_LIMIT = 120
"""Most intervals of a series; where there are more, two become one."""


class Point:
    """One interval of the series, or `ticks` of them.

    `time` is its end in Unix seconds, `seconds` how long it is.
    """

    __slots__ = ("seconds", "ticks", "time", "values")

    def __init__(self, time: float, seconds: float, values: dict[str, Tick]) -> None:
        self.time, self.seconds, self.values, self.ticks = time, seconds, values, 1

    def cells(self) -> int:
        """How many buckets of durations it has, and counts by name."""
        ticks = self.values.values()
        return sum([len(t.counts) + sum(map(len, t.spent.values())) for t in ticks])

    def add(self, other: Point) -> None:
        """Take in the one that follows."""
        for name, tick in other.values.items():
            self.values[name].add(tick)
        self.time, self.ticks = other.time, self.ticks + other.ticks
        self.seconds += other.seconds


def joined(points: Sequence[Point], by: int) -> list[Point]:
    """The points, `by` of them as one each; they are changed."""
    out: list[Point] = []
    for at, point in enumerate(points):
        if at % by:
            out[-1].add(point)
        else:
            out.append(point)
    return out


def _short(value: float | None) -> float | None:
    """Four digits: more would make a file long and say nothing."""
    return None if value is None else float(f"{value:.4g}")


def _rates(points: Sequence[Point], probe: str, name: str) -> list[float | None]:
    out: list[float | None] = []
    for point in points:
        tick = point.values[probe]
        count = tick.counts.get(name)
        seconds = tick.of(name)
        out.append(_short(count / seconds if count is not None and seconds else None))
    return out


def _ratios(points: Sequence[Point], probe: str, line: RatioLine) -> list[float | None]:
    out: list[float | None] = []
    for point in points:
        counts = point.values[probe].counts
        total = sum([counts.get(name, 0.0) for name in line.whole])
        out.append(_short(counts[line.part] / total) if line.part in counts and total else None)
    return out


def series(points: Sequence[Point], schemas: Mapping[str, Schema]) -> dict[str, Any]:
    """The declared lines of each probe, by its name: a value for each interval.

    Where bursts were estimated, `estimated` is the part of the first rate that they are.
    """
    out: dict[str, Any] = {
        "time": [round(point.time, 3) for point in points],
        "seconds": [_short(point.seconds) for point in points],
    }
    for probe, schema in schemas.items():
        lines = schema.all_lines()
        if lines:
            out[probe] = {}
        for line in lines:
            out[probe] |= _values(points, probe, line)
    return out


def _values(points: Sequence[Point], probe: str, line: Line) -> dict[str, Any]:
    """What a line has, by name."""
    if isinstance(line, SpreadLines):
        return {spec: _spread_series(points, probe, spec) for spec in _specs(points, probe)}
    if isinstance(line, RatioLine):
        return {line.name: _ratios(points, probe, line)}
    values = _rates(points, probe, line.name)
    return {line.name: values} if any(values) or not line.optional else {}


def _specs(points: Sequence[Point], probe: str) -> list[str]:
    """All items that ever had calls or durations, in the order of adding."""
    keys = [key for point in points for key in point.values[probe].counts]
    return [key.removeprefix("calls ") for key in dict.fromkeys(keys)]


def _spread_series(points: Sequence[Point], probe: str, spec: str) -> dict[str, list[float | None]]:
    spent = [point.values[probe].spent.get(spec, {}) for point in points]
    return {
        "calls": _rates(points, probe, f"calls {spec}"),
        "p50": [_short(histogram.percentile(buckets, 0.50)) for buckets in spent],
        "p99": [_short(histogram.percentile(buckets, 0.99)) for buckets in spent],
    }


def heat(points: Sequence[Point], most: int, most_cells: int) -> dict[str, Any]:
    """Calls by time and duration, of the items with most calls; intervals are joined to fit."""
    counted: dict[str, int] = {}
    for point in points:
        for tick in point.values.values():
            for spec, buckets in tick.spent.items():
                counted[spec] = counted.get(spec, 0) + sum(buckets.values())
    wanted = sorted(counted, key=lambda spec: -counted[spec])[:most]
    by = 1
    while True:
        groups = [points[at : at + by] for at in range(0, len(points), by)]
        targets = {spec: [_quarters(group, spec) for group in groups] for spec in wanted}
        cells = sum([len(column) for columns in targets.values() for column in columns])
        if cells <= most_cells or len(groups) <= 10:
            break
        by += 1
    return {
        "time": [round(group[-1].time, 3) for group in groups],
        "seconds": [_short(sum([point.seconds for point in group])) for group in groups],
        "targets": {spec: targets[spec] for spec in counted if spec in targets},
    }


def _quarters(points: Sequence[Point], spec: str) -> list[list[int]]:
    sums: dict[int, int] = {}
    for point in points:
        for tick in point.values.values():
            for bucket, n in tick.spent.get(spec, {}).items():
                sums[bucket // QUARTER] = sums.get(bucket // QUARTER, 0) + n
    return [[at, n] for at, n in sorted(sums.items())]
