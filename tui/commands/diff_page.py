# SPDX-License-Identifier: Apache-2.0
"""A comparison of two runs as a page of the same kind as a snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tui.commands.comparison import RULE, Change, show, warnings
from tui.commands.diff_input import Run
from tui.export.html import render
from tui.export.section import Section
from tui.export.tables import Cell, Column, table, text
from tui.export.words import duration, stamp


def _value(name: str, side: str, at: int) -> Column:
    def cell(row: Mapping[str, Any]) -> Cell:
        value = row[side]
        return Cell(show(value, row["figure"], row["error"][at] is not None), value)

    return Column(name, True, "per second, or a duration", cell)


def diff_page(a: Run, b: Run, changes: Sequence[Change], data: Mapping[str, Any]) -> str:
    """The page; `data` is the same as JSON, which it carries."""
    rows = [
        {**row, "figure": change.figure}
        for row, change in zip(data["changes"], changes, strict=True)
    ]
    columns = [
        text("what", "what"),
        text("item", "item"),
        text("quantity", "quantity"),
        _value("A", "before", 0),
        _value("B", "after", 1),
        Column("change", True, "B divided by A", lambda row: Cell(row["change"], row["ratio"])),
    ]
    changed = Section(
        "changes",
        "What changed",
        words=[f"{len(changes)} of {data['compared']} figures. {RULE}"],
        tables=[table("figures", "The most important first", columns, rows)],
    )
    facts = [
        (f"{name}: {run.head['host']}, {run.head['release']} {run.head['arch']}",
         f"{stamp(run.head['begin'])}, {duration(run.head['seconds'])}, {run.path}")
        for name, run in (("A", a), ("B", b))
    ]  # fmt: skip
    hosts = list(dict.fromkeys([a.head["host"], b.head["host"]]))
    return render(
        [changed],
        data,
        title=f"probetop: {' and '.join(hosts)} compared",
        heading=" and ".join(hosts),
        subheading="what changed from A to B",
        facts=facts,
        said=[("warn", words) for words in warnings(a, b)],
    )
