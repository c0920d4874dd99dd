# SPDX-License-Identifier: Apache-2.0
"""A summary's tables, as texts with the numbers behind them, for any way of showing them.

Nothing here is escaped: who shows it does that, the page by its template engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tui.shared.text import UNKNOWN, at_most, fmt_count, fmt_ns, fmt_percent, fmt_within

Row = Mapping[str, Any]


class Cell(NamedTuple):
    """What a cell shows, the number that it is sorted by, and its CSS class."""

    text: str
    value: float | None = None
    style: str = ""


class Column(NamedTuple):
    """A column's name, whether it holds numbers, what it means, and how a row fills it."""

    name: str
    number: bool
    hint: str
    cell: Callable[[Row], Cell]


class Table(NamedTuple):
    """A table of a page: `note` says what is missing from it, `tree` that rows are nested."""

    id: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    tree: bool = False


def clock(seconds: float, digits: int = 0) -> str:
    """The time of day of Unix seconds, in this process's time zone."""
    part = f"{seconds % 1:.{digits}f}"[1:] if digits else ""
    return time.strftime("%H:%M:%S", time.localtime(seconds)) + part


def text(name: str, field: str, hint: str = "") -> Column:
    """A column of texts."""

    def cell(row: Row) -> Cell:
        value = row.get(field)
        return Cell(UNKNOWN if value is None else str(value))

    return Column(name, False, hint, cell)


def plain(name: str, field: str, hint: str = "") -> Column:
    """A column of numbers that are names: process ids, CPUs."""

    def cell(row: Row) -> Cell:
        value = row.get(field)
        return Cell(UNKNOWN if value is None else str(value), value)

    return Column(name, True, hint, cell)


def number(
    name: str, field: str, hint: str = "", fmt: Callable[[float | None], str] = fmt_count,
    style: str = "",
) -> Column:  # fmt: skip
    """A column of counts or durations; `style` is that of values above zero."""

    def cell(row: Row) -> Cell:
        value = row.get(field)
        shown = _mark(row, field) + fmt(value)
        return Cell(shown, value, style if value else "zero" if value == 0 else "")

    return Column(name, True, hint, cell)


def _mark(row: Row, field: str) -> str:
    """What stands before a number that is estimated, at least in part."""
    estimated = row.get("estimated")
    if not estimated or not row[field]:
        return ""
    if isinstance(estimated, Mapping):
        # Some of its numbers are, and have an error each.
        return "~" if field in row["error"] else ""
    return "~" if field in ("count", "errors") else ""


def rate(name: str, field: str, seconds: float | None, style: str = "") -> Column:
    """A count divided by the time in which it was counted."""

    def cell(row: Row) -> Cell:
        value = row.get(field)
        per_second = None if value is None or not seconds else value / seconds
        shown = _mark(row, field) + fmt_count(per_second)
        return Cell(shown, per_second, style if value else "zero")

    return Column(name, True, "per second, over the time in which the probe ran", cell)


def within(duty: Mapping[str, Any] | None, field: str = "count") -> list[Column]:
    """How far off a number of a row may be, while a part of these is estimated."""
    if duty is None:
        return []
    times = duty["factor"]

    def cell(row: Row) -> Cell:
        error, value = row.get("error"), row[field]
        if isinstance(error, Mapping):
            error = error.get(field)
        if error is None:
            return Cell("?" if row.get("estimated") else "")
        return Cell(fmt_within(error * times, value), error * times / value if value else None)

    return [
        Column(
            "±",
            True,
            "the true number is so near, with 95 % confidence; ?: bursts do not tell",
            cell,
        )
    ]


def share(name: str, field: str, whole: float | str, hint: str) -> Column:
    """A count's share of a number, or of another field."""

    def cell(row: Row) -> Cell:
        value = row.get(field)
        total = row.get(whole) if isinstance(whole, str) else whole
        part = value / total if value is not None and total else None
        shown = _mark(row, field) + fmt_percent(value, total)
        return Cell(shown, part, "zero" if value == 0 else "")

    return Column(name, True, hint, cell)


def table(
    name: str, title: str, columns: Sequence[Column], rows: Iterable[Row],
    left: Mapping[str, Any] | None = None, *, tree: bool = False,
) -> Table:  # fmt: skip
    """The table of these rows; `left` is the summary's account of those that are not there."""
    cells = [[column.cell(row) for column in columns] for row in rows]
    return Table(name, title, columns, cells, _note(left), tree)


def _note(left: Mapping[str, Any] | None) -> str:
    if not left:
        return ""
    rows = left["rows"]
    words = [
        f"{fmt_count(left[field])} {what}"
        for field, what in (
            ("count", "calls"),
            ("errors", "errors"),
            ("starts", "starts"),
            ("estimated", "of these calls estimated"),
        )
        if left.get(field) is not None
    ]
    if left.get("task_clock") is not None:
        words.append(f"{fmt_ns(left['task_clock'])} on a CPU")
    more = f", {' and '.join(words)} in all" if words else ""
    return f"{rows} more {'row is' if rows == 1 else 'rows are'} not in this file{more}."


def errnos(row: Row) -> Cell:
    known = sorted(row.get("errnos", {}).items(), key=lambda item: -item[1])
    return Cell(", ".join([f"{name} {fmt_count(n)}" for name, n in known]), None, "wrap")


def value_of(row: Row, field: str) -> Cell:
    """A duration, or a plain value where the target measures those."""
    fmt = fmt_ns if row["unit"] == "ns" else fmt_count
    return Cell(fmt(row[field]), row[field])


def longest(row: Row) -> Cell:
    """The maximum, or what no duration exceeds; files of earlier versions do not say which.

    Of a target that was attached in bursts it is the longest that they saw.
    """
    cell = value_of(row, "max")
    if row.get("duty") and cell.text != UNKNOWN:
        return cell._replace(text=f">={cell.text}")
    return cell._replace(text=at_most(cell.text, bool(row.get("max_exact"))))
