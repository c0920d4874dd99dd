# SPDX-License-Identifier: Apache-2.0
"""How the latency probe has targets attached in bursts, and takes in what those counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from probes.broker.units import Link, Unit, Units
from probes.budget.slowdown import Threads
from probes.core.sample import Duty, Histogram
from probes.ipc.messages import BurstReport, Recipe
from probes.latency.degradation import COUNTED, EVENTS, Ladders
from probes.latency.facts import TargetFacts
from probes.latency.probe import NO_BURSTS, LatencyProbe
from probes.latency.sample import Target
from probes.latency.target_bursts import TargetBursts
from tests.unit.probes.latency.test_latency_replace import FakeUnit
from tests.unit.target_facts import target_facts

MS = 1_000_000
QUARTER, RARE = 2, 3
SPEC = "uprobe:libc:malloc"


class SampledUnit(FakeUnit):
    """One target that is attached in bursts."""

    def __init__(self, spec: str) -> None:
        super().__init__(spec)
        self.number = 7
        self.bursts: Any = TargetBursts(threads=Threads(lambda pid: {}), clock=lambda: 0.0)
        self.seen = Histogram({}, 0, 0)
        self.asked: list[tuple[int, int]] = []

    def attach_in(self, slot: int, level: Any) -> None:
        self.asked.append((level.on, level.period))

    def look(self, slot: int, counts_only: bool) -> int:
        return 0

    def take(self, report: BurstReport, price: float) -> None:
        self.seen = Histogram({40: self.seen.n + 5}, self.seen.n + 5, 0)
        self.switching = 1.5
        self.bursts.add(report, 5, {}, price)


def facts() -> TargetFacts:
    return target_facts(floor="uprobe push")


def sampled() -> tuple[LatencyProbe, SampledUnit]:
    probe = LatencyProbe()
    probe.set_option("targets", [SPEC, "runq", "uprobe:libc:free"])
    unit = SampledUnit(SPEC)
    probe._ladders.learn(SPEC, facts(), {})
    probe._ladders.put(SPEC, QUARTER)
    probe._targets[SPEC] = Target(spec=SPEC, state="on", duty=Duty())
    probe._units = cast(Any, [unit])
    return probe, unit


def report(number: int, kind: Any = "burst") -> BurstReport:
    since = number * 1200 * MS
    return BurstReport(7, 0, number, kind, since, since, since + 300 * MS, since + 1200 * MS)


def test_what_is_attached_in_bursts_is_loaded_alone() -> None:
    probe, _ = sampled()
    assert probe.params()["targets"] == ["runq", "uprobe:libc:free"]
    probe._targets = {spec: Target(spec=spec) for spec in (SPEC, "runq")}
    probe._specs = [SPEC, "runq"]
    assert probe.params()["targets"] == [SPEC]
    probe._specs = ["runq", SPEC]
    assert probe.params()["targets"] == ["runq"]


def test_longer_or_shorter_bursts_take_no_loading() -> None:
    probe, unit = sampled()
    assert not probe.give_up(SPEC, RARE, "over 2 % CPU", "wait")
    assert unit.asked == [(COUNTED[RARE].on, COUNTED[RARE].period)]
    assert probe.targets[SPEC].state == "on"
    assert f"{COUNTED[RARE].on} ms" in (probe.targets[SPEC].why or "")
    # Attached always, other programs count.
    assert probe.give_up(SPEC, 0, "", "")
    assert unit.closed
    assert probe.targets[SPEC] == Target(spec=SPEC)


def test_bursts_are_taken_in_as_estimates_beside_what_was_counted() -> None:
    probe, _ = sampled()
    for number in (1, 2):
        probe.burst(report(number))
    found = probe.targets[SPEC]
    assert (found.histogram.n, found.in_bursts.n, found.estimated.n) == (0, 10, 40)
    assert found.duty is not None
    assert found.duty.bursts == 2
    assert probe.meter.switching == 1.5
    probe.set_option("remove", SPEC)
    assert probe.meter.switching == 0.0


def test_reports_of_others_change_nothing() -> None:
    probe, _ = sampled()
    before = probe.targets
    probe.burst(replace_unit(report(1), 8))
    probe.burst(report(1, "paused"))
    assert probe.targets == before


def replace_unit(one: BurstReport, unit: int) -> BurstReport:
    return BurstReport(unit, one.group, one.number, one.kind)


def test_what_cannot_be_attached_in_bursts_is_only_counted_instead() -> None:
    probe, unit = sampled()
    probe.burst(report(0, "failed"))
    assert unit.closed
    assert probe.meter.outdated
    assert probe.params()["counted"] == [SPEC]
    assert [level.words for level in probe._ladders.ladder(SPEC)] == ["", "counts only", "detached"]


def test_an_event_that_cannot_be_is_detached_and_says_why() -> None:
    probe, _ = sampled()
    probe._ladders.learn(SPEC, target_facts(floor="uprobe push", countable=False), {})
    probe._ladders._countable.clear()
    probe.burst(report(0, "failed"))
    found = probe.targets[SPEC]
    assert (found.state, found.given_up, found.why) == ("failed", True, NO_BURSTS)


def test_the_header_names_what_is_sampled() -> None:
    ladders = Ladders()
    for spec in (SPEC, "uprobe:libc:free"):
        ladders.learn(spec, facts(), {})
    ladders.put(SPEC, RARE)
    assert ladders.given_up() == "malloc sampling 1 s in 16"
    ladders.put("runq", len(EVENTS) - 1)
    assert ladders.given_up() == "malloc sampling 1 s in 16, 1 target given up"
    ladders.put("uprobe:libc:free", RARE)
    assert ladders.given_up() == "2 targets sampling, 1 target given up"


@pytest.mark.parametrize("steps", [COUNTED, EVENTS])
def test_each_step_costs_less_and_in_five_seconds_there_are_two_bursts(steps: Any) -> None:
    weights = [level.weight for level in steps]
    assert weights == sorted(weights, reverse=True)
    assert all(2 * level.period <= 5000 for level in steps)


def unit_of(*links: Link) -> Units:
    units = Units(lambda fds: None)
    gate = cast(Any, object())
    units._units[1] = Unit([10], list(links), [], [], 0, gate)
    return units


def test_only_what_is_alone_and_can_be_made_again_is_attached_in_long_bursts() -> None:
    user = Recipe("uprobe_multi", places=((16, 0),))
    end = Recipe("raw_tracepoint", target="sched_process_exit")
    units = unit_of(Link(0, 5, user), Link(0, 6, end))
    found = units.bound(1, 0)
    assert found is not None
    assert found.recipes == [user, end]
    assert units.has_long(1, 0)
    # None of it is what the broker switches itself: closing a uprobe would hold it up.
    assert units.switchable(1, None) == [Link(0, 6, end)]
    assert unit_of(Link(0, 5, user), Link(1, 6, user)).bound(1, 0) is None
    assert unit_of(Link(0, 5, user), Link(0, 6, Recipe())).bound(1, 0) is None
    assert not unit_of(Link(0, 6, end)).has_long(1, 0)
    assert unit_of().bound(1, 0) is None
    assert units.bound(2, 0) is None


def test_pausing_a_group_has_others_close_what_it_holds() -> None:
    closed: list[int] = []
    units = unit_of(Link(0, 5, Recipe("uprobe_multi")), Link(1, 6, Recipe("uprobe_multi")))
    units._close = closed.extend
    units.pause_all(1, 0)
    assert closed == [5]
    assert [link.fd for link in units._units[1].links] == [-1, 6]


def test_a_target_that_is_detached_for_good_is_not_touched_by_bursts() -> None:
    probe, _ = sampled()
    assert not probe.give_up(SPEC, len(COUNTED) - 1, "given up", "wait")
    found = probe.targets[SPEC]
    assert (found.state, found.given_up) == ("failed", True)
    assert replace(found, why=None, fix=None).duty is None
