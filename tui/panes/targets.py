# SPDX-License-Identifier: Apache-2.0
"""The rows and columns of the latency pane: targets and the processes behind a target."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from probes.core.estimates import factor
from probes.core.sample import Duty
from probes.latency.view import SpentRow, TargetRow
from tui.panes.table import Column
from tui.shared.styled_lines import Line, Span
from tui.shared.text import (
    UNKNOWN,
    at_most,
    fmt_count,
    fmt_ns,
    fmt_percent,
    fmt_within,
    safe,
    width,
    wrap,
)

NEAR = 2.0
"""A duration below this factor of the probe's own overhead is mostly overhead."""
LONGEST = 64
READABLE = 36
"""Cells that a target's name gets before less important columns."""
BAR = 16


@dataclass(frozen=True, slots=True)
class Row:
    """A target in the interval; `removing` is True after its removal was requested."""

    target: TargetRow
    seconds: float
    removing: bool = False

    @property
    def spec(self) -> str:
        """The target as the user wrote it."""
        return self.target.target.spec

    @property
    def is_value(self) -> bool:
        """True if the target measures an argument or field instead of durations."""
        return not self.target.target.unit

    def amount(self, value: float | None) -> str:
        """A duration or a value, as text."""
        if not self.is_value:
            return fmt_ns(value)
        return fmt_count(None if value is None else round(value))

    @property
    def floor(self) -> float:
        """The probe's own overhead in ns; shorter durations are mostly overhead."""
        return NEAR * (self.target.target.floor or 0.0)

    @property
    def is_near(self) -> bool:
        """True if half of the calls are near the overhead."""
        return self.target.p50 is not None and self.target.p50 < self.floor

    @property
    def rate(self) -> float | None:
        """Calls per second."""
        return None if self.target.count is None else self.target.count / self.seconds

    @property
    def missed(self) -> float:
        """Calls without a duration, per second."""
        return (self.target.missed + self.target.overflow) / self.seconds


@dataclass(frozen=True, slots=True)
class Behind:
    """A process or text behind a target, in rates per second; `share` is of time or calls."""

    process: SpentRow
    seconds: float
    share: float | None
    is_value: bool = False
    duty: Duty | None = None

    @property
    def key(self) -> int | str:
        """The row's identity within its target."""
        return self.process.comm if self.process.number is None else self.process.number

    def amount(self, value: float | None) -> str:
        """A duration or a value, as text."""
        if not self.is_value:
            return fmt_ns(value)
        return fmt_count(None if value is None else round(value))


def label(spec: str) -> str:
    """A target's label; the common part of a pair's two ends appears once."""
    start, comma, end = spec.partition(",")
    kind, _, name = start.rpartition(":")
    shared = kind + ":"
    return f"{shared}{name},{end.removeprefix(shared)}" if comma and name else spec


def mechanism(row: Row) -> str:
    """The mechanism of a target, and the number of its functions."""
    target = row.target.target
    many = f" x{target.functions}" if target.functions > 1 else ""
    return (target.mechanism or "") + many


def instead(row: Row) -> Span | None:
    """The text in place of the numbers while a target has none."""
    target = row.target.target
    if row.removing:
        return ("removing", "dim")
    if target.state == "failed":
        fix = f": {target.fix}" if target.fix else ""
        if target.given_up:
            return (f"{target.why}{fix}", "warn")
        return (f"failed: {target.why or 'no reason given'}{fix}", "error")
    if target.state == "starting":
        return ("starting", "dim")
    return None


def changed(row: Row) -> bool:
    """True if the target's path names another file than the traced one."""
    return row.target.target.file in ("replaced", "deleted")


def file_notes(row: Row | None, acts: bool) -> list[Line]:
    """Notes on a changed file; with `acts`, they name the key that follows it."""
    if row is None or not changed(row):
        return []
    text = " file deleted: processes that run it are still traced"
    if row.target.target.file == "replaced":
        text = f" file replaced: new processes run another{'; a follows it' if acts else ''}"
    return [((text, "warn"),)]


def partly_timed(row: Row | None) -> list[Line]:
    """The unmeasured part of a target: functions of a wildcard, or calls longer than a burst."""
    if row is None or row.target.target.state != "on":
        return []
    if row.target.target.counts_only and row.target.target.duty is None:
        return []
    why = row.target.target.why
    return [((f" {safe(why)}", "warn"),)] if why else []


def why_lines(row: Row, cells: int) -> list[Line]:
    """The reason why a target failed or is only counted, and its remedy, wrapped; else empty."""
    target = row.target.target
    failed = target.state == "failed"
    if not failed and not target.why:
        return []
    room = max(10, cells - 2)
    why = wrap(safe(target.why or "no reason given"), room)
    fix = wrap(safe(target.fix), room) if target.fix else []
    style = "error" if failed and not target.given_up else "warn"
    return [*[((" " + line, style),) for line in why], *[((" " + line, "text"),) for line in fix]]


