# SPDX-License-Identifier: Apache-2.0
"""Program executions in a snapshot: their rates, as a tree, and by program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from probes.execs.process_log import join_args, short_cgroup
from probes.report.summary import Summary
from tui.export import graphs
from tui.export.section import Section, charts
from tui.export.tables import (
    Cell,
    Column,
    Row,
    Table,
    clock,
    errnos,
    number,
    plain,
    rate,
    table,
    text,
)
from tui.export.words import duration
from tui.shared.text import fmt_count, fmt_ns, fmt_within


def fill(summary: Summary, probe: Mapping[str, Any], section: Section) -> None:
    """Put words, graphs and tables of the probe into its section."""
    series = summary["series"]
    rates = series["execs"]
    lines = [("executions/s", "line1", rates["execs"]), ("not found/s", "line2", rates["failed"])]
    section.charts = charts(graphs.chart("Programs started a second", series, lines))
    section.words.append(
        f"{probe['execs']} executions, {probe['failed']} searches that found no program, "
        f"{probe['exits']} ends of processes."
    )
    duty = probe.get("failed_duty")
    if duty is not None:
        tries = probe["failed_estimated"]
        off = f" (± {fmt_within(probe['failed_error'] * duty['factor'], tries)})" if tries else ""
        section.words.append(
            f"For {duration(duty['seconds'])} executions that fail were looked for in bursts "
            f"({duty['bursts']} of them, {duration(duty['on'])} in all): about ~{fmt_count(tries)} "
            f"attempts{off}, of which the rows below have those of the bursts."
        )
    section.tables = exec_tables(probe)


def _ended(row: Row) -> Cell:
    outcome = str(row["outcome"])
    failed = row["ret"] < 0 or row["signal"] or row["exit_code"]
    return Cell(outcome, None, "bad" if failed else "")


def _command(row: Row) -> Cell:
    args = row["args"]
    words = join_args(args) if args else f"[{row['comm']}]"
    depth = min(int(row["depth"]), 12)
    return Cell(words + (" ..." if row["truncated"] else ""), None, f"cmd d{depth}")


def exec_tables(probe: Row) -> list[Table]:
    """Executions as a tree, and how often each program was started."""
    rows, others = probe["rows"], probe["others"]
    tree = [
        Column("time", True, "", lambda row: Cell(clock(row["time"], 2), row["time"])),
        plain("pid", "pid"),
        plain("ppid", "ppid"),
        text("parent", "parent"),
        plain("uid", "uid"),
        number("ran", "duration", "from the execution to the end", fmt_ns),
        Column("end", False, "exit code, signal, error, exec: it went on as another", _ended),
        Column(
            "cgroup", False, "", lambda row: Cell(row.get("group") or short_cgroup(row["cgroup"]))
        ),
        Column("command", False, "below the program that started it", _command),
    ]
    programs = [
        text("program", "program"),
        number("starts", "starts"),
        rate("starts/s", "starts", probe["seconds"]),
        number("not found", "failed", "searches that found no program to run", style="bad"),
        number("exit code", "nonzero", "ends with an exit code other than 0", style="warn"),
        number("killed", "killed", "ends by a signal", style="bad"),
        number("mean", "mean", "from the execution to the end", fmt_ns),
        Column("errors by name", False, "why it was not found", errnos),
        text("path", "path", "as it was executed last"),
    ]
    return [
        table("execs", "Executions", tree, rows, others.get("rows"), tree=True),
        table("programs", "By program", programs, probe["programs"], others.get("programs")),
    ]
