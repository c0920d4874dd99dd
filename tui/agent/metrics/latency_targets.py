# SPDX-License-Identifier: Apache-2.0
"""Latency targets as series: histograms of durations and of values, and plain counts."""

from __future__ import annotations

from collections.abc import Iterator

from probes.core.sample import Sample
from probes.core.schema import Schema
from probes.core.tables import comparable
from probes.latency.sample import LatencySample, Target
from probes.latency.view import estimated_calls, restarted
from tui.agent.metrics.families import OTHER, Family, counter, gauge, label
from tui.agent.metrics.histogram import DURATIONS, PLAIN, Spread
from tui.agent.metrics.increases import more, more_spent
from tui.agent.metrics.probe_collector import Collector
from tui.agent.metrics.top_series import Crowd
from tui.agent.state.client_view import View

MOST_SERIES = 256
"""Most targets with series of their own, those among them that were taken out not long ago."""
FORGET_SECONDS = 900.0
"""A target that was taken out keeps its series for so long, to go on if it is added again."""

Key = tuple[str, str]


class Series:
    """What one target counted since it was first seen.

    `spread` has durations, `values` values of no unit, `count` what was only counted: each is
    kept when the target changes from one to another. `estimated` are the calls that bursts stand
    for, and the variance of that: neither is in any of the others.
    """

    __slots__ = ("count", "estimated", "last", "missed", "overflow", "seen", "spread", "values")

    def __init__(self) -> None:
        self.spread: Spread | None = None
        self.values: Spread | None = None
        self.count: int | None = None
        self.estimated: tuple[int, int] | None = None
        self.missed = self.overflow = 0
        self.seen = 0.0

    def add(self, old: Target | None, new: Target) -> None:
        """Take in the next state of the target."""
        if old is not None and restarted(old, new):
            old = None
        self.missed += more(old.missed if old else None, new.missed)
        self.overflow += more(old.overflow if old else None, new.overflow)
        if new.duty is not None:
            more_calls, known = estimated_calls(old, new), self.estimated or (0, 0)
            self.estimated = (known[0] + more_calls.n, known[1] + more_calls.variance)
            return
        if new.counts_only:
            self.count = (self.count or 0) + more(old.histogram.n if old else None, new.histogram.n)
            return
        risen = more_spent(old.histogram if old else None, new.histogram)
        if new.unit == "ns":
            self.spread = self.spread or Spread(DURATIONS)
            self.spread.add(risen.buckets, risen.total)
        else:
            self.values = self.values or Spread(PLAIN)
            self.values.add(risen.buckets, risen.total)


class TargetCounters(Collector):
    """All latency targets."""

    def __init__(self, name: str, schema: Schema, crowd: Crowd) -> None:
        super().__init__(name, schema, crowd)
        self._last: LatencySample | None = None
        self._series: dict[Key, Series] = {}
        self._states: dict[str, float] = {}
        self._floors: dict[Key, float] = {}
        self._specs: dict[str, str] = {}

    def add(self, new: Sample, now: float) -> None:
        """Take in the next Sample; `now` are monotonic seconds."""
        self._states, self._floors = {}, {}
        if not isinstance(new, LatencySample) or new.state != "on":
            return
        old = comparable(self._last, new)
        # Who called is not exposed: a name for each would be without bounds.
        self._last = LatencySample(generation=new.generation, targets=new.targets)
        for spec, target in new.targets.items():
            if len(self._states) < MOST_SERIES:
                self._states[label(spec)] = float(target.state == "on")
                self._specs[label(spec)] = spec
            before = old.targets.get(spec)
            if target.mechanism is None:
                continue
            key, series = self._of(target)
            series.seen = now
            if before is not target:
                series.add(before, target)
            if target.floor is not None and key[0] != OTHER:
                self._floors[key] = target.floor / 1e9
        gone = [k for k, series in self._series.items() if now - series.seen > FORGET_SECONDS]
        for key in gone:
            del self._series[key]
        kept = {*self._states, *(key[0] for key in self._series)}
        self._specs = {name: spec for name, spec in self._specs.items() if name in kept}

    def _of(self, target: Target) -> tuple[Key, Series]:
        """The series of a target; those that are too many share one."""
        key = (label(target.spec), label(target.mechanism))
        if key not in self._series and len(self._series) >= MOST_SERIES:
            key = (OTHER, "")
        else:
            self._specs.setdefault(key[0], target.spec)
        return key, self._series.setdefault(key, Series())

    def families(self, view: View) -> Iterator[Family]:
        """What there is to expose; the view tells what is seen of a target's text."""
        labels = ("target", "mechanism")
        names = {known: label(view.spec(spec)) for known, spec in self._specs.items()}
        series = [((names.get(k[0], k[0]), k[1]), one) for k, one in self._series.items()]
        floors = [((names.get(k[0], k[0]), k[1]), floor) for k, floor in self._floors.items()]
        yield Family(
            "probetop_latency_seconds", "histogram", "How long the target took.", labels,
            [(key, one.spread) for key, one in series if one.spread],
        )  # fmt: skip
        yield Family(
            "probetop_target_value", "histogram",
            "Values of the target's argument or field, in its own unit.", labels,
            [(key, one.values) for key, one in series if one.values],
        )  # fmt: skip
        yield counter(
            "probetop_target_events", "Calls or events of a target that is only counted.", labels,
            [(key, one.count) for key, one in series if one.count is not None],
        )  # fmt: skip
        yield counter(
            "probetop_target_calls_estimated",
            "Calls of a target while it was attached in bursts, by what those saw; no other series "
            "has any of them.",
            labels, [(key, one.estimated[0]) for key, one in series if one.estimated is not None],
        )  # fmt: skip
        yield counter(
            "probetop_target_calls_estimated_variance",
            "The variance of the estimated calls, by how much bursts differ: the square root of "
            "its increase is their standard error.",
            labels, [(key, one.estimated[1]) for key, one in series if one.estimated is not None],
        )  # fmt: skip
        yield counter(
            "probetop_latency_missed",
            "Calls of a target whose duration is not known, or values that could not be read.",
            labels, [(key, one.missed) for key, one in series],
        )  # fmt: skip
        yield counter(
            "probetop_latency_overflow",
            "Calls of a target that found no room to note their start.",
            labels, [(key, one.overflow) for key, one in series],
        )  # fmt: skip
        yield gauge(
            "probetop_latency_floor_seconds",
            "What an empty function of this kind shows: the probes' own time.",
            labels, floors,
        )  # fmt: skip
        yield gauge(
            "probetop_target_up", "1 while the target is traced, 0 while it cannot be.",
            ("target",), [((names.get(spec, spec),), up) for spec, up in self._states.items()],
        )  # fmt: skip
