# SPDX-License-Identifier: Apache-2.0
"""Tables of what was measured: how they are made, read, printed and written down."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench.intervals import Interval, heading, of_median
from bench.measure import BenchError, Turns, Variant

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
"""What is between these marks in the README is written by this program."""
Table = tuple[str, Sequence[str], list[Sequence[str]]]
"""A heading, the names of the columns, and rows of cells."""
NONE = "-"
_NUMBER = re.compile(r"[-+]?\d")


def spread(interval: Interval, form: str) -> str:
    """The two ends of an interval; `form` is how a number is written."""
    return f"{interval.low:{form}} to {interval.high:{form}}"


def added_table(title: str, unit: str, variants: Sequence[Variant], turns: Turns) -> Table:
    """The median of each variant's rounds, what it adds to the first variant's of the same round,
    and how that compares with what the variant beside it adds in the same round."""
    rounds = turns.values
    base = next(iter(rounds.values()))
    added = {
        name: [value - bare for value, bare in zip(values, base, strict=True)]
        for name, values in rounds.items()
    }
    rows: list[Sequence[str]] = []
    for variant in variants:
        if variant.name not in rounds:
            continue
        value, more = median(rounds[variant.name]), of_median(added[variant.name])
        cells = (f"{more.median:+.1f}", spread(more, "+.1f")) if rows else (NONE, NONE)
        ratio = compared(added[variant.name], added.get(variant.beside, []), variant.beside)
        rows.append((variant.name, variant.counts, f"{value:.1f}", *cells, ratio))
    total = sum(map(len, rounds.values()))
    if turns.disturbed:
        title += f" (in {turns.disturbed} of {total} measurements others traced as well)"
    interval = heading(len(base))
    return title, ("attached", "counts", unit, f"added {unit}", interval, "compared"), rows


def compared(ours: Sequence[float], theirs: Sequence[float], name: str) -> str:
    """The ratio of what two variants add, round by round, where the other adds something."""
    if not theirs or min(theirs) <= 0:
        return NONE
    ratio = of_median([a / b for a, b in zip(ours, theirs, strict=True)])
    return f"{ratio.median:.2f} ({spread(ratio, '.2f')}) x {name}"


def figure(table: Table | None, column: str, **where: str) -> float | None:
    """The number of a column in the first row whose other columns are `where`, if there is one.

    A blank in the name of a column of `where` is written as _.
    """
    found = figures(table, column, **where)
    return found[0] if found else None


def figures(table: Table | None, column: str, **where: str) -> list[float]:
    """As `figure`, of all such rows."""
    if table is None or column not in table[1]:
        return []
    _, head, rows = table
    wanted = {head.index(name.replace("_", " ")): value for name, value in where.items()}
    at = head.index(column)
    chosen = [row for row in rows if all(row[i] == value for i, value in wanted.items())]
    return [float(row[at]) for row in chosen if _NUMBER.match(row[at])]


def as_markdown(table: Table) -> str:
    """A table as Markdown; columns of numbers stand to the right."""
    title, head, rows = table
    right = [any(_NUMBER.match(row[at]) for row in rows) for at in range(len(head))]
    lines = [f"## {title}", "", f"| {' | '.join(head)} |"]
    lines.append("|".join(["", *[" ---: " if number else " --- " for number in right], ""]))
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def as_text(table: Table) -> str:
    """A table for the terminal."""
    title, head, rows = table
    right = [any(_NUMBER.match(row[at]) for row in rows) for at in range(len(head))]
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    lines = [title]
    for row in [head, *rows]:
        cells = zip(row, widths, right, strict=True)
        texts = [cell.rjust(size) if number else cell.ljust(size) for cell, size, number in cells]
        lines.append("  " + "  ".join(texts).rstrip())
    return "\n".join(lines) + "\n"


def for_readme(tables: Sequence[Table]) -> str:
    """Tables with their titles as bold lines, for they have no headings of their own there."""
    texts = [as_markdown(table) for table in tables]
    return "\n".join(
        re.sub(r"\A## (.*)$", r"**\1**", text, count=1, flags=re.MULTILINE) for text in texts
    )


def rows_where(table: Table, column: str, *values: str) -> Table:
    """The rows in which a column has one of the values."""
    title, head, rows = table
    at = head.index(column)
    return title, head, [row for row in rows if row[at] in values]


def write(path: Path, text: str) -> None:
    """Write a file that belongs to the user who called sudo, as a file that was there does."""
    new = not path.exists()
    path.write_text(text, encoding="utf-8")
    uid, gid = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if new and uid.isdigit() and gid.isdigit():
        os.chown(path, int(uid), int(gid))


def write_between(path: Path, inside: str) -> None:
    """Replace what is between the two marks of a file; raises BenchError if it has none."""
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise BenchError(f"{path.name} has no {BEGIN} and {END}")
    write(path, f"{before}{BEGIN}\n{inside}{END}{after}")
