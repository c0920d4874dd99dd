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
          in `targets` a list of [quarter, calls] for each of them, see `probes.series`.

Counts are of the span, rates a second, times nanoseconds; what is not known is None.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import nsmallest
from typing import Any, NamedTuple, cast

import probes
from probes import hdr
from probes.base import Probe, ProbeError
from probes.estimates import duty_object, estimate_object, with_estimates
from probes.exec_tree import exec_rows
from probes.model import seconds_between
from probes.processes import pid_of
from probes.pruned import KEPT, Left, leave
from probes.samples import ExecSample, Frame, Notice, Sample, SyscallSample
from probes.series import POINT_LIMIT, QUARTER, Point, heat, joined, quarter_bounds, series
from probes.sums import ExecSum, SampleSum, Tick, sum_of

VERSION = 1
FAILED_FIELDS = ("failed_duty", "failed_estimated", "failed_error")
"""What is told of failing executions where those were looked for in bursts."""
SPACING = 0.45
"""Seconds within which cumulative counters are compared once, however many Frames there are."""
MOST_NOTICES = 8
"""Most notices that a summary has: a filter names one process and one cgroup."""
MOST_CELLS = 2_000_000
"""Buckets of durations that the series keep: intervals are joined where there are more."""
Summary = dict[str, Any]


class Limits(NamedTuple):
    """How much of each table a summary has; all that exceeds it is summed up in `others`."""

    calls: int = 500
    processes: int = 200
    matrix: int = 300
    behind: int = 40
    execs: int = 500
    programs: int = 300
    buckets: int = 4000
    heats: int = 12
    cells: int = 3000
    text: int = 300

    def scaled(self, part: float) -> Limits:
        """A part of everything."""
        return Limits(*[max(1, int(limit * part)) for limit in self])


LIMITS = Limits()


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

    def summary(self, limits: Limits = LIMITS) -> Summary:
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
            "series": series(self.points, self.kinds),
            "heat": heat(self.points, limits.heats, limits.cells),
        }


