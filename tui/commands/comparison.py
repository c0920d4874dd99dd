# SPDX-License-Identifier: Apache-2.0
"""What changed from one run to another, the most important first.

A rate counts as changed when it rests on EVENTS or more, differs by the factor FACTOR, and by
more than DEVIATIONS standard deviations of the difference of two Poisson counts (the square root
of the counts, each over its time squared). Estimates from bursts have their standard errors
besides. A percentile must rest on enough calls in both runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, log2, log10, sqrt
from typing import Any, NamedTuple

from probes.core import schema
from tui.commands.diff_input import Run, schemas
from tui.commands.figures import Figure, Key, declared
from tui.export.words import duration
from tui.shared.text import fmt_count, fmt_ns

EVENTS, FACTOR, DEVIATIONS = 10, 1.25, 3.0
CALLS = {"p50": 100, "p99": 1000}
"""How many calls a percentile must rest on."""
CPU_PERCENT = 1.0
"""Smaller changes of CPU use say nothing."""
RULE = (
    f"Shown are rates that rest on at least {EVENTS} events and differ by a factor of {FACTOR:g} "
    f"or more and by more than {DEVIATIONS:g} standard deviations of their counts; percentiles "
    f"that differ by that factor and rest on at least {CALLS['p50']} calls (p50) or "
    f"{CALLS['p99']} (p99) in both; CPU use that differs by at least {CPU_PERCENT:g}% of a CPU."
)


class Change(NamedTuple):
    """A figure that differs. `ratio` is after / before, None where there was none before.

    `figure` is what its probe's schema declares of it.
    """

    key: Key
    before: Figure
    after: Figure
    ratio: float | None
    figure: schema.Figure

    @property
    def events(self) -> float:
        """What both rest on."""
        return self.before.events + self.after.events

    @property
    def weight(self) -> float:
        """How important it is: how much it changed, of how much, and what it is."""
        steps = min(6.0, abs(log2(self.ratio))) if self.ratio else 6.0
        return self.figure.weight * steps * log10(10 + self.events)

    def word(self) -> str:
        """The change in a word: "new", "gone", "x2.4"."""
        if not self.before.value:
            return "new"
        if not self.after.value:
            return "gone"
        ratio = self.ratio or 1.0
        return f"x{ratio:.0f}" if ratio >= 99.5 else f"x{ratio:.2g}"


def compare(a: Run, b: Run) -> list[Change]:
    """All figures that changed, the most important first."""
    out: list[Change] = []
    known = schemas()
    probe_of, figures = _probes_of(known), declared(known)
    for key in {**a.figures, **b.figures}:
        probe, figure = probe_of[key.what], figures[key.what, key.quantity]
        if probe not in a.seconds or probe not in b.seconds:
            continue
        before, after = (_figure(run, key, figure) for run in (a, b))
        if before is None or after is None:
            continue
        if _differs(figure, before, after, a.seconds[probe], b.seconds[probe]):
            ratio = after.value / before.value if before.value else None
            out.append(Change(key, before, after, ratio, figure))
    return sorted(out, key=lambda change: (-change.weight, change.key))


def _probes_of(known: Mapping[str, schema.Schema]) -> dict[str, str]:
    """The probe of each kind of item."""
    return {figures.what: name for name, one in known.items() for figures in one.all_figures()}


def _figure(run: Run, key: Key, figure: schema.Figure) -> Figure | None:
    """A run's figure; a rate of what is not there is zero where nothing was left out."""
    found = run.figures.get(key)
    if found is None and isinstance(figure, schema.Rate) and key.what in run.closed:
        return Figure(0.0, 0.0)
    return found


def _differs(
    figure: schema.Figure, a: Figure, b: Figure, a_seconds: float, b_seconds: float
) -> bool:
    low, high = sorted((a.value, b.value))
    if high <= 0 or (high / low if low else inf) < FACTOR:
        return False
    if isinstance(figure, schema.Percentile):
        return min(a.events, b.events) >= CALLS[figure.quantity]
    if figure.percent:
        return high - low >= CPU_PERCENT
    if isinstance(figure, schema.Ratio):
        return True
    a_variance, b_variance = (one.events + one.error**2 for one in (a, b))
    deviation = sqrt(a_variance / a_seconds**2 + b_variance / b_seconds**2)
    return a.events + b.events >= EVENTS and high - low > DEVIATIONS * deviation


def warnings(a: Run, b: Run) -> list[str]:
    """What makes the two runs hard to compare, one sentence each."""
    out = []
    for name, what in (("host", "hosts"), ("release", "kernels"), ("arch", "architectures")):
        if a.head[name] != b.head[name]:
            out.append(f"Different {what}: {a.head[name]} and {b.head[name]}.")
    if a.head["filters"] != b.head["filters"]:
        both = [run.head["filters"] or "none" for run in (a, b)]
        out.append(f"Different filters: {both[0]} and {both[1]}.")
    known = schemas()
    titles = {probe: one.title or probe for probe, one in known.items()}
    for probe, title in titles.items():
        for run, other, name in ((a, b, "A"), (b, a, "B")):
            if probe in other.seconds and probe not in run.seconds:
                out.append(f"{name} has no {title}.")
    for run, name in ((a, "A"), (b, "B")):
        if run.damage:
            out.append(f"{name}: {run.damage}.")
    for probe, title in titles.items():
        for run, name in ((a, "A"), (b, "B")):
            if probe in run.estimated:
                length = duration(run.estimated[probe])
                words = known[probe].in_bursts
                out.append(words.format(run=name, title=title, length=length))
    for probe, what in _items(known):
        if any(probe in run.seconds and what not in run.closed for run in (a, b)):
            out.append(f"Some {what} rows are missing from a file: those are not compared.")
    return out


def _items(known: Mapping[str, schema.Schema]) -> list[tuple[str, str]]:
    """Probes and kinds of items of which a file may not have all."""
    return [
        (probe, figures.what)
        for probe, one in known.items()
        for figures in one.all_figures()
        if figures.closes
    ]


def show(value: float, figure: schema.Figure, estimated: bool = False) -> str:
    """A figure with its unit; an estimate has a mark before it."""
    if estimated:
        return f"~{show(value, figure)}"
    if isinstance(figure, schema.Percentile):
        return fmt_ns(value)
    if figure.percent:
        return f"{value:.1f}%"
    return f"{value:.2f}" if isinstance(figure, schema.Ratio) else fmt_count(value)


def as_object(a: Run, b: Run, changes: list[Change]) -> dict[str, Any]:
    """The comparison as JSON: rates per second, percentiles in ns."""
    return {
        "diff": 1,
        "a": {"path": a.path, **a.head},
        "b": {"path": b.path, **b.head},
        "warnings": warnings(a, b),
        "rule": {"events": EVENTS, "factor": FACTOR, "deviations": DEVIATIONS,
                 "calls": CALLS, "cpu_percent": CPU_PERCENT},
        "compared": len({**a.figures, **b.figures}),
        "changes": [
            {**change.key._asdict(), "before": change.before.value, "after": change.after.value,
             "ratio": change.ratio, "change": change.word(),
             "events": [change.before.events, change.after.events],
             "error": [change.before.error or None, change.after.error or None]}
            for change in changes
        ],
    }  # fmt: skip
