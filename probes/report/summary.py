# SPDX-License-Identifier: Apache-2.0
"""What happened in a run of Frames, as one JSON object: what snapshots hold and `diff` compares.

A summary has `summary` (the version of its shape, 1), `probetop` (that of the program), `host`,
`release`, `arch`, `cpus`, `load`, `begin` and `end` (Unix seconds), `seconds`, `interval`,
`frames`, `filters` with `filters_changed` and, as in a stream object, `notices`, and:

`probes`  by name what a stream object has of it, over the whole span, `mechanisms`, and
          `seconds`, for how long it ran. Long tables end after the rows that count most;
          `others` says by table how many rows are missing and what their numbers add up to.
          System calls have a `matrix` of processes and calls and `untimed`; executions have
          `rows` (a tree: `depth`) and `programs` in the place of events.
          A probe that was attached in bursts has their `duty` as in a stream object; rows of
          which a part is `estimated` from those have its standard `error`.
`series`  rates over time: `time` has the end of each interval, `seconds` its length; by probe
          and name a list as long as those. Intervals are joined when there are many, and those
          much shorter than half a second always.
`heat`    by latency target its calls by time and duration: `time` and `seconds` as above, and
          in `targets` a list of [quarter, calls] for each of them, see `probes.report.timeseries`.

Counts are of the span, rates a second, times nanoseconds; what is not known is None.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

import probes
from probes.core.delta import seconds_between
from probes.core.errors import ProbeError
from probes.core.estimates import duty_object
from probes.core.frame import Frame, Notice
from probes.core.sample import Sample
from probes.report.timeseries import POINT_LIMIT, Point, heat, joined, series
from probes.sums.accumulators import SampleSum, Tick, sum_of
from probes.sums.retention import Left
from probes.sums.summary_limits import LIMITS, TableLimits

if TYPE_CHECKING:
    from probes.probe import Probe

VERSION = 1
SPACING = 0.45
"""Seconds within which cumulative counters are compared once, however many Frames there are."""
MOST_NOTICES = 8
"""Most notices that a summary has: a filter names one process and one cgroup."""
MOST_CELLS = 2_000_000
"""Buckets of durations that the series keep: intervals are joined where there are more."""
Summary = dict[str, Any]


class Summarizer:
    """Takes the Frames of a run, one after the other; its memory does not grow with them.

    The first Frame is where counting begins. One that is older than the one before begins a
    new interval. Of Frames closer than SPACING those are left out whose counters the following
    ones have, too.
    """

    def __init__(self, kinds: Mapping[str, type[Probe]]) -> None:
        """`kinds` are the probes, by name."""
        self.kinds = kinds
        self.first: Frame | None = None
        self.last: Frame | None = None
        self.frames = 0
        self.seconds = 0.0
        self.sums: dict[str, SampleSum] = {n: sum_of(k.sample_type) for n, k in kinds.items()}
        self.points: list[Point] = []
        self._filters_changed = False
        self._ticks = 1
        self._cells = 0
        self._whole: dict[str, tuple[Sample, dict[str, Any], Left]] = {}
        # The Frame up to which counters were added up, and what was taken of those since.
        self._base: Frame | None = None
        self._waiting: dict[str, Tick] = {}

    def add(self, frame: Frame) -> None:
        """Take in one Frame."""
        before, self.last = self.last, frame
        self._whole = {}
        self.first = self.first or frame
        self.frames += 1
        if before is None or frame.mono <= before.mono:
            self._add_up(before)
            self._base = frame
            return
        self._filters_changed |= frame.filters != before.filters
        self.seconds += seconds_between(before, frame)
        if before is not self._base and self._loses(before, frame):
            self._add_up(before)
        for name, total in self.sums.items():
            if total.every:
                tick = self._added(name, before, frame)
                if name in self._waiting:
                    self._waiting[name].add(tick)
                else:
                    self._waiting[name] = tick
        assert self._base is not None
        if frame.mono - self._base.mono >= SPACING:
            self._add_up(frame)

    def _loses(self, before: Frame, frame: Frame) -> bool:
        """Whether counters of the Frame before are not in this one."""
        old, new = before.samples, frame.samples
        return any(
            not total.every and total.loses(old.get(name), new.get(name))
            for name, total in self.sums.items()
        )

    def _add_up(self, frame: Frame | None) -> None:
        """Add up what was counted until this Frame, if there is anything."""
        base, self._base = self._base, frame
        if base is None or frame is None or frame is base:
            return
        values = {
            name: self._waiting.pop(name) if total.every else self._added(name, base, frame)
            for name, total in self.sums.items()
        }
        self._keep(Point(frame.time, seconds_between(base, frame), values))

    def _added(self, name: str, before: Frame, frame: Frame) -> Tick:
        """One probe's interval."""
        tick = Tick(seconds_between(before, frame))
        after = frame.samples.get(name)
        if after is not None and isinstance(after, self.kinds[name].sample_type):
            old = before.samples.get(name)
            self.sums[name].add(old if type(old) is type(after) else None, after, tick)
        return tick

    def _keep(self, point: Point) -> None:
        self._cells += point.cells()
        if self.points and self.points[-1].ticks < self._ticks:
            self.points[-1].add(point)
        else:
            self.points.append(point)
        while len(self.points) > POINT_LIMIT or (self._cells > MOST_CELLS and len(self.points) > 1):
            self._ticks *= 2
            self.points = joined(self.points, 2)
            self._cells = sum([point.cells() for point in self.points])

    def summary(self, limits: TableLimits = LIMITS) -> Summary:
        """All that was taken in, not longer than the limits; needs at least one Frame."""
        first, last = cast(Frame, self.first), cast(Frame, self.last)
        self._add_up(last)
        # Asked again for less, it cuts the same tables shorter.
        if not self._whole:
            self._whole = {name: whole(kind, self.sums[name]) for name, kind in self.kinds.items()}
        filters = last.filters._asdict()
        return {
            "summary": VERSION,
            "probetop": probes.__version__,
            "host": last.host.name,
            "release": last.host.release,
            "arch": last.host.arch,
            "cpus": last.host.cpus,
            "load": last.load,
            "begin": first.time,
            "end": last.time,
            "seconds": self.seconds,
            "interval": last.interval,
            "frames": self.frames,
            "filters": {name: value for name, value in filters.items() if value is not None},
            "filters_changed": self._filters_changed,
            "notices": [_short(notice, limits) for notice in last.notices[:MOST_NOTICES]],
            "probes": {
                name: probe_object(kind, self.sums[name], *self._whole[name], limits)
                for name, kind in self.kinds.items()
            },
            "series": series(self.points, {n: k.sample_type.schema for n, k in self.kinds.items()}),
            "heat": heat(self.points, limits.heats, limits.cells),
        }


