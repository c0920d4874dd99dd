# SPDX-License-Identifier: Apache-2.0
"""System calls in a snapshot: their rates, by call, by process, and both together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from probes.report.summary import Summary
from tui.export import graphs
from tui.export.section import Section, charts
from tui.export.tables import (
    Column,
    Row,
    Table,
    errnos,
    longest,
    number,
    plain,
    rate,
    share,
    table,
    text,
    within,
)
from tui.shared.text import fmt_ns


def _calls(rates: Mapping[str, Any]) -> list[tuple[str, str, list[float | None]]]:
    """The line of calls a second, and that of the part that is estimated, if there is one."""
    lines = [("calls/s", "line1", rates["calls"])]
    if "estimated" in rates:
        lines.append(("estimated from bursts", "line3", rates["estimated"]))
    return lines


def fill(summary: Summary, probe: Mapping[str, Any], section: Section) -> None:
    """Put words, graphs and tables of the probe into its section."""
    series = summary["series"]
    rates = series["syscalls"]
    section.charts = charts(
        graphs.chart("Calls a second", series, _calls(rates)),
        graphs.chart("Errors a second", series, [("errors/s", "line2", rates["errors"])]),
    )
    section.tables = syscall_tables(probe)


def syscall_tables(probe: Row) -> list[Table]:
    """By call, by process, and both together."""
    seconds, others = probe["seconds"], probe["others"]
    rows, processes, matrix = probe["rows"], probe["processes"], probe["matrix"]
    total = sum([row["count"] for row in rows])
    common = [
        number("calls", "count"),
        rate("calls/s", "count", seconds),
        *within(probe.get("duty")),
        share("share", "count", total, "of all calls"),
        number("errors", "errors", "calls that returned an error", style="bad"),
        rate("err/s", "errors", seconds, "bad"),
        share("err %", "errors", "count", "of its calls, those that failed"),
    ]
    spent = [
        number("p50", "p50", "half of its calls took no longer", fmt_ns),
        number("p99", "p99", "99 of 100 calls took no longer", fmt_ns),
        Column("max", True, "the longest call", lambda row: longest({**row, "unit": "ns"})),
        number("total", "total", "all its calls together", fmt_ns),
    ]
    timed = any(row["p50"] is not None for row in rows)
    call = [text("call", "syscall"), *common, *(spent if timed else [])]
    call.append(Column("errors by name", False, "errno of those that failed", errnos))
    process = [plain("pid", "pid"), text("process", "comm"), *common]
    both = [plain("pid", "pid"), text("process", "comm"), text("call", "syscall"), *common]
    return [
        table("syscalls", "By call", call, rows, others.get("rows")),
        table("syscall-processes", "By process", process, processes, others.get("processes")),
        table("syscall-matrix", "By process and call", both, matrix, others.get("matrix")),
    ]