def summarize(
    frames: Iterable[Frame], kinds: Mapping[str, type[Probe]], limits: Limits = LIMITS
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
    own = kind.contract(None, sample, total.seconds or 1.0)
    left = {table: dict(numbers) for table, numbers in total.left.items()}
    if isinstance(total, ExecSum):
        own = _execs(total, sample, own)
    if isinstance(sample, SyscallSample):
        own["matrix"] = _matrix(sample, left)
        if sample.duty is not None:
            own |= estimate_object(sample.estimated_total, sample.duty)
        own["untimed"] = sample.missed if sample.latency is not None else None
    return sample, own, left


def probe_object(
    kind: type[Probe],
    total: SampleSum,
    sample: Sample,
    own: Mapping[str, Any],
    left: Left,
    limits: Limits,
) -> dict[str, Any]:
    """One probe over the span, with its tables cut to the limits; `left` was cut already."""
    ran = total.seconds > 0
    others: dict[str, Any] = {}
    own = dict(own)
    if isinstance(total, ExecSum):
        own["rows"] = _exec_rows(total, limits, others)
    if ran:
        _cut_tables(own, limits, left, others)
    return {
        "state": sample.state,
        **({"why": sample.why, "fix": sample.fix} if sample.state == "failed" else {}),
        **({"given_up": sample.given_up} if sample.given_up is not None else {}),
        **({"duty": duty_object(sample.duty)} if sample.duty is not None else {}),
        "mechanisms": mechanisms(kind, own.get("targets")),
        "seconds": total.seconds if ran else None,
        "lost": sample.lost,
        "cost": sample.cost._asdict(),
        "notes": list(sample.notes),
        **(own if ran else dict.fromkeys(own)),
        "others": others,
    }


def mechanisms(kind: type[Probe], targets: list[dict[str, Any]] | None) -> list[str]:
    """How the probe hears of events; empty where that cannot be told on this machine."""
    if targets is not None:
        found = [target["mechanism"] for target in targets]
        return list(dict.fromkeys([name for name in found if name is not None]))
    try:
        attach = kind.plan(dict(kind.options)).attach
    except (ProbeError, OSError, KeyError):
        return []
    return list(dict.fromkeys([one.kind for one in attach]))


def _matrix(sample: SyscallSample, left: Left) -> list[dict[str, Any]]:
    """Which process made which calls, most calls first; what is behind those is left out."""
    matrix, estimated = (
        with_estimates(sample.matrix, sample.estimated_matrix),
        sample.estimated_matrix,
    )
    keys = nsmallest(KEPT, matrix, key=lambda key: (-matrix[key].n, key))
    if len(keys) < len(matrix):
        first = [matrix[key] for key in keys]
        rest = {
            name: sum([n[at] for n in matrix.values()]) - sum([n[at] for n in first])
            for at, name in enumerate(("count", "errors"))
        }
        known = sum([estimated[key].n for key in keys if key in estimated])
        if more := sum([n.n for n in estimated.values()]) - known:
            rest["estimated"] = more
        leave(left, "matrix", len(matrix) - len(keys), **rest)
    return [
        {
            "pid": pid_of(pid),
            "comm": sample.comms.get(pid, "?"),
            "syscall": name,
            "count": matrix[pid, name].n,
            "errors": matrix[pid, name].errors,
            **estimate_object(estimated.get((pid, name)), sample.duty),
        }
        for pid, name in keys
    ]


def _cut_tables(own: dict[str, Any], limits: Limits, left: Left, others: dict[str, Any]) -> None:
    for table, limit in (
        ("rows", max(limits.calls, limits.execs)),
        ("processes", limits.processes),
        ("matrix", limits.matrix),
        ("programs", limits.programs),
    ):
        if table in own:
            own[table] = _cut(own[table], limit, left.get(table), table, others)
    targets = own.get("targets")
    if targets is None:
        return
    own["targets"] = targets = [dict(target) for target in targets]
    for target in targets:
        rest: dict[str, Any] = {}
        more = left.get(target["spec"])
        target["behind"] = _cut(target["behind"], limits.behind, more, "behind", rest)
        target["others"] = rest.get("behind")
    if sum([len(target["buckets"]) for target in targets]) > limits.buckets:
        for target in targets:
            target["buckets"] = _coarse(target["buckets"])


def _cut(
    rows: list[Any], limit: int, left: Mapping[str, int] | None, table: str, others: dict[str, Any]
) -> list[Any]:
    """The first rows; what the others and those `left` out add up to goes into `others`."""
    rest = rows[limit:]
    if rest or left:
        names = ("count", "errors", "total", "starts", "failed", "task_clock")
        numbers = {
            name: sum([row[name] for row in rest if row.get(name) is not None])
            for name in names
            if rest and name in rest[0]
        }
        if estimated := sum([row.get("estimated", 0) for row in rest]):
            numbers["estimated"] = estimated
        others[table] = {"rows": len(rest), **numbers}
        for name, number in (left or {}).items():
            others[table][name] = others[table].get(name, 0) + number
    return rows[:limit]


def _coarse(buckets: list[list[int]]) -> list[list[int | None]]:
    """Buckets joined to quarters of a power of two."""
    sums: dict[int, int] = {}
    for low, _, n in buckets:
        at = hdr.index(low) // QUARTER
        sums[at] = sums.get(at, 0) + n
    last = hdr.LAST // QUARTER
    ranges = [(at, *quarter_bounds(at), n) for at, n in sorted(sums.items())]
    return [[low, None if at == last else high, n] for at, low, high, n in ranges]


def _exec_rows(total: ExecSum, limits: Limits, others: dict[str, Any]) -> list[dict[str, Any]]:
    """The newest rows, as a tree."""
    rows = list(total.log.rows)[-limits.execs :]
    made = rows[-1].serial if rows else 0
    if made > len(rows):
        others["rows"] = {"rows": made - len(rows)}
    return exec_rows(rows, limits.text, total.names)


def _execs(total: ExecSum, sample: Sample, own: dict[str, Any]) -> dict[str, Any]:
    """The contract's fields with rows and programs in the place of events."""
    programs: list[dict[str, Any]] = [
        {
            "program": name,
            "path": program.path,
            "starts": program.starts,
            "failed": sum(program.failed.values()),
            "errnos": program.failed,
            "nonzero": program.nonzero,
            "killed": program.killed,
            "mean": program.duration / program.ended if program.ended else None,
        }
        for name, program in total.programs.finish().items()
    ]
    programs.sort(key=lambda row: (-row["starts"] - row["failed"], row["program"]))
    return {
        "execs": cast(ExecSample, sample).execs,
        "failed": sum([row["failed"] for row in programs]),
        "exits": cast(ExecSample, sample).exits,
        "dropped": own["dropped"],
        **{name: own[name] for name in FAILED_FIELDS if name in own},
        "rows": [],
        "programs": programs,
    }


def _short(notice: Notice, limits: Limits) -> dict[str, Any]:
    """A notice with its texts cut: a recording may hold any."""
    fields = notice._asdict().items()
    return {name: v[: limits.text] if isinstance(v, str) else v for name, v in fields}