def summarize(
    frames: Iterable[Frame], kinds: Mapping[str, type[Probe]], limits: TableLimits = LIMITS
) -> Summary:
    """The summary of these Frames, of which there is at least one."""
    summarizer = Summarizer(kinds)
    for frame in frames:
        summarizer.add(frame)
    return summarizer.summary(limits)


# -- tables -------------------------------------------------------------------------------


def whole(kind: type[Probe], total: SampleSum) -> tuple[Sample, dict[str, Any], Left]:
    """The sum of a probe, its own fields with all rows that tables may show, and the others."""
    sample = total.sample()
    left = {table: dict(numbers) for table, numbers in total.left.items()}
    own = total.finish(sample, kind.contract(None, sample, total.seconds or 1.0), left)
    return sample, own, left


def probe_object(
    kind: type[Probe],
    total: SampleSum,
    sample: Sample,
    own: Mapping[str, Any],
    left: Left,
    limits: TableLimits,
) -> dict[str, Any]:
    """One probe over the span, with its tables cut to the limits; `left` was cut already."""
    ran = total.seconds > 0
    others: dict[str, Any] = {}
    own = dict(own)
    if ran:
        total.cut(own, limits, left, others)
    return {
        "state": sample.state,
        **({"why": sample.why, "fix": sample.fix} if sample.state == "failed" else {}),
        **({"given_up": sample.given_up} if sample.given_up is not None else {}),
        **({"duty": duty_object(sample.duty)} if sample.duty is not None else {}),
        "mechanisms": mechanisms(kind, total, own),
        "seconds": total.seconds if ran else None,
        "lost": sample.lost,
        "cost": sample.cost._asdict(),
        "notes": list(sample.notes),
        **(own if ran else dict.fromkeys(own)),
        "others": others,
    }


def mechanisms(kind: type[Probe], total: SampleSum, own: dict[str, Any]) -> list[str]:
    """How the probe hears of events; empty where that cannot be told on this machine."""
    known = total.mechanisms(own)
    if known is not None:
        return known
    try:
        attach = kind.plan(dict(kind.options)).attach
    except (ProbeError, OSError, KeyError):
        return []
    return list(dict.fromkeys([one.kind for one in attach]))


def _short(notice: Notice, limits: TableLimits) -> dict[str, Any]:
    """A notice with its texts cut: a recording may hold any."""
    fields = notice._asdict().items()
    return {name: v[: limits.text] if isinstance(v, str) else v for name, v in fields}
