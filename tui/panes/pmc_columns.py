# SPDX-License-Identifier: Apache-2.0
"""The PMC pane's figures: the metrics of each event set, thresholds, table columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from probes.core.estimates import factor
from probes.pmc.bursts import CLOCK, MIGRATIONS, SWITCHES, WAIT
from probes.pmc.sample import PmcSample
from probes.pmc.view import Counters, PmcView, TaskRow
from tui.panes.table import Column
from tui.shared.styled_lines import Span
from tui.shared.text import UNKNOWN, fmt_count, fmt_ns, fmt_percent, fmt_within

FAULTS = ("page-faults", "major-faults")
FIXED = ("cycles", "instructions", *FAULTS)
"""Events with a column of their own, or none, in every set."""


class Threshold(NamedTuple):
    """A threshold: a value beyond `warn` deserves a look, one beyond `bad` is a problem.

    `why` is the explanation.
    """

    warn: float
    bad: float
    why: str
    low: bool = False

    def style(self, value: float | None) -> str:
        """The style of a value."""
        if value is None:
            return "dim"
        if self.low:
            return "bad" if value < self.bad else "warn" if value < self.warn else "text"
        return "bad" if value > self.bad else "warn" if value > self.warn else "text"


IPC = Threshold(
    1.0, 0.5, "IPC under 0.5: the CPU waits more than it works, look for stalls", low=True
)
PLAIN = Threshold(float("inf"), float("inf"), "")


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure computed from events: its column's `head`, its graph's `title`, its formula.

    `value` takes an interval's counters and its seconds. All `events` must be counted.
    """

    head: str
    title: str
    events: tuple[str, ...]
    value: Callable[[Counters, float], float | None]
    show: Callable[[float | None], str]
    threshold: Threshold = PLAIN


def fmt_small(value: float | None) -> str:
    """A ratio in at most 5 cells, with two decimals below 10: "0.54", "21.3", "1.20k"."""
    if value is None or value >= 999.5:
        return fmt_count(value)
    if 0 < value < 0.005:
        return "<0.01"
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def fmt_share(value: float | None) -> str:
    """A fraction as a percentage."""
    return fmt_percent(value, 1.0)


def per_ki(head: str, event: str, threshold: Threshold = PLAIN) -> Metric:
    """Events per 1000 instructions."""
    title = f"{event} per 1000 instructions"
    return Metric(
        head, title, (event, "instructions"), lambda c, s: c.per_ki(event), fmt_small, threshold
    )


def share(head: str, event: str, of: str, threshold: Threshold = PLAIN) -> Metric:
    """The fraction of the events `of`."""
    title = f"{event} of {of}"
    return Metric(head, title, (event, of), lambda c, s: c.ratio(event, of), fmt_share, threshold)


def rate(head: str, event: str) -> Metric:
    """Events per second."""

    def value(counters: Counters, seconds: float) -> float | None:
        count = counters.count(event)
        return None if count is None else count / seconds

    return Metric(head, f"{event} a second", (event,), value, fmt_count)


CACHE = Threshold(5.0, 20.0, "over 20 cache misses per 1000 instructions: memory is the limit")
BRANCHES = Threshold(0.03, 0.08, "over 8 % of branches mispredicted: unpredictable data or code")
FRONT = Threshold(0.2, 0.4, "front end stalled over 40 %: code does not come in fast enough")
BACK = Threshold(0.3, 0.6, "back end stalled over 60 %: waits for memory or for execution units")
TLB = Threshold(1.0, 5.0, "over 5 dTLB misses per 1000 instructions: try huge pages")
METRICS: dict[str, tuple[Metric, ...]] = {
    "base": (
        per_ki("miss/ki", "cache-misses", CACHE),
        share("brmiss", "branch-misses", "branches", BRANCHES),
    ),
    "cache": (
        per_ki("miss/ki", "cache-misses", CACHE),
        share("miss%", "cache-misses", "cache-references"),
        per_ki("L1d/ki", "L1-dcache-load-misses"),
        per_ki("LLC/ki", "LLC-load-misses"),
    ),
    "branch": (
        share("brmiss", "branch-misses", "branches", BRANCHES),
        per_ki("brm/ki", "branch-misses"),
        per_ki("br/ki", "branches"),
    ),
    "stalls": (
        share("back", "stalled-cycles-backend", "cycles", BACK),
        share("front", "stalled-cycles-frontend", "cycles", FRONT),
        rate("bus/s", "bus-cycles"),
    ),
    "tlb": (
        per_ki("dTLB/ki", "dTLB-load-misses", TLB),
        share("dTLB%", "dTLB-load-misses", "dTLB-loads"),
        per_ki("iTLB/ki", "iTLB-load-misses"),
    ),
}


