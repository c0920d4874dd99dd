# SPDX-License-Identifier: Apache-2.0
"""The sum over a span of a probe that is declared by tables of its Sample.

See `probes.core.schema`.
"""

from __future__ import annotations

from typing import Any

from probes.core.adding import add_histogram, keep_first, only
from probes.core.changes import loses
from probes.core.estimates import add_all
from probes.core.sample import Estimate, Histogram, Sample
from probes.core.schema import TableSchema
from probes.core.tables import Vector, delta, estimates
from probes.sums.accumulators import MOST_NAMES, MOST_ROWS, SampleSum, Tick


class TableSum(SampleSum):
    """Counters and histograms are added up, of gauges the last one is kept.

    Of each table the first MOST_ROWS rows are kept, of names of processes those that have rows.
    """

    def __init__(self, kind: type[Sample]) -> None:
        super().__init__(kind)
        self._tables = kind.schema.made()
        self._rows: dict[str, dict[Any, Vector]] = {table.field: {} for table in self._tables}
        self._estimates: dict[str, dict[Any, Estimate]] = {
            table.estimated: {} for table in self._tables if table.estimated
        }
        self._names: dict[str, dict[int, str]] = {
            table.comms: {} for table in self._tables if table.comms
        }

    def _take(self, old: Sample, after: Sample, tick: Tick) -> None:
        for table in self._tables:
            self._add(table, old, after, tick)
        for field, names in self._names.items():
            names.update(getattr(after, field))
            if len(names) > MOST_NAMES:
                self._names[field] = only(names, self._processes(field))

    def _add(self, table: TableSchema, old: Sample, after: Sample, tick: Tick) -> None:
        rows, made = self._rows[table.field], delta(table, old, after)
        for key, value in made.items():
            rows[key] = _plus(table, rows.get(key), value)
        keep_first(rows, MOST_ROWS)
        for at, measure in enumerate(table.measures):
            if measure.kind != "gauge" and measure.name not in tick.counts:
                known = [value[at] for value in made.values() if value[at] is not None]
                tick.counts[measure.name] = sum([_count(number) for number in known])
        if table.estimated:
            more = estimates(table, old, after)
            total = self._estimates[table.estimated]
            add_all(total, more)
            keep_first(total, MOST_ROWS)
            made_up = sum([one.n for one in more.values()])
            if "estimated" not in tick.counts:
                tick.counts["estimated"] = made_up
                tick.counts[table.measures[0].name] += made_up

    def _processes(self, field: str) -> set[int]:
        """The processes that have rows in tables with these names."""
        found: set[int] = set()
        for table in self._tables:
            at = next((n for n, key in enumerate(table.key) if key.process), None)
            if table.comms == field and at is not None:
                keys = {*self._rows[table.field], *self._estimates.get(table.estimated, ())}
                found |= {key[at] if len(table.key) > 1 else key for key in keys}
        return found

    def _loses(self, before: Sample, after: Sample) -> bool:
        fields = [*self._rows, *self._estimates]
        return any(loses(getattr(before, name), getattr(after, name)) for name in fields)

    def _own(self) -> dict[str, Any]:
        tables = {
            table.field: {
                key: value if len(table.measures) > 1 else value[0]
                for key, value in self._rows[table.field].items()
            }
            for table in self._tables
        }
        return {**tables, **self._estimates, **self._names}


def _count(number: Any) -> float:
    return number.n if isinstance(number, Histogram) else number


def _plus(table: TableSchema, total: Vector | None, more: Vector) -> Vector:
    """A row with what it counted in one more interval; the total's histogram is changed."""
    if table.measures[0].kind == "histogram":
        return (add_histogram(total[0] if total else None, more[0]),)
    if total is None:
        return more
    return tuple(
        [
            b if measure.kind == "gauge" else None if a is None or b is None else a + b
            for measure, a, b in zip(table.measures, total, more, strict=True)
        ]
    )
