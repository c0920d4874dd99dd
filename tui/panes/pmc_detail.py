# SPDX-License-Identifier: Apache-2.0
"""One process's counters, one per line, with the reason for each missing counter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from probes.pmc.bursts import CLOCK, MIGRATIONS, SWITCHES, WAIT
from probes.pmc.view import Count, Counters, PmcView, TaskRow
from tui.panes.pmc_columns import FAULTS, IPC, advice, fmt_share, fmt_small, metrics
from tui.panes.table import Column, Table
from tui.shared.styled_lines import Line, Span
from tui.shared.text import fmt_count, fmt_ns, fmt_percent, wrap


@dataclass(frozen=True, slots=True)
class Item:
    """A counter of the process: per second, per 1000 instructions, and the share of time it ran.

    `why` is the reason for a missing counter or number.
    """

    name: str
    rate: float | None = None
    per_ki: float | None = None
    share: float | None = None
    show: Callable[[float | None], str] = fmt_count
    scaled: bool = False
    why: str = ""
    estimated: bool = False


def table() -> Table[Item]:
    """The table of a process's counters, in the order in which they are fed."""
    return Table(
        [
            Column("counter", 22, _name, lambda r: r.name, right=False, most=32, middle=True),
            Column("/s", 8, _rate, lambda r: r.rate),
            Column("per 1k instr", 12, _per_ki, lambda r: r.per_ki, drop=1),
            Column("ran", 6, _ran, lambda r: r.share, drop=2),
            Column("", 12, lambda r: (r.why, "warn"), None, right=False, drop=3, grow=True),
        ],
        lambda item: item.name,
        lambda item: item.name,
        empty="nothing is counted",
        instead=lambda r: ("-  " + r.why, "dim") if r.why and r.rate is None else None,
    )


def _name(item: Item) -> Span:
    return (item.name, "dim" if item.rate is None else "name")


def _rate(item: Item) -> Span:
    mark = "*" if item.scaled else " "
    before = "~" if item.estimated and item.rate else ""
    return (before + item.show(item.rate) + mark, "value" if item.rate else "dim")


def _per_ki(item: Item) -> Span:
    return (fmt_small(item.per_ki), "text" if item.per_ki else "dim")


def _ran(item: Item) -> Span:
    style = "dim" if item.share is None else "warn" if item.scaled or not item.share else "text"
    return (fmt_share(item.share), style)


def items(row: TaskRow, view: PmcView) -> list[Item]:
    """All known values of a process, then the missing ones with their reasons."""
    sample = view.sample
    events = sorted(sample.events, key=lambda event: event in FAULTS)
    out = [_event(event, row.counts.get(event), row, view) for event in events]
    out += [
        _kept("task clock", CLOCK, float(row.clock), row, view, fmt_ns),
        _kept("run-queue wait", WAIT, row.wait, row, view, fmt_ns),
        _kept("context switches", SWITCHES, float(row.switches), row, view),
        _kept("migrations", MIGRATIONS, float(row.migrations), row, view),
    ]
    out += [Item(event, why=why) for event, why in sample.absent.items()]
    return out


def _event(event: str, count: Count | None, row: Counters, view: PmcView) -> Item:
    if count is None or count.share is None:
        return Item(event, why="not counted in this interval")
    if count.value is None:
        return Item(event, why="never ran: no counter was free for it")
    per_ki = row.per_ki(event) if event != "instructions" else None
    rate = count.value / view.seconds
    estimated = row.is_estimated(event)
    return Item(event, rate, per_ki, count.share, scaled=count.scaled, estimated=estimated)


def _kept(
    name: str,
    quantity: str,
    value: float | None,
    row: Counters,
    view: PmcView,
    show: Callable[[float | None], str] = fmt_count,
) -> Item:
    """The kernel's own counts, which never share a counter and so are never scaled."""
    if value is None:
        return Item(name, why="this kernel does not keep it")
    instructions = row.count("instructions")
    per_ki = 1000 * value / instructions if instructions and show is fmt_count else None
    estimated = row.is_estimated(quantity)
    return Item(name, value / view.seconds, per_ki, show=show, estimated=estimated)


def summary(row: TaskRow | None, view: PmcView, width: int) -> list[Line]:
    """The derived figures in one line, and the advice from their thresholds."""
    if row is None:
        return [((" did not run in this interval", "dim"),)]
    mark = "~" if row.is_estimated(CLOCK) else ""
    figures: list[tuple[str, str, str]] = [
        ("cpu", mark + fmt_percent(row.clock, 1e9 * view.seconds), "value")
    ]
    if view.sample.hardware:
        figures.append(("IPC", mark + fmt_small(row.ipc), IPC.style(row.ipc)))
        for metric in metrics(view.sample):
            value = metric.value(row, view.seconds)
            figures.append((metric.head, metric.show(value), metric.threshold.style(value)))
        if view.sample.mode == "all":
            figures.append(("GHz", fmt_small(view.gigahertz(row)), "text"))
    line: list[Span] = [(" ", "")]
    for name, text, style in figures:
        line += [(f"{name} ", "dim"), (f"{text:<7}", style)]
    said = [text for why in advice(row, view) for text in wrap(why, max(10, width - 2))]
    return [tuple(line), *[((" " + text, "warn"),) for text in said]]
