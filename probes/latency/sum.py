# SPDX-License-Identifier: Apache-2.0
"""Latency targets over a span: what many intervals counted together.

See `probes.sums.accumulators`.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any, cast

from probes.core.adding import add_histogram, add_pairs, keep_first, only
from probes.core.changes import loses
from probes.core.delta import histogram_delta
from probes.core.estimates import add_all, add_duty, duty_between, estimate_delta
from probes.core.sample import Estimate, Sample
from probes.latency.sample import LatencySample, Spent, Target
from probes.latency.view import (
    continued,
    estimated_calls,
    restarted,
    spent_delta,
    target_seconds,
    with_bursts,
)
from probes.sums.accumulators import MOST_KEYS, MOST_NAMES, MOST_TIMED, SampleSum, Tick
from probes.sums.retention import KEPT, Left, leave
from probes.sums.summary_limits import TableLimits, coarse, cut


class LatencySum(SampleSum):
    """Latency targets over a span."""

    def __init__(self, kind: type[Sample] = LatencySample) -> None:
        super().__init__(kind)
        self._targets: dict[str, Target] = {}
        self._counting: dict[str, float] = {}
        self._processes: dict[tuple[str, int], Spent] = {}
        self._texts: dict[tuple[str, str], Spent] = {}
        self._estimated: dict[tuple[str, int], Estimate] = {}
        self._estimated_texts: dict[tuple[str, str], Estimate] = {}
        self._comms: dict[int, str] = {}

    def _take(self, old: Sample, after: Sample, tick: Tick) -> None:
        old, new = cast(LatencySample, old), cast(LatencySample, after)
        old = continued(old, new)
        for spec, target in new.targets.items():
            if target.spec in self._targets or len(self._targets) < MOST_TIMED:
                seconds = target_seconds(old, new, target, tick.seconds)
                self._take_target(old.targets.get(spec), target, seconds, tick)
        add_pairs(self._processes, spent_delta(old.processes, new.processes), Spent)
        add_pairs(self._texts, spent_delta(old.texts, new.texts), Spent)
        more = estimate_delta(old.estimated_processes, new.estimated_processes)
        add_all(self._estimated, more)
        add_all(self._estimated_texts, estimate_delta(old.estimated_texts, new.estimated_texts))
        for table in (self._estimated, self._estimated_texts):
            keep_first(cast("dict[Any, Any]", table), MOST_KEYS)
        self._comms.update(new.comms)
        keep_first(self._processes, MOST_KEYS)
        keep_first(self._texts, MOST_KEYS)
        if len(self._comms) > MOST_NAMES:
            pids = {pid for _, pid in (*self._processes, *self._estimated)}
            self._comms = only(self._comms, pids)
        self._prune(len(self._processes) + len(self._texts), new)

    def _leave_out(self, sample: LatencySample) -> int:
        untimed = {spec for spec, target in self._targets.items() if target.counts_only}
        for table, alive in ((self._processes, sample.processes), (self._texts, sample.texts)):
            for key in behind_first(table, alive, untimed):
                spent = table.pop(key)
                leave(self.left, key[0], 1, count=spent.n, total=spent.total)
        pids = {pid for _, pid in (*self._processes, *self._estimated)} | sample.comms.keys()
        self._comms = {pid: comm for pid, comm in self._comms.items() if pid in pids}
        return len(self._processes) + len(self._texts)

    def _loses(self, before: LatencySample, after: LatencySample) -> bool:
        for spec, old in before.targets.items():
            new = after.targets.get(spec)
            if new is None or new.state != old.state or new.histogram.n < old.histogram.n:
                return True
        return loses(before.processes, after.processes) or loses(before.texts, after.texts)

    def _take_target(self, old: Target | None, new: Target, seconds: float, tick: Tick) -> None:
        if old is not None and restarted(old, new):
            old = None
        spent = histogram_delta(old.histogram if old else None, new.histogram)
        total = self._targets.get(new.spec)
        self._targets[new.spec] = replace(
            new,
            histogram=add_histogram(total.histogram if total else None, spent),
            missed=(total.missed if total else 0) + max(0, new.missed - (old.missed if old else 0)),
            overflow=(total.overflow if total else 0)
            + max(0, new.overflow - (old.overflow if old else 0)),
            **_bursts(total, old, new),
        )
        more = duty_between(old.duty if old else None, new.duty)
        if new.state == "on" and (new.duty is None or more is not None or spent.n):
            name = f"calls {new.spec}"
            self._counting[new.spec] = self._counting.get(new.spec, 0.0) + seconds
            tick.counts[name] = spent.n + estimated_calls(old, new).n
            if seconds != tick.seconds:
                tick.counting[name] = seconds
            spent = with_bursts(spent, old, new)
            if spent.n and not new.counts_only:
                tick.spent[new.spec] = dict(spent.buckets)

    def cut(
        self, own: dict[str, Any], limits: TableLimits, left: Left, others: dict[str, Any]
    ) -> None:
        """All targets; of each the first of who is behind it, and fewer buckets if need be."""
        own["targets"] = targets = [dict(target) for target in own["targets"]]
        for target in targets:
            rest: dict[str, Any] = {}
            more = left.get(target["spec"])
            behind = cut(target["behind"], limits.behind, more, "behind", rest, ("count", "total"))
            target["behind"], target["others"] = behind, rest.get("behind")
        if sum([len(target["buckets"]) for target in targets]) > limits.buckets:
            for target in targets:
                target["buckets"] = coarse(target["buckets"])

    def mechanisms(self, own: dict[str, Any]) -> list[str]:
        """Those of the targets."""
        found = [target["mechanism"] for target in own["targets"] or ()]
        return list(dict.fromkeys([name for name in found if name is not None]))

    def _own(self) -> dict[str, Any]:
        targets = {
            spec: replace(target, began=max(0.0, self.seconds - self._counting.get(spec, 0.0)))
            for spec, target in self._targets.items()
        }
        return {
            "targets": targets, "processes": self._processes,
            "texts": self._texts, "comms": self._comms,
            "estimated_processes": self._estimated, "estimated_texts": self._estimated_texts,
        }  # fmt: skip


def _bursts(total: Target | None, old: Target | None, new: Target) -> dict[str, Any]:
    """What a target's bursts stand for, with those of the spans before."""
    duty = duty_between(old.duty if old else None, new.duty)
    known = {0: total.estimated} if total is not None else {}
    add_all(known, {0: estimated_calls(old, new)})
    seen = histogram_delta(old.in_bursts if old else None, new.in_bursts)
    return {
        "duty": add_duty(total.duty if total else None, duty),
        "estimated": known[0],
        "in_bursts": add_histogram(total.in_bursts if total else None, seen),
    }


def behind_first(
    table: Mapping[tuple[str, Any], Spent], alive: Container[Any], untimed: Container[str]
) -> list[tuple[str, Any]]:
    """Keys of targets' rows that neither live nor are among the first of their target."""
    by_spec: dict[str, list[tuple[int, int, Any]]] = {}
    for (spec, who), spent in table.items():
        total = 0 if spec in untimed else spent.total
        by_spec.setdefault(spec, []).append((-total, -spent.n, who))
    out: list[tuple[str, Any]] = []
    for spec, rows in by_spec.items():
        rows.sort()
        out += [(spec, who) for _, _, who in rows[KEPT:] if (spec, who) not in alive]
    return out