def metrics(sample: PmcSample) -> list[Metric]:
    """The metrics of this event set whose events are all counted."""
    known = METRICS.get(sample.event_set)
    if known is None:
        own = [event for event in sample.events if event not in FIXED]
        return [rate(event[:9] + "/s", event) for event in own]
    return [metric for metric in known if set(metric.events) <= set(sample.events)]


def advice(row: Counters, view: PmcView) -> list[str]:
    """The advice for a process, from the thresholds that it exceeds."""
    out = [IPC.why] if row.ipc is not None and row.ipc < IPC.bad else []
    return out + [
        metric.threshold.why
        for metric in metrics(view.sample)
        if metric.threshold.style(metric.value(row, view.seconds)) == "bad"
    ]


# -- the table ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """A process in an interval; `quiet` is True if it has not run recently."""

    task: TaskRow
    view: PmcView
    quiet: bool = False

    @property
    def number(self) -> int:
        """The number that identifies the process over time."""
        return self.task.number

    @property
    def pid(self) -> int:
        """The process id."""
        return self.task.pid

    def rate(self, count: float | None) -> float | None:
        """A count of the interval, per second."""
        return None if count is None else count / self.view.seconds

    def mark(self, value: float | None, *quantities: str) -> str:
        """The mark before a number that is extrapolated from bursts."""
        return "~" if value and self.task.is_estimated(*quantities) else ""

    @property
    def within(self) -> float | None:
        """The uncertainty of the CPU time in ns; None if the time was counted."""
        error, duty = self.task.error(CLOCK, self.view.duty), self.view.duty
        return None if error is None or duty is None else error * factor(duty)


def words(row: Row) -> str:
    """The text that the filter searches."""
    return f"{row.task.comm} {row.task.pid}"


def _marked(text: str, row: Row, marks: bool, *events: str) -> str:
    """Add a mark to an estimate; other rows keep the mark's cell free."""
    if not marks:
        return text
    return text + ("*" if text != UNKNOWN and row.task.is_scaled(*events) else " ")


def _number(
    name: str,
    cells: int,
    value: Callable[[Row], float | None],
    show: Callable[[float | None], str] = fmt_count,
    drop: int = 0,
    of: tuple[str, ...] = (),
) -> Column[Row]:
    """A column of the kernel's own counts of these quantities."""

    def cell(row: Row) -> Span:
        found = value(row)
        return (row.mark(found, *of) + show(found), "text" if found else "dim")

    return Column(name, cells, cell, value, drop=drop)


def _metric_column(metric: Metric, marks: bool, drop: int) -> Column[Row]:
    def value(row: Row) -> float | None:
        return metric.value(row.task, row.view.seconds)

    def cell(row: Row) -> Span:
        found = value(row)
        text = _marked(metric.show(found), row, marks, *metric.events)
        return (row.mark(found, *metric.events) + text, metric.threshold.style(found))

    return Column(metric.head, max(6, len(metric.head)) + marks, cell, value, drop=drop)


def _cycles(marks: bool) -> Column[Row]:
    def value(row: Row) -> float | None:
        return row.rate(row.task.count("cycles"))

    def cell(row: Row) -> Span:
        found = value(row)
        style = "dim" if found is None else "value"
        text = _marked(fmt_count(found), row, marks, "cycles")
        return (row.mark(found, "cycles") + text, style)

    return Column("cyc/s", 6 + marks, cell, value)


def _ipc(marks: bool) -> Column[Row]:
    def cell(row: Row) -> Span:
        ipc = row.task.ipc
        text = _marked(fmt_small(ipc), row, marks, "cycles", "instructions")
        return (row.mark(ipc, "cycles") + text, IPC.style(ipc))

    return Column("IPC", 5 + marks, cell, lambda r: r.task.ipc)


