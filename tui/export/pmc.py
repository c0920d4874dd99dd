# SPDX-License-Identifier: Apache-2.0
"""Counters in a snapshot: of CPUs over time, and by CPU and process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from probes.report.summary import Summary
from tui.export import graphs
from tui.export.section import Section, charts, digits
from tui.export.tables import Row, Table, number, plain, rate, share, table, text, within
from tui.shared.text import UNKNOWN, fmt_ns, fmt_percent


def fill(summary: Summary, probe: Mapping[str, Any], section: Section) -> None:
    """Put words, graphs and tables of the probe into its section."""
    series = summary["series"]
    rates = series["pmc"]

    def percent(value: float | None) -> str:
        return fmt_percent(value, 1.0)

    section.charts = charts(
        graphs.chart("CPUs busy", series, [("busy", "line1", rates["busy"])], percent, top=1.0),
        graphs.chart("Instructions a cycle", series, [("IPC", "line1", rates["ipc"])],
                     digits("{:.2f}")),
    )  # fmt: skip
    section.tables = pmc_tables(probe)


def _ipc(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}"


def pmc_tables(probe: Row) -> list[Table]:
    """CPUs and processes with what was counted."""
    from probes.pmc.contract import field_name

    seconds = probe["seconds"]
    wall = seconds * 1e9 if seconds else 0
    events = [rate(f"{event}/s", field_name(event), seconds) for event in probe["events"] or ()]
    ipc = number("IPC", "ipc", "instructions a cycle", _ipc)
    switches = rate("switches/s", "context_switches", seconds)
    waits = number("wait", "wait", "runnable, but without a CPU", fmt_ns)
    cpus = [
        plain("CPU", "cpu"),
        share("busy", "busy", wall, "of the time, with a process"),
        *within(probe.get("duty"), "busy"),
        ipc, *events, switches, waits,
    ]  # fmt: skip
    processes = [
        plain("pid", "pid"),
        text("process", "comm"),
        share("CPU", "task_clock", wall, "of one CPU"),
        *within(probe.get("duty"), "task_clock"),
        number("time", "task_clock", "on a CPU", fmt_ns),
        ipc, *events, switches,
        rate("migrations/s", "migrations", seconds),
        waits,
    ]  # fmt: skip
    left = probe["others"].get("processes")
    return [
        table("cpus", "CPUs", cpus, probe["cpus"]),
        table("pmc-processes", "Processes", processes, probe["processes"], left),
    ]
