# SPDX-License-Identifier: Apache-2.0
"""How long the tables of a summary are, and what is told of the rows that it leaves out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from probes.core import histogram

QUARTER = histogram.SUB // 4
"""Buckets in a quarter of a power of two."""


class TableLimits(NamedTuple):
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

    def scaled(self, part: float) -> TableLimits:
        """A part of everything."""
        return TableLimits(*[max(1, int(limit * part)) for limit in self])


LIMITS = TableLimits()


def cut(
    rows: list[Any],
    limit: int,
    left: Mapping[str, int] | None,
    table: str,
    others: dict[str, Any],
    sums: Sequence[str],
) -> list[Any]:
    """The first rows; what the others and those `left` out add up to goes into `others`.

    `sums` are the columns that are added up.
    """
    rest = rows[limit:]
    if rest or left:
        numbers = {
            name: sum([row[name] for row in rest if row.get(name) is not None])
            for name in sums
            if rest and name in rest[0]
        }
        if estimated := sum([row.get("estimated", 0) for row in rest]):
            numbers["estimated"] = estimated
        others[table] = {"rows": len(rest), **numbers}
        for name, number in (left or {}).items():
            others[table][name] = others[table].get(name, 0) + number
    return rows[:limit]


def quarter_bounds(quarter: int) -> tuple[int, int]:
    """The lowest value in a quarter of a power of two and the lowest of the next, in ns."""
    first = quarter * QUARTER
    return histogram.bounds(first)[0], histogram.bounds(first + QUARTER - 1)[1]


def coarse(buckets: list[list[int]]) -> list[list[int | None]]:
    """Buckets joined to quarters of a power of two."""
    sums: dict[int, int] = {}
    for low, _, n in buckets:
        at = histogram.index(low) // QUARTER
        sums[at] = sums.get(at, 0) + n
    last = histogram.LAST // QUARTER
    ranges = [(at, *quarter_bounds(at), n) for at, n in sorted(sums.items())]
    return [[low, None if at == last else high, n] for at, low, high, n in ranges]