def _first_columns() -> list[Column[Row]]:
    return [
        Column("pid", 7, lambda r: (str(r.pid), "dim"), lambda r: r.pid),
        Column(
            "process",
            12,
            lambda r: (r.task.comm, "dim" if r.quiet else "proc"),
            lambda r: r.task.comm,
            right=False,
            most=16,
        ),
        Column(
            "cpu",
            6,
            lambda r: (
                r.mark(r.task.clock, CLOCK) + fmt_percent(r.task.clock, 1e9 * r.view.seconds),
                "dim" if r.quiet else "value",
            ),
            lambda r: r.task.clock,
        ),
    ]


def _slice(row: Row) -> float | None:
    return row.task.clock / row.task.switches if row.task.switches else None


def _last_columns() -> list[Column[Row]]:
    """The columns that need no hardware counters; the most useful one is dropped last."""
    return [
        _number("wait/s", 6, lambda r: r.rate(r.task.wait), fmt_ns, drop=3, of=(WAIT,)),
        _number("ctx/s", 6, lambda r: r.rate(r.task.switches), drop=4, of=(SWITCHES,)),
        _number("flt/s", 6, lambda r: r.rate(r.task.count(FAULTS[0])), drop=5, of=(FAULTS[0],)),
        _number("migr/s", 6, lambda r: r.rate(r.task.migrations), drop=6, of=(MIGRATIONS,)),
        _number("slice", 6, _slice, fmt_ns, drop=8, of=(CLOCK, SWITCHES)),
    ]


def _within() -> Column[Row]:
    """The uncertainty of the CPU time in per cent, while it is estimated."""

    def cell(row: Row) -> Span:
        off = row.within
        return ("" if off is None else fmt_within(off, row.task.clock), "dim")

    return Column("±", 4, cell, lambda row: row.within, drop=7)


def columns(sample: PmcSample, marks: bool, estimated: bool = False) -> list[Column[Row]]:
    """The columns for the counters of this Sample; with `marks` each has a cell for the mark.

    If the CPU time is `estimated`, there is a column for its uncertainty and a cell for its mark.
    """
    shown = _columns(sample, marks)
    if not estimated:
        return shown
    wide = [
        column if column.name in ("pid", "process") else replace(column, cells=column.cells + 1)
        for column in shown
    ]
    at = [column.name for column in wide].index("cpu") + 1
    return [*wide[:at], _within(), *wide[at:]]


def _columns(sample: PmcSample, marks: bool) -> list[Column[Row]]:
    own = [_metric_column(one, marks, min(at, 1) + 1) for at, one in enumerate(metrics(sample))]
    if not sample.hardware:
        unknown = [replace(_cycles(False), drop=10), replace(_ipc(False), drop=9)]
        return [*_first_columns(), *own, *_last_columns(), *unknown]
    out = _first_columns()
    if "cycles" in sample.events:
        out.append(_cycles(marks))
    if {"cycles", "instructions"} <= set(sample.events):
        out.append(_ipc(marks))
    out += [*own, *_last_columns()]
    if "cycles" in sample.events and sample.mode == "all":
        clock = _number("GHz", 5, lambda r: r.view.gigahertz(r.task), fmt_small, drop=7)
        out.append(clock)
    return out


def first_sort(shown: Sequence[Column[Row]], hardware: bool) -> int:
    """The initial sort column: cycles, else CPU time."""
    names = [column.name for column in shown]
    return names.index("cyc/s" if hardware and "cyc/s" in names else "cpu")


def note_of_marks(view: PmcView) -> str | None:
    """The explanation of the mark, with the share of time that the counters ran."""
    running = view.machine.running
    if not running or not any(count.scaled for count in view.machine.counts.values()):
        return None
    return f"* scaled: more events than counters, each counted {fmt_share(running)} of the time"


def never_ran(view: PmcView) -> list[str]:
    """Requested events that got no counter in the interval."""
    counts = view.machine.counts
    return [event for event in view.sample.events if event in counts and counts[event].share == 0]
