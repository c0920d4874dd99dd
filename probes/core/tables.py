# SPDX-License-Identifier: Apache-2.0
"""Rows and differences of the tables that a Sample declares, see `probes.core.schema`.

A value is a tuple here, with a number for each measure, in their order. A counter that is less than
before began anew, and so did all of its row: then all of it counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from probes.core import histogram
from probes.core.changes import changed
from probes.core.delta import histogram_delta
from probes.core.estimates import duty_of, estimate_delta, standard_error
from probes.core.peak_values import maximum
from probes.core.process_keys import pid_of
from probes.core.sample import Duty, Estimate, Histogram, Sample
from probes.core.schema import Schema, TableSchema

S = TypeVar("S", bound=Sample)
Vector = tuple[Any, ...]
"""A number for each measure, a Histogram for the only one; None for what is not known."""


def comparable(before: Sample | None, after: S) -> S:
    """What may be subtracted: `before`, or the empty Sample where counting began anew."""
    if before is None or type(before) is not type(after) or before.generation != after.generation:
        return type(after)(generation=after.generation)
    return before


def vector(table: TableSchema, value: Any) -> Vector:
    """A value of the Sample's mapping, with a number for each measure."""
    return value if len(table.measures) > 1 else (value,)


def delta(table: TableSchema, before: Sample, after: Sample) -> dict[Any, Vector]:
    """What was counted by key from one Sample to the next; gauges are what they are now.

    Keys whose counters did not change are absent, unless there are gauges.
    """
    gauges = [measure.kind == "gauge" for measure in table.measures]
    old, new = getattr(before, table.field), getattr(after, table.field)
    if any(gauges):
        pairs = [(key, old.get(key), value) for key, value in new.items()]
    else:
        pairs = changed(old, new)
    out: dict[Any, Vector] = {}
    for key, was, value in pairs:
        made = _less(vector(table, value), None if was is None else vector(table, was), gauges)
        if made is not None:
            out[key] = made
    return out


def _less(new: Vector, old: Vector | None, gauges: list[bool]) -> Vector | None:
    """What a row counted; None if that is nothing."""
    if isinstance(new[0], Histogram):
        spent = histogram_delta(old[0] if old else None, new[0])
        return (spent,) if spent.n else None
    if old is None or any(
        a is not None and b is not None and a < b
        for a, b, gauge in zip(new, old, gauges, strict=True)
        if not gauge
    ):
        return new
    made = [
        a if gauge or a is None else a - (b or 0)
        for a, b, gauge in zip(new, old, gauges, strict=True)
    ]
    return tuple(made) if any(gauges) or any(made) else None


def estimates(table: TableSchema, before: Sample, after: Sample) -> Mapping[Any, Estimate]:
    """What the bursts between two Samples stand for, by key."""
    if not table.estimated:
        return {}
    return estimate_delta(getattr(before, table.estimated), getattr(after, table.estimated))


def rows(table: TableSchema, before: Sample | None, after: Sample) -> list[dict[str, Any]]:
    """The rows of a stream object, most of the first measure first."""
    old = comparable(before, after)
    duty = duty_of(before, after)
    made = delta(table, old, after)
    spread = estimates(table, old, after)
    out = [
        {
            **key_columns(table, after, key),
            **_numbers(table, made.get(key), spread.get(key), duty),
        }
        for key in {**made, **spread}
    ]
    first = table.measures[0].name
    names = [column for column in (out[0] if out else {}) if _is_key(table, column)]
    out.sort(key=lambda row: (-(row[first] or 0), *[row[name] for name in names]))
    return out


def _is_key(table: TableSchema, column: str) -> bool:
    return column == "pid" or any(key.name == column for key in table.key)


def key_columns(table: TableSchema, sample: Sample, key: Any) -> dict[str, Any]:
    """The columns that tell a row apart; a process's pid and name."""
    parts = key if len(table.key) > 1 else (key,)
    out: dict[str, Any] = {}
    for column, part in zip(table.key, parts, strict=True):
        if column.process:
            names = getattr(sample, table.comms) if table.comms else {}
            out |= {"pid": pid_of(part), "comm": names.get(part, "?")}
        else:
            out[column.name] = part
    return out


def _numbers(
    table: TableSchema, made: Vector | None, part: Estimate | None, duty: Duty | None
) -> dict[str, Any]:
    first = table.measures[0]
    if first.kind == "histogram":
        return _durations(first.name, made[0]) if made else {first.name: 0}
    values = made or tuple([0 if one.kind == "counter" else None for one in table.measures])
    out = {one.name: value for one, value in zip(table.measures, values, strict=True)}
    if part is not None:
        out[first.name] += part.n
        out["estimated"] = part.n
        out["error"] = standard_error(part.n, part.variance, duty)
    return out


def _durations(name: str, spent: Histogram) -> dict[str, Any]:
    longest, _ = maximum(spent)
    p50, p99 = histogram.percentiles(spent.buckets, (0.50, 0.99))
    if longest is not None:
        p50, p99 = (None if value is None else min(value, longest) for value in (p50, p99))
    return {name: spent.n, "p50": p50, "p99": p99, "max": longest, "total": spent.total}


def stream_fields(
    schema: Schema, before: Sample | None, after: Sample
) -> dict[str, list[dict[str, Any]]]:
    """All tables of a stream object that are made of the Sample's fields."""
    return {table.name: rows(table, before, after) for table in schema.made()}
