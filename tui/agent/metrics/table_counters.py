# SPDX-License-Identifier: Apache-2.0
"""Metrics of a probe by nothing but its schema: counters, gauges and histograms of its tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from probes.core.changes import changed
from probes.core.sample import Sample
from probes.core.schema import MeasureColumn, Schema, TableSchema
from probes.core.tables import comparable, estimates, vector
from tui.agent.metrics.families import OTHER, Family, counter, gauge, label
from tui.agent.metrics.histogram import DURATIONS, PLAIN, Spread
from tui.agent.metrics.increases import more, more_spent
from tui.agent.metrics.probe_collector import Collector
from tui.agent.metrics.top_series import Crowd
from tui.agent.state.client_view import View

MOST_SERIES = 1024
"""Most combinations of a table's labels; further ones are `other`."""
_UNFIT = re.compile("[^a-z0-9_]")
_UNITS = {"": "", "ns": "_seconds", "bytes": "_bytes"}
Labels = tuple[str, ...]


class TableCounters(Collector):
    """All tables. Processes are no labels, for there would be no end of them: they are summed."""

    def __init__(self, name: str, schema: Schema, crowd: Crowd) -> None:
        super().__init__(name, schema, crowd)
        self._last: Sample | None = None
        self._series = [_Series(name, table) for table in schema.made()]

    def add(self, new: Sample, now: float) -> None:
        """Take in the next Sample."""
        if new.schema is not self.schema or new.state != "on":
            for one in self._series:
                one.gauges.clear()
            return
        old = comparable(self._last, new)
        self._last = new
        for one in self._series:
            one.add(old, new)

    def families(self, view: View) -> Iterator[Family]:
        """A family for each measure, and one for what of it is estimated from bursts."""
        for one in self._series:
            yield from one.families()


class _Series:
    """One table: numbers and Spreads of each measure, by labels."""

    def __init__(self, probe: str, table: TableSchema) -> None:
        self.table = table
        self._prefix = f"probetop_{_UNFIT.sub('_', probe)}"
        self._named = [at for at, key in enumerate(table.key) if not key.process]
        self._labels = tuple([_UNFIT.sub("_", table.key[at].name) for at in self._named])
        self._known: dict[Labels, Labels] = {}
        self._counts: list[dict[Labels, int]] = [{} for _ in table.measures]
        self._estimates: dict[Labels, int] = {}
        self._spreads: dict[Labels, Spread] = {}
        self.gauges: dict[tuple[int, Labels], float] = {}

    def _of(self, key: Any) -> Labels:
        """The labels of a row; those that are too many share one series."""
        parts = key if len(self.table.key) > 1 else (key,)
        raw = tuple([str(parts[at]) for at in self._named])
        known = self._known.get(raw)
        if known is None:
            if len(self._known) >= MOST_SERIES:
                return (OTHER,) * len(raw)
            known = self._known[raw] = tuple([label(text) for text in raw])
        return known

    def add(self, old: Sample, new: Sample) -> None:
        """Take in what one Sample has more than the other."""
        table, (before, after) = self.table, (getattr(s, self.table.field) for s in (old, new))
        if table.measures[0].kind == "histogram":
            unit = DURATIONS if table.measures[0].unit == "ns" else PLAIN
            for key, was, histogram in changed(before, after):
                spent = more_spent(was, histogram)
                if spent.buckets:
                    spread = self._spreads.setdefault(self._of(key), Spread(unit))
                    spread.add(spent.buckets, spent.total)
            return
        counters = [at for at, one in enumerate(table.measures) if one.kind == "counter"]
        for key, was, value in changed(before, after):
            labels, first = self._of(key), None if was is None else vector(table, was)
            for at in counters:
                now = vector(table, value)[at]
                if now is not None:
                    risen = more(first[at] if first else None, now)
                    self._counts[at][labels] = self._counts[at].get(labels, 0) + risen
        for key, part in estimates(table, old, new).items():
            labels = self._of(key)
            self._estimates[labels] = self._estimates.get(labels, 0) + part.n
        self._take_gauges(after)

    def _take_gauges(self, rows: Any) -> None:
        self.gauges = {}
        places = [at for at, one in enumerate(self.table.measures) if one.kind == "gauge"]
        if places:
            for key, value in rows.items():
                for at in places:
                    number = vector(self.table, value)[at]
                    if number is not None:
                        place = (at, self._of(key))
                        self.gauges[place] = self.gauges.get(place, 0) + number

    def families(self) -> Iterator[Family]:
        """What there is to expose."""
        for at, measure in enumerate(self.table.measures):
            name = f"{self._prefix}_{_UNFIT.sub('_', measure.name)}{_UNITS[measure.unit]}"
            by = 1e9 if measure.unit == "ns" else 1
            text = _text(self.table, measure)
            if measure.kind == "histogram":
                yield Family(name, "histogram", text, self._labels, list(self._spreads.items()))
            elif measure.kind == "gauge":
                points = [(key, n / by) for (of, key), n in self.gauges.items() if of == at]
                yield gauge(name, text, self._labels, points)
            else:
                counts = [(key, n / by) for key, n in self._counts[at].items()]
                yield counter(name, text, self._labels, counts)
                if at == 0 and self.table.estimated:
                    made = [(key, n / by) for key, n in self._estimates.items()]
                    yield counter(
                        f"{name}_estimated", f"{text} What bursts stand for, an estimate.",
                        self._labels, made,
                    )  # fmt: skip


def _text(table: TableSchema, measure: MeasureColumn) -> str:
    title = measure.title or measure.name
    meaning = f": {measure.help}" if measure.help else ""
    return f"{title.capitalize()}{meaning} ({table.title or table.name})."
