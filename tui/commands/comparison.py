# SPDX-License-Identifier: Apache-2.0
"""What changed from one run to another, the most important first.

A rate counts as changed when it rests on EVENTS or more, differs by the factor FACTOR, and by
more than DEVIATIONS standard deviations of the difference of two Poisson counts (the square root
of the counts, each over its time squared). Estimates from bursts have their standard errors
besides. A percentile must rest on enough calls in both runs.
"""

from __future__ import annotations

from math import inf, log2, log10, sqrt
from typing import Any, NamedTuple

from tui.commands.diff_input import Figure, Key, Run
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
_WEIGHTS = {
    "errors/s": 3.0, "not found/s": 3.0, "killed/s": 3.0, "exit code not 0/s": 2.0,
    "p99": 2.0, "p50": 1.5, "starts/s": 1.5, "% of a CPU": 1.5, "IPC": 1.5, "% busy": 2.0,
}  # fmt: skip
_PROBE_OF = {
    "syscall": "syscalls", "program": "execs", "target": "latency",
    "process": "pmc", "machine": "pmc",
}  # fmt: skip
_TITLES = {"syscalls": "system calls", "execs": "executions", "latency": "latency", "pmc": "PMC"}


class Change(NamedTuple):
    """A figure that differs. `ratio` is after / before, None where there was none before."""

    key: Key
    before: Figure
    after: Figure
    ratio: float | None

    @property
    def events(self) -> float:
        """What both rest on."""
        return self.before.events + self.after.events

    @property
    def weight(self) -> float:
        """How important it is: how much it changed, of how much, and what it is."""
        steps = min(6.0, abs(log2(self.ratio))) if self.ratio else 6.0
        return _WEIGHTS.get(self.key.quantity, 1.0) * steps * log10(10 + self.events)

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
    for key in {**a.figures, **b.figures}:
        probe = _PROBE_OF[key.what]
        if probe not in a.seconds or probe not in b.seconds:
            continue
        before, after = _figure(a, key), _figure(b, key)
        if before is None or after is None:
            continue
        if _differs(key, before, after, a.seconds[probe], b.seconds[probe]):
            ratio = after.value / before.value if before.value else None
            out.append(Change(key, before, after, ratio))
    return sorted(out, key=lambda change: (-change.weight, change.key))


def _figure(run: Run, key: Key) -> Figure | None:
    """A run's figure; a rate of what is not there is zero where nothing was left out."""
    found = run.figures.get(key)
    counted = key.quantity.endswith("/s") or key.quantity == "% of a CPU"
    if found is None and counted and key.what in run.closed:
        return Figure(0.0, 0.0)
    return found


def _differs(key: Key, a: Figure, b: Figure, a_seconds: float, b_seconds: float) -> bool:
    low, high = sorted((a.value, b.value))
    if high <= 0 or (high / low if low else inf) < FACTOR:
        return False
    if key.quantity in CALLS:
        return min(a.events, b.events) >= CALLS[key.quantity]
    if key.quantity in ("% of a CPU", "% busy"):
        return high - low >= CPU_PERCENT
    if key.quantity == "IPC":
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
    for probe, title in _TITLES.items():
        for run, other, name in ((a, b, "A"), (b, a, "B")):
            if probe in other.seconds and probe not in run.seconds:
                out.append(f"{name} has no {title}.")
    for run, name in ((a, "A"), (b, "B")):
        if run.damage:
            out.append(f"{name}: {run.damage}.")
    for probe, title in _TITLES.items():
        for run, name in ((a, "A"), (b, "B")):
            if probe in run.estimated:
                out.append(_in_bursts(name, probe, title, run.estimated[probe]))
    for what in ("program", "process", "syscall"):
        probe = _PROBE_OF[what]
        if any(probe in run.seconds and what not in run.closed for run in (a, b)):
            out.append(f"Some {what} rows are missing from a file: those are not compared.")
    return out


def _in_bursts(name: str, probe: str, title: str, seconds: float) -> str:
    """What estimates mean for the comparison."""
    if probe == "execs":
        return (
            f"{name} looked for failing executions in bursts for {duration(seconds)}: programs that"
            " were not found are not compared."
        )
    return (
        f"{name} measured {title} in bursts for {duration(seconds)}:"
        " figures with a ~ are estimates."
    )


def show(value: float, quantity: str, estimated: bool = False) -> str:
    """A figure with its unit; an estimate has a mark before it."""
    if estimated:
        return f"~{show(value, quantity)}"
    if quantity in CALLS:
        return fmt_ns(value)
    if quantity == "IPC":
        return f"{value:.2f}"
    return f"{value:.1f}%" if quantity.startswith("%") else fmt_count(value)


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
