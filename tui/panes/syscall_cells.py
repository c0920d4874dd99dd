# SPDX-License-Identifier: Apache-2.0
"""A row of the system-call pane and the text of its cells."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from probes.core.process_keys import pid_of
from probes.syscalls.view import CallRow
from tui.panes.table import Column
from tui.shared.styled_lines import Span
from tui.shared.text import at_most, fmt_count, fmt_ns, fmt_within


@dataclass(frozen=True, slots=True)
class Row:
    """A row of either table, in rates per second.

    `number` identifies a process (see `probes.core.process_keys`), None for a system call. `within`
    is the uncertainty of the rate (see `probes.core.estimates.CONFIDENCE`), None if it was counted.
    """

    name: str
    number: int | None
    rate: float
    errors: float
    share: float | None
    call: CallRow | None = None
    seconds: float = 1.0
    within: float | None = None

    @property
    def key(self) -> Hashable:
        """The row's identity over time."""
        return self.name if self.number is None else self.number

    @property
    def pid(self) -> int | None:
        """The process id."""
        return None if self.number is None else pid_of(self.number)


def words(row: Row) -> str:
    """A row's name, for the text filter and the drill-down path."""
    return row.name if row.pid is None else f"{row.name} {row.pid}"


def rated(value: float, style: str, estimated: bool = False) -> Span:
    """A rate; 0 is dim, and an estimate has a mark before it."""
    mark = "~" if estimated and value else ""
    return (mark + fmt_count(float(value)), style if value else "dim")


def within(row: Row) -> Span:
    """The uncertainty of an estimated rate, in per cent of the rate."""
    return ("", "") if row.within is None else (fmt_within(row.within, row.rate), "dim")


def errnos(row: Row) -> list[Span]:
    """Errors per second by name, the most frequent first."""
    if row.call is None or not row.call.errnos:
        return [("", "")]
    out: list[Span] = []
    for name, count in sorted(row.call.errnos.items(), key=lambda item: (-item[1], item[0])):
        gap = " " if out else ""
        out += [(f"{gap}{name} ", "dim"), (fmt_count(count / row.seconds), "text")]
    return out


def duration(field: str) -> Column[Row]:
    """The column of a percentile, in ns."""

    def value(row: Row) -> float | None:
        found: float | None = getattr(row.call, field) if row.call is not None else None
        return found

    return Column(field, 6, lambda row: (fmt_ns(value(row)), "text"), value)


def maximum(calls: Iterable[CallRow]) -> Column[Row]:
    """The column of the longest call; it is wider if a value is only an upper bound."""

    def value(row: Row) -> float | None:
        return row.call.maximum if row.call is not None else None

    def cell(row: Row) -> Span:
        return (at_most(fmt_ns(value(row)), row.call.exact if row.call else None), "text")

    bounds = any(call.exact is False for call in calls)
    return Column("max", 8 if bounds else 6, cell, value, drop=1)


def spent(row: Row) -> float | None:
    """The total duration of all calls in nanoseconds per second."""
    total = row.call.total if row.call is not None else None
    return None if total is None else total / row.seconds
