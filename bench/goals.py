# SPDX-License-Identifier: Apache-2.0
"""What probetop promises to cost, and whether the run that the tables are of kept it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from bench.budget import DEFAULT, LOST, SETTLED, SILENT, WORST
from bench.poll import MANY, POLL
from bench.tables import NONE, Table, figure, figures, rows_where
from bench.variants import (
    LATENCY,
    PROBETOP,
    SAMPLED,
    SYSCOUNT,
    SYSCOUNT_L,
    TWO_CLOCKS,
    TWO_EMPTY,
)

Tables = Mapping[str, Table]
"""The tables of a run by its parts; a part that was not measured is not there."""
DASHBOARD, ALL_ON = "probetop", "all four probes live and drawn"
BUSY = {"size": "120x40", "machine": "workload"}


class Goal(NamedTuple):
    """An upper limit, in `unit`, and how the tables tell the figure it is for."""

    text: str
    limit: float
    unit: str
    measured: Callable[[Tables], float | None]


def _ratio(upper: float | None, lower: float | None) -> float | None:
    return upper / lower if upper is not None and lower is not None and lower > 0 else None


def _added(name: str, beside: str) -> Callable[[Tables], float | None]:
    """The ratio of what two variants add to a system call."""

    def measured(tables: Tables) -> float | None:
        calls = tables.get("calls")
        ours, theirs = (figure(calls, "added ns", attached=who) for who in (name, beside))
        return _ratio(ours, theirs)

    return measured


def _dashboard(column: str, **where: str) -> Callable[[Tables], float | None]:
    chosen = BUSY | where
    return lambda tables: figure(tables.get("screens"), column, dashboard=DASHBOARD, **chosen)


def _memory(tables: Tables) -> float | None:
    screens = tables.get("screens")
    return max(figures(screens, "MB (PSS)", dashboard=DASHBOARD), default=None)


def _bytes_of_btop(tables: Tables) -> float | None:
    """The largest ratio to btop's bytes, of all sizes, with and without load."""
    screens = tables.get("screens")
    ours = figures(screens, "bytes/s", dashboard=DASHBOARD)
    theirs = figures(screens, "bytes/s", dashboard="btop")
    if not theirs or len(ours) != len(theirs):
        return None
    ratios = [_ratio(*pair) for pair in zip(ours, theirs, strict=True)]
    return max((ratio for ratio in ratios if ratio is not None), default=None)


def _all_on(tables: Tables) -> float | None:
    found = figure(tables.get("start"), "ms", until=ALL_ON)
    return None if found is None else found / 1000


def _budget(column: str) -> Callable[[Tables], float | None]:
    """The worst of all loads; None if it is not known of one of them."""

    def measured(tables: Tables) -> float | None:
        table = tables.get("budget")
        if table is None:
            return None
        _, _, rows = rows_where(table, "beside it", DEFAULT)
        found = [cell.replace(">", "") for cell in (row[table[1].index(column)] for row in rows)]
        return max(map(float, found), default=None) if NONE not in found else None

    return measured


def _poll(active: str) -> Callable[[Tables], float | None]:
    """The dearest probe's poll, with so many processes active."""

    def measured(tables: Tables) -> float | None:
        return max(figures(tables.get("polls"), POLL, active=active), default=None)

    return measured


def _cells(tables: Tables) -> float | None:
    """What the dearest pane does with a Frame in which all processes were active."""
    polls = tables.get("polls")
    whole, part = (figures(polls, name, active="16,384") for name in ("all", POLL))
    return max((a - b for a, b in zip(whole, part, strict=True)), default=None)


GOALS = (
    Goal("counting calls, beside syscount", 0.8, "x", _added(PROBETOP, SYSCOUNT)),
    Goal("timing every call, beside syscount -L", 0.6, "x", _added(LATENCY, SYSCOUNT_L)),
    Goal(
        "timing every call, beside two clock reads on the same hooks",
        1.2,
        "x",
        _added(LATENCY, TWO_CLOCKS),
    ),
    Goal("timing one call in 16, beside two empty programs", 1.3, "x", _added(SAMPLED, TWO_EMPTY)),
    Goal("from the command to four probes live", 1.0, "s", _all_on),
    Goal("memory of all processes, at most of all runs", 80, "MB", _memory),
    Goal("the dashboard's CPU, 120x40, under load", 1.0, "% of one", _dashboard("% of a CPU")),
    Goal(
        "the dashboard's CPU, 120x40, idle machine",
        0.4,
        "% of one",
        _dashboard("% of a CPU", machine="idle"),
    ),
    Goal("the dashboard's output, 120x40, under load", 5000, "bytes/s", _dashboard("bytes/s")),
    Goal("the dashboard's output beside btop's, worst of all runs", 1.0, "x", _bytes_of_btop),
    Goal(
        "what a load on every CPU loses to the budget of 2, worst of four loads",
        2.0,
        "%",
        _budget(LOST),
    ),
    Goal("the most that it loses in any 10 s, once settled", 4.0, "%", _budget(WORST)),
    Goal("time until settled after a step in load", 3.0, "s", _budget(SETTLED)),
    Goal("time without a number of that load", 5.0, "s", _budget(SILENT)),
    Goal(f"one poll of 256 CPUs, {MANY} of 16,384 processes active", 5.0, "ms", _poll(MANY)),
    Goal("one poll of 256 CPUs, all of 16,384 processes active", 20.0, "ms", _poll("16,384")),
    Goal("from a Frame of that to cells, one probe", 25.0, "ms", _cells),
)


def verdict(measured: float | None, limit: float) -> str:
    """Met, or missed by how much of the limit."""
    if measured is None:
        return "not measured"
    if measured <= limit:
        return "met"
    return f"missed by {100 * (measured / limit - 1):.1f} %"


def _shown(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def goals_table(tables: Tables) -> Table:
    """Every goal, what the run measured, and whether that is within it."""
    rows: list[tuple[str, ...]] = []
    for goal in GOALS:
        measured = goal.measured(tables)
        shown = "-" if measured is None else f"{_shown(measured)} {goal.unit}"
        limit = f"{goal.limit:g} {goal.unit}"
        rows.append((goal.text, limit, shown, verdict(measured, goal.limit)))
    return "Goals", ("goal", "at most", "measured", "result"), [*rows]