def _duration(name: str, field: str, drop: int = 0) -> Column[Row]:
    def value(row: Row) -> float | None:
        found: float | None = getattr(row.target, field)
        return found

    return Column(name, 6, lambda row: _amount(row, value(row)), value, drop=drop)


def _amount(row: Row, found: float | None) -> tuple[str, str]:
    """A duration or a value; a tilde marks one that is mostly the probes' own overhead."""
    if found is not None and found < row.floor:
        return ("~" + row.amount(found), "dim")
    return (row.amount(found), "dim" if found is None else "text")


def _maximum(rows: Iterable[Row]) -> Column[Row]:
    """The longest duration; an upper bound is wider."""

    def cell(row: Row) -> Span:
        text, style = _amount(row, row.target.maximum)
        if row.target.duty is not None and text != UNKNOWN:
            return (f">={text}", style)  # of the calls within bursts
        return (at_most(text, row.target.exact), style)

    bounds = any(row.target.exact is False for row in rows)
    return Column("max", 8 if bounds else 6, cell, lambda row: row.target.maximum)


def _spent(row: Row) -> float | None:
    total = row.target.total
    return None if total is None else total / row.seconds


def rated(rate: float | None, estimated: bool = False) -> Span:
    """Calls per second; an estimate has a mark before it."""
    mark = "~" if estimated and rate else ""
    return (mark + fmt_count(rate), "value" if rate else "dim")


def _within(error: float | None, count: int | None, duty: Duty | None) -> Span:
    """The uncertainty of an estimated number of calls."""
    if error is None or duty is None:
        return ("", "dim")
    return (fmt_within(factor(duty) * error, count or 0), "dim")


def target_columns(rows: Iterable[Row], sign: str) -> list[Column[Row]]:
    """The columns for these rows, as wide as they need; `sign` heads the uncertainty column."""
    shown = list(rows)
    within: list[Column[Row]] = []
    if any(row.target.target.duty is not None for row in shown):
        within.append(
            Column(
                sign,
                4,
                lambda r: _within(r.target.error, r.target.count, r.target.duty),
                None,
                drop=2,
            )
        )
    longest = max([width(safe(label(row.spec))) for row in shown], default=0)
    how = max([len(mechanism(row)) for row in shown], default=0)
    return [
        Column(
            "target",
            max(8, min(longest, READABLE)),
            lambda r: (label(r.spec), "warn" if changed(r) else "name" if r.rate else "text"),
            lambda r: r.spec,
            right=False,
            most=max(8, min(longest, LONGEST)),
            middle=True,
        ),
        Column("how", max(3, how), lambda r: (mechanism(r), "dim"), mechanism, right=False, drop=5),
        Column("calls/s", 7, lambda r: rated(r.rate, r.target.estimated > 0), lambda r: r.rate),
        *within,
        _duration("p50", "p50"),
        _duration("p90", "p90", drop=2),
        _duration("p99", "p99"),
        _duration("p99.9", "p999", drop=4),
        _maximum(shown),
        _duration("mean", "mean", drop=3),
        Column("time/s", 6, lambda r: (r.amount(_spent(r)), "text"), _spent, drop=1),
        Column(
            "miss/s",
            6,
            lambda r: (fmt_count(r.missed), "warn" if r.missed else "dim"),
            lambda r: r.missed,
            drop=6,
        ),
    ]


def behind_columns(shape: Column[Behind], by_text: bool, sign: str = "") -> list[Column[Behind]]:
    """The columns of processes or texts, `shape` last; with a `sign`, they hold estimates."""

    def off(row: Behind) -> Span:
        return _within(row.process.error, row.process.count, row.duty)

    def spent(row: Behind) -> float | None:
        total = row.process.total
        return None if total is None else total / row.seconds

    def calls(row: Behind) -> float:
        return row.process.count / row.seconds

    def called(row: Behind) -> Span:
        return (row.process.comm, "proc")

    name: list[Column[Behind]] = [
        Column("pid", 7, lambda r: (str(r.process.pid), "dim"), lambda r: r.process.pid),
        Column("process", 16, called, lambda r: r.process.comm, right=False),
    ]
    if by_text:
        name = [Column("text", 16, called, lambda r: r.process.comm, right=False, most=95)]
    return [
        *name,
        Column("calls/s", 7, lambda r: rated(calls(r), r.process.estimated > 0), calls),
        *([Column(sign, 4, off, None, drop=2)] if sign else []),
        Column("time/s", 7, lambda r: (r.amount(spent(r)), "text"), spent),
        Column("mean", 6, lambda r: (r.amount(r.process.mean), "text"), lambda r: r.process.mean),
        Column("share", 6, lambda r: (fmt_percent(r.share, 1.0), "text"), None, drop=1),
        shape,
    ]
