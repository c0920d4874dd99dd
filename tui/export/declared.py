# SPDX-License-Identifier: Apache-2.0
"""A probe in a snapshot by nothing but its schema: rates of its counters, and its tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from probes.core.schema import KeyColumn, MeasureColumn, RateLine, TableSchema, Unit
from probes.report.summary import Summary
from tui.export import graphs, tables
from tui.export.section import Section, charts
from tui.export.tables import Column, number, plain, rate, text, within
from tui.registry import REGISTRY
from tui.shared.text import UNKNOWN, fmt_count, fmt_ns


def fill(summary: Summary, probe: Mapping[str, Any], section: Section) -> None:
    """Put graphs and tables of the probe into its section; the section has the probe's name."""
    entry = next(entry for entry in REGISTRY if entry.name == section.id)
    schema, series = entry.sample_class().schema, summary["series"]
    lines = [line for line in schema.all_lines() if isinstance(line, RateLine)]
    rates = series.get(entry.name, {})
    section.charts = charts(
        *[
            graphs.chart(f"{line.name} a second", series, [(line.name, "line1", rates[line.name])])
            for line in lines
            if line.name in rates
        ]
    )
    section.tables = [_table(entry.name, one, probe) for one in schema.made()]


def _table(name: str, declared: TableSchema, probe: Mapping[str, Any]) -> tables.Table:
    columns = [column for key in declared.key for column in _key(key)]
    for measure in declared.measures:
        columns += _measure(measure, probe["seconds"])
    if declared.estimated:
        columns += within(probe.get("duty"))
    left = probe["others"].get(declared.name)
    title = declared.title or declared.name
    return tables.table(f"{name}-{declared.name}", title, columns, probe[declared.name], left)


def _key(key: KeyColumn) -> list[Column]:
    if key.process:
        return [plain("pid", "pid"), text("process", "comm")]
    return [text(key.title or key.name, key.name)]


def _measure(measure: MeasureColumn, seconds: float | None) -> list[Column]:
    """The columns of a measure: a counter has its rate as well, a histogram its percentiles."""
    title, fmt = measure.title or measure.name, _format(measure.unit)
    shown = number(title, measure.name, measure.help, fmt)
    if measure.kind == "gauge":
        return [shown]
    columns = [shown if measure.kind == "counter" else number(title, measure.name, measure.help)]
    columns.append(rate(f"{title}/s", measure.name, seconds))
    if measure.kind == "histogram":
        columns += [
            number(name, name, hint, fmt)
            for name, hint in (
                ("p50", "half of them took no longer"),
                ("p99", "99 of 100 took no longer"),
                ("max", "the longest"),
                ("total", "all together"),
            )
        ]
    return columns


def _format(unit: Unit) -> Callable[[float | None], str]:
    if unit == "ns":
        return fmt_ns
    if unit == "bytes":
        return lambda value: UNKNOWN if value is None else f"{fmt_count(value)}B"
    return fmt_count
