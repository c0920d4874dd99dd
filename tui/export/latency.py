# SPDX-License-Identifier: Apache-2.0
"""Latency targets in a snapshot: percentiles over time, histograms, and who is behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from probes.report.summary import Summary
from tui.export import graphs
from tui.export.section import Section, TargetGraphs, charts
from tui.export.tables import (
    Cell,
    Column,
    Row,
    Table,
    longest,
    number,
    plain,
    rate,
    table,
    text,
    value_of,
    within,
)
from tui.shared.text import UNKNOWN, fmt_count, fmt_ns


def fill(summary: Summary, probe: Mapping[str, Any], section: Section) -> None:
    """Put words, graphs and tables of the probe into its section."""
    series = summary["series"]
    section.tables = latency_tables(probe)
    heats = summary["heat"]["targets"]
    for target in probe["targets"]:
        spec, unit = target["spec"], target["unit"]
        rates = series["latency"].get(spec)
        if spec not in heats or rates is None:
            continue
        fmt = fmt_ns if unit == "ns" else fmt_count
        lines = [("p50", "line1", rates["p50"]), ("p99", "line2", rates["p99"])]
        over_time = charts(
            graphs.chart("Calls a second", series, [("calls/s", "line1", rates["calls"])]),
            graphs.chart("Percentiles over time", series, lines, fmt, log=True),
        )
        heat = graphs.heatmap(spec, unit, summary["heat"])
        section.targets.append(TargetGraphs(spec, over_time, graphs.histogram(target), heat))


def measured(name: str, field: str, hint: str) -> Column:
    return Column(name, True, hint, lambda row: value_of(row, field))


def _state(row: Row) -> Cell:
    words = [str(word) for word in (row["why"], row["fix"]) if word]
    if row["state"] == "on":
        return Cell(
            "; ".join([str(row["mechanism"] or UNKNOWN), *words]), None, "wrap" * bool(words)
        )
    if row.get("given_up"):
        return Cell("; ".join(words), None, "wrap warn")
    style = "wrap bad" if row["state"] == "failed" else "wrap"
    return Cell("; ".join([str(row["state"]), *words]), None, style)


def _target_rate(seconds: float | None) -> Column:
    """Calls a second: of a target that was attached in bursts, over the time they stand for."""

    def cell(row: Row) -> Cell:
        return rate("", "count", row["seconds"] if row.get("duty") else seconds).cell(row)

    return Column("calls/s", True, "per second, over the time in which the probe ran", cell)


def _target_within(targets: Sequence[Row]) -> list[Column]:
    """How far off the calls may be of targets that were attached in bursts."""
    duties = {row["spec"]: row["duty"] for row in targets if row.get("duty")}
    found = {spec: within(duty)[0] for spec, duty in duties.items()}
    if not found:
        return []
    first = next(iter(found.values()))

    def cell(row: Row) -> Cell:
        return found[row["spec"]].cell(row) if row["spec"] in found else Cell("")

    return [Column(first.name, True, first.hint, cell)]


def latency_tables(probe: Row) -> list[Table]:
    """Targets, and who is behind them."""
    targets = probe["targets"]
    columns = [
        text("target", "spec"),
        Column("how", False, "the kernel's mechanism, or why it does not run", _state),
        number("calls", "count"),
        _target_rate(probe["seconds"]),
        *_target_within(targets),
        measured("p50", "p50", "half of the calls took no longer"),
        measured("p90", "p90", "9 of 10 calls took no longer"),
        measured("p99", "p99", "99 of 100 calls took no longer"),
        measured("p99.9", "p999", "999 of 1000 calls took no longer"),
        Column("max", True, "the longest", longest),
        measured("mean", "mean", ""),
        measured("total", "total", "all calls together"),
        number("untimed", "missed", "calls whose duration is not known", style="warn"),
        number("overflow", "overflow", "calls that found no space to be timed", style="bad"),
        number("floor", "floor", "what an empty function shows: the probes' own time", fmt_ns),
    ]
    behind = [{**row, "spec": target["spec"]} for target in targets for row in target["behind"]]
    for row in behind:
        known = row["total"] is not None and row["count"]
        row["mean"] = row["total"] / row["count"] if known else None
        row["who"] = row.get("text", row.get("comm"))
    units = {target["spec"]: target["unit"] for target in targets}
    who = [
        text("target", "spec"),
        plain("pid", "pid"),
        text("process or text", "who"),
        number("calls", "count"),
        *[
            Column(name, True, hint, lambda row, name=name: value_of(  # type: ignore[misc]
                {**row, "unit": units[row["spec"]]}, name))
            for name, hint in (("total", "all calls together"), ("mean", "of one call"))
        ],
    ]  # fmt: skip
    missing = sum([(target["others"] or {}).get("rows", 0) for target in targets])
    left = {"rows": missing} if missing else None
    return [
        table("targets", "Targets", columns, targets),
        table("behind", "Who is behind them", who, behind, left),
    ]
