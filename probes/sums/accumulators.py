# SPDX-License-Identifier: Apache-2.0
"""What many Frames of one run counted together: a Sample of the whole span for each probe.

The difference of the last Frame and the first would miss what began anew between them: a probe
that was off for a while, a process that ended and was forgotten. So every interval's own
difference (see `probes.core.delta`) is added up. The sums are cumulative Samples that begin at
zero: the contract's own code makes the rows of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

from probes.core.adding import add_to, keep_first
from probes.core.elapsed import counted_seconds
from probes.core.estimates import add_duty, duty_of
from probes.core.sample import Duty, Sample
from probes.sums.retention import ROOM, Left
from probes.sums.summary_limits import TableLimits, cut

MOST_KEYS = 50_000
"""Keys of tables in which a real machine has some hundreds: calls, errnos, CPUs, names."""
MOST_ROWS = 1_000_000
"""Rows of tables by process."""
MOST_NAMES = 100_000
"""Names of processes, above which those go of processes that have no row."""
MOST_TIMED = 1000
"""Calls and targets whose durations are kept."""


@dataclass(slots=True)
class Tick:
    """What graphs need of one interval, or of several together.

    `seconds` is for how many the probe counted, 0.0 while it is off; `counting` the same of what
    began later, by name. `counts` are numbers to be added up, by name; what is not known is
    absent. `spent` has the durations (or values) of each latency target, by histogram bucket, of
    those that have any.
    """

    seconds: float
    counts: dict[str, float] = field(default_factory=dict)
    spent: dict[str, dict[int, int]] = field(default_factory=dict)
    counting: dict[str, float] = field(default_factory=dict)

    def of(self, name: str) -> float:
        """For how many seconds the count of this name was counted."""
        if name not in self.counts:
            return 0.0
        return self.counting.get(name, self.seconds)

    def add(self, other: Tick) -> None:
        """Take in the interval that follows; a count that one of them lacks is of the other."""
        seconds = self.seconds + other.seconds
        counting = {
            name: self.of(name) + other.of(name) for name in {**self.counts, **other.counts}
        }
        self.counting = {name: own for name, own in counting.items() if own != seconds}
        self.seconds = seconds
        for name, value in other.counts.items():
            self.counts[name] = self.counts.get(name, 0) + value
        for spec, buckets in other.spent.items():
            add_to(self.spent.setdefault(spec, {}), buckets)


class SampleSum:
    """One probe over a span. `seconds` is for how long it ran.

    Cost: `events` are of the span, `cpu_percent` is the mean over the time in which it was
    known, the others are the last known ones. `every` says that each Frame has what no later
    one repeats. `left` has of each table how many rows were left out because they come behind
    the first KEPT for good, and what their numbers add up to; targets' have their spec as key.
    """

    every = False

    def __init__(self, kind: type[Sample]) -> None:
        self.last: Sample = kind()
        self.seconds = 0.0
        self.left: Left = {}
        self._lost = 0
        self._counted = 0
        self._spent = [0.0, 0.0]
        self._known = kind().cost
        self._notes: dict[str, None] = {}
        self._on: Sample | None = None
        self._duty: Duty | None = None
        self._room = ROOM

    def add(self, before: Sample | None, after: Sample, tick: Tick) -> None:
        """Take in one interval and put into `tick` what the graphs need of it.

        Without `before` the probe was not there; a probe that was attached within the interval
        has seen a part of it. `tick` gets the length of that part.
        """
        self.last = after
        if after.given_up:
            self._notes[f"to stay within the budget, at times: {after.given_up}"] = None
        if after.state != "on":
            tick.seconds = 0.0
            return
        tick.seconds = counted_seconds(before, after, tick.seconds)
        fresh = before is None or before.generation != after.generation
        old = type(after)(generation=after.generation) if fresh or before is None else before
        self.seconds += tick.seconds
        self._lost += max(0, after.lost - old.lost)
        self._counted += max(0, after.cost.events - old.cost.events)
        self._duty = add_duty(self._duty, duty_of(old, after))
        self._take_cost(after, tick.seconds)
        self._notes |= dict.fromkeys(after.notes)
        keep_first(self._notes, MOST_TIMED)
        self._on = after
        self._take(old, after, tick)

    def loses(self, before: Sample | None, after: Sample | None) -> bool:
        """Whether `before` knows what `after` does not: then it cannot be left out."""
        if before is None or after is None or type(before) is not type(after):
            return before is not after
        same = (
            before.state == after.state
            and before.generation == after.generation
            and before.given_up == after.given_up
            and before.notes == after.notes
        )
        return not same or (after.state == "on" and self._loses(before, after))

    def _loses(self, before: Any, after: Any) -> bool:
        """The same of the probe's own fields, where it is on in both."""
        return False

    def _take_cost(self, after: Sample, seconds: float) -> None:
        cost = after.cost
        if cost.cpu_percent is not None:
            self._spent[0] += cost.cpu_percent * seconds
            self._spent[1] += seconds
        known = {name: v for name, v in cost._asdict().items() if v is not None}
        self._known = self._known._replace(**known)

    def _take(self, old: Sample, after: Sample, tick: Tick) -> None:
        """What the probe itself counted."""

    def _prune(self, size: int, sample: Any) -> None:
        """Leave out what no table will show, if there are so many rows that it is worth it.

        Keys that are in `sample` may grow yet. Of the others those stay that come first.
        """
        if size > self._room:
            left = self._leave_out(sample)
            self._room = left + max(left, ROOM)

    def _leave_out(self, sample: Any) -> int:
        """Does so; returns how many rows there are still."""
        return 0

    def sample(self) -> Sample:
        """The whole span as one Sample that began at zero."""
        spent, seconds = self._spent
        cost = self._known._replace(
            events=self._counted, cpu_percent=spent / seconds if seconds else None
        )
        last = self._on or self.last
        common: dict[str, Any] = {
            "state": self.last.state, "why": self.last.why, "fix": self.last.fix,
            "lost": self._lost, "cost": cost, "notes": tuple(self._notes), "generation": 0,
            "counted": max(0.0, self.seconds - (self._duty.seconds if self._duty else 0.0)),
            "duty": self._duty, "given_up": self.last.given_up,
        }  # fmt: skip
        return replace(last, **common, **self._own())

    def _own(self) -> dict[str, Any]:
        """The probe's own fields."""
        return {}

    def finish(self, sample: Sample, own: dict[str, Any], left: Left) -> dict[str, Any]:
        """The fields of a summary's object: `own` has those of a stream object of the span."""
        return own

    def cut(
        self, own: dict[str, Any], limits: TableLimits, left: Left, others: dict[str, Any]
    ) -> None:
        """Shorten the tables in `own` to the limits, and note in `others` what is left out.

        `left` was left out before.
        """
        for table in self.last.schema.tables:
            if own.get(table.name) is not None and table.limit:
                rows, limit = own[table.name], getattr(limits, table.limit)
                own[table.name] = cut(
                    rows, limit, left.get(table.name), table.name, others, table.sums
                )

    def mechanisms(self, own: dict[str, Any]) -> list[str] | None:
        """How the probe heard of events, where `own` tells that; None where its plan does."""
        return None


def sum_of(kind: type[Sample]) -> SampleSum:
    """The sum for Samples of this class, as their schema has it."""
    path = kind.schema.sum_path or "probes.sums.table_sum:TableSum"
    # Sums are for snapshots and comparisons: who only shows a stream does without them.
    module, _, name = path.partition(":")
    made: type[SampleSum] = getattr(import_module(module), name)
    return made(kind)
