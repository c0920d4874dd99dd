# SPDX-License-Identifier: Apache-2.0
"""From costs to deeds: what the budget's owner is told to do, and what a probe then says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from probes.budget.meter import UNMEASURED, Meter
from probes.budget.policy import ALL_OR_NOTHING, DETACHED, FULL, SAMPLED, Level, Load, Part
from probes.core.sample import NO_COST, Counts, Histogram
from probes.latency.degradation import COUNTED, EVENTS, Ladders
from probes.latency.facts import TargetFacts
from probes.latency.sample import Target
from probes.live import budget_controller
from probes.live.budget_controller import Busy, Governed, Hands
from probes.probe import Probe
from probes.syscalls.probe import TIMED, SyscallProbe
from probes.syscalls.reader import SyscallTotals
from tests.unit.target_facts import target_facts

LADDER = (FULL, Level("half", 0.5), DETACHED)


class Fake:
    """A probe with one ladder, that costs what it is told."""

    def __init__(self, percent: float, reload: bool = True) -> None:
        self.percent = percent
        self.reload = reload
        self.level = 0
        self.told: list[tuple[str, int]] = []
        self.meter = SimpleNamespace(
            estimate=lambda now: self.percent * LADDER[self.level].weight,
            events=0,
            filtered=False,
            duty=1.0,
        )

    def drain(self) -> None:
        pass

    def parts(self) -> Sequence[Part]:
        return [Part("", LADDER, self.level)]

    def give_up(self, what: str, level: int, why: str, fix: str) -> bool:
        self.level = level
        self.told.append((why, level))
        return self.reload


@dataclass
class Slot:
    probe: Any
    runs: bool = True
    held: bool = False
    pending: int | None = None


@dataclass
class Owner:
    """Does what it is told, and notes it."""

    slots: dict[str, Slot]
    budget: float = 2.0
    done: list[tuple[str, str]] = field(default_factory=list)
    why: str = ""
    busiest: str = ""

    def __post_init__(self) -> None:
        hands = Hands(
            reload=lambda name: self.done.append(("reload", name)),
            measure=lambda name: self.done.append(("measure", name)),
            hold=self.hold,
            release=self.release,
            busiest=lambda name: self.busiest,
        )
        self.governed = Governed(self.budget, 2, self.slots, hands)
        self.now = 100.0

    def hold(self, name: str, why: str, fix: str) -> None:
        self.done.append(("hold", name))
        self.why = f"{why}: {fix}"
        self.slots[name].runs, self.slots[name].held = False, True

    def release(self, name: str) -> None:
        self.done.append(("release", name))
        self.slots[name].runs, self.slots[name].held = True, False

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.governed.tick(self.now)
            self.now += 0.25


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process takes nothing, and the kernel is never busy."""
    monkeypatch.setattr(
        budget_controller, "time", SimpleNamespace(process_time=lambda: 0.0, monotonic=float)
    )
    monkeypatch.setattr(budget_controller.Busy, "percent", lambda self: None)


@pytest.mark.parametrize(("reload", "deed"), [(True, "reload"), (False, "measure")])
def test_a_level_is_taken_by_loading_anew_or_at_once(reload: bool, deed: str) -> None:
    owner = Owner({"calls": Slot(probe := Fake(6.0, reload))})
    owner.run(20)
    assert owner.done[0] == (deed, "calls")
    assert [level for _, level in probe.told[:1]] == [1]
    assert owner.governed.stands() is not None


def test_what_is_detached_is_held_and_let_go_one_level_up() -> None:
    owner = Owner({"calls": Slot(probe := Fake(150.0))})
    owner.run(1)
    assert owner.done == [("hold", "calls")]
    assert owner.why.startswith("detached: over 2 % CPU (probe 75 %): ")
    probe.percent = 0.1
    owner.run(35)
    assert owner.done[1] == ("release", "calls")
    assert probe.told[0][1] == 1
    owner.run(20)
    assert probe.level == 0


def test_what_is_tried_again_says_what_it_took_before_and_by_whom() -> None:
    """While it is detached it costs nothing: that is not why it is sampled afterwards."""
    owner = Owner({"calls": Slot(probe := Fake(150.0))}, busiest="nginx")
    owner.run(1)
    assert owner.why.startswith("detached: over 2 % CPU (probe 75 %, nginx): ")
    probe.percent = 1.0
    owner.busiest = "somebody else"
    owner.run(33)
    assert owner.done[1] == ("release", "calls")
    assert probe.level == 1
    assert owner.governed.reason("calls") == "over 2 % CPU (probe 75 %, nginx)"


def test_the_budget_is_lifted_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = Owner({"calls": Slot(probe := Fake(6.0))})
    clock = SimpleNamespace(process_time=lambda: 0.0, monotonic=lambda: owner.now)
    monkeypatch.setattr(budget_controller, "time", clock)
    owner.run(20)
    assert probe.level
    assert owner.governed.reason("calls") == "over 2 % CPU (probe 3.0 %)"
    owner.governed.lift(30.0)
    owner.run(2)
    assert probe.level == 0
    assert owner.governed.reason("calls") is None
    stands = owner.governed.stands()
    assert stands is not None
    assert stands.lifted == pytest.approx(28, abs=1)
    owner.run(26)
    assert probe.level == 0
    owner.run(20)
    assert probe.level
    stands = owner.governed.stands()
    assert stands is not None
    assert stands.lifted is None


def test_what_is_done_once_is_no_running_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = 0.0
    clock = SimpleNamespace(process_time=lambda: spent, monotonic=float)
    monkeypatch.setattr(budget_controller, "time", clock)
    owner = Owner({"calls": Slot(Fake(0.0))})
    for _ in range(4):  # the start
        spent += 1.0
        owner.run(1)
    owner.run(5)
    assert owner.governed.used == 0.0
    spent += 3.0
    owner.governed.one_off(3.0)
    owner.run(2)
    assert owner.governed.used == 0.0
    spent += 1.0
    owner.run(2)
    assert owner.governed.used


def test_what_is_being_made_cheaper_is_not_lowered_once_more() -> None:
    slot = Slot(probe := Fake(6.0))
    owner = Owner({"calls": slot})
    owner.run(7)
    assert probe.level == 1
    # The loader takes its time: what is attached costs as much as before.
    probe.percent, slot.pending = 60.0, 7
    owner.run(10)
    assert probe.level == 1
    slot.pending = None
    owner.run(5)
    assert owner.done[-1] == ("hold", "calls")


def test_without_a_budget_nobody_looks() -> None:
    owner = Owner({"calls": Slot(Fake(150.0))}, budget=0.0)
    owner.run(60)
    assert owner.done == []
    assert owner.governed.stands() is None
    assert owner.governed.wait(owner.now) == float("inf")


def test_probes_that_are_off_cost_nothing() -> None:
    owner = Owner({"calls": Slot(Fake(150.0), runs=False), "execs": Slot(Fake(1.0))})
    owner.run(10)
    assert owner.done == []
    stands = owner.governed.stands()
    assert stands is not None
    assert stands.used == pytest.approx(0.5)


def test_looks_are_rare_unless_something_is_new() -> None:
    owner = Owner({"calls": Slot(probe := Fake(1.0))})
    owner.run(10)
    assert owner.governed.wait(owner.now) <= budget_controller.TICK
    owner.governed.tick(owner.now)
    assert owner.governed.wait(owner.now) == pytest.approx(budget_controller.TICK, abs=0.3)
    owner.governed.begun(cast(Probe, probe), owner.now)
    assert owner.governed.wait(owner.now) <= budget_controller.FIRST


def test_the_kernels_share_is_read_from_proc_stat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    lines = iter([b"cpu  100 0 50 800 0 10 10 0 0 0\ncpu0", b"cpu  150 0 80 860 0 15 15 0 0 0\n"])
    monkeypatch.setattr(os, "read", lambda fd, size: next(lines))
    busy = Busy()
    assert busy.percent() is None
    assert busy.percent() == pytest.approx(100 * 40 / 150)


def test_an_estimate_holds_what_nobody_measured_yet() -> None:
    meter = Meter()
    meter.outside = 50.0
    assert meter.estimate(1.0) == 0.0
    meter.events = 1_000_000
    assert meter.estimate(2.0) == pytest.approx(100 * (UNMEASURED + 50) * 1e6 / 1e9)
    meter.expect(0.5)
    meter.events = 2_000_000
    assert meter.estimate(3.0) == pytest.approx(100 * (UNMEASURED / 2 + 50) * 1e6 / 1e9)
    assert meter.estimate(3.0) == 0.0


def test_levels_of_system_calls() -> None:
    probe = SyscallProbe()
    assert [part.levels for part in probe.parts()] == [SAMPLED]
    assert probe.set_option("latency", True)
    assert [part.levels for part in probe.parts()] == [TIMED]
    assert probe.params() == {"latency": True}
    # Nothing is loaded here: whatever is timed has still to be asked for.
    assert probe.give_up("", 2, "", "")
    assert (probe.given_up(), probe._every) == ("timed 1 in 16", 16)
    assert not probe.give_up("", 4, "", "")
    assert probe.given_up() == "counts only"
    assert probe.params() == {"latency": False}
    # Who asks again for durations gets them.
    assert probe.set_option("latency", True)
    assert probe.given_up() is None
    probe.set_option("sample_every", 32)
    probe.give_up("", 1, "", "")
    assert probe._every == 32


def facts(**more: Any) -> TargetFacts:
    return target_facts(**{"floor": "uprobe push", **more})


def target(spec: str, n: int) -> Target:
    return Target(spec=spec, state="on", histogram=Histogram({}, n, 0))


def test_shares_of_targets_follow_their_calls_and_what_those_cost() -> None:
    ladders = Ladders()
    ladders.learn("malloc", facts(), {"uprobe push": 2 * UNMEASURED})
    ladders.learn("softirq", facts(floor="tracepoint", countable=False), {})
    parts, outside = ladders.parts({"malloc": target("malloc", 0), "softirq": target("softirq", 0)})
    assert outside == 0
    parts, outside = ladders.parts(
        {"malloc": target("malloc", 100), "softirq": target("softirq", 300)}
    )
    assert [part.share for part in parts] == [0.5, 0.5]
    assert outside == pytest.approx(2 * UNMEASURED / 4)
    assert [part.levels for part in parts] == [COUNTED, EVENTS]


def test_a_counted_target_can_still_be_timed_again() -> None:
    ladders = Ladders()
    ladders.learn("malloc", facts(), {})
    ladders.put("malloc", 1)
    # Loaded anew, nothing of it could be left out any more.
    ladders.learn("malloc", facts(countable=False, counts_only=True), {})
    assert ladders.counted(["malloc", "free"]) == ["malloc"]
    assert ladders.ladder("malloc") is COUNTED
    assert not ladders.is_detached("malloc")
    assert ladders.given_up() == "1 target given up"
    ladders.put("malloc", 2)
    assert ladders.given_up() == "malloc sampling 1 s in 4"
    ladders.put("malloc", len(COUNTED) - 1)
    assert ladders.is_detached("malloc")
    ladders.drop("malloc")
    assert ladders.given_up() is None


class Watcher(Fake):
    """A probe of which a part costs each system call of the machine."""

    def parts(self) -> Sequence[Part]:
        return [Part("", ALL_OR_NOTHING, 0), Part("failed", LADDER[::2], self.level, 0.0, 50.0)]


def test_what_each_call_of_the_machine_pays_follows_their_rate() -> None:
    calls = Fake(0.5)
    watcher = Watcher(0.1)
    slots = {"syscalls": Slot(calls), "execs": Slot(watcher)}
    owner = Owner(slots)

    def call(rate: float, seconds: float) -> None:
        end = owner.now + seconds
        while owner.now < end:
            calls.meter.events += rate / 4
            owner.run(0.25)

    call(1e5, 10)
    assert watcher.told == []
    # Three million calls, each 50 ns longer: 15 % of one CPU.
    call(3e6, 5)
    assert [level for _, level in watcher.told] == [1]
    # While nobody counts calls, there are as many as there were.
    slots["syscalls"].runs = False
    call(1e3, 120)
    assert watcher.level == 1
    slots["syscalls"].runs = True
    call(1e3, 30)
    assert watcher.level == 0


def test_what_a_part_costs_in_bursts_is_not_taken_for_all_that_it_would() -> None:
    """Events of a part in bursts are as few as those: beside its calls it costs as much more."""
    seen: list[float | None] = []

    class Bursting(Watcher):
        def parts(self) -> Sequence[Part]:
            return [Part("", ALL_OR_NOTHING, 0, 0.0), Part("failed", SAMPLED, 2, 1.0, 50.0)]

    watcher = Bursting(0.0)
    watcher.meter.estimate, watcher.meter.switching = lambda now: 3.0, 0.0
    owner = Owner({"execs": Slot(watcher)})
    decide = owner.governed._governor.decide

    def noted(now: float, loads: Sequence[Load], own: float, busy: float | None) -> Any:
        seen.extend(load.full for load in loads)
        return decide(now, loads, own, busy)

    owner.governed._governor.decide = noted  # type: ignore[method-assign]
    owner.run(5)
    assert seen[-1] == pytest.approx(3.0 * 16)


def test_what_each_call_pays_is_known_though_the_first_look_detaches_who_counts_them() -> None:
    calls = Fake(0.0)
    calls.meter = Meter()  # type: ignore[assignment]
    calls.meter.outside = 150.0
    watcher = Watcher(0.1)
    owner = Owner({"syscalls": Slot(calls), "execs": Slot(watcher)})
    owner.governed.begun(cast(Probe, calls), owner.now)
    owner.now += budget_controller.FIRST
    calls.meter.events += 1_000_000
    owner.governed.tick(owner.now)
    assert set(owner.done) == {("hold", "syscalls"), ("reload", "execs")}
    assert [level for _, level in watcher.told] == [1]


def test_calls_that_its_own_loader_made_are_no_storm() -> None:
    """A Frame that follows the start at once has them in a moment's rate."""
    probe = Fake(0.0)
    probe.meter = Meter()  # type: ignore[assignment]
    owner = Owner({"calls": Slot(probe)})
    owner.governed.begun(cast(Probe, probe), owner.now)
    probe.meter.outside = 150.0
    probe.meter.events = 1800
    for _ in range(400):
        owner.now += 0.001
        assert owner.governed.wait(owner.now) >= 0
        owner.governed.tick(owner.now, owner.now)
    assert owner.done == []
    assert owner.governed.used is not None
    # A storm is seen a quarter of a second after the start.
    for _ in range(40):
        owner.now += 0.01
        probe.meter.events += 30_000
        owner.governed.tick(owner.now, owner.now)
    assert owner.done != []


def test_bursts_that_have_not_begun_are_called_off() -> None:
    """The budget is lifted before the broker has answered that they begin."""
    probe = SyscallProbe()
    wishes: list[tuple[int, int | None, int, int]] = []
    probe.meter.attach_in = lambda *wish: wishes.append(wish)
    probe.give_up("", 1, "", "")
    probe.give_up("", 0, "", "")
    assert [on > 0 for _, _, on, _ in wishes] == [True, False]
    probe.give_up("", 0, "", "")
    assert len(wishes) == 2


def test_the_busiest_process_of_system_calls_is_named() -> None:
    def totals(cron: int, nginx: int) -> SyscallTotals:
        made = SyscallTotals("x86_64")
        made.comms = {7: "cron", 8: "nginx"}
        made.matrix = {(7, "read"): Counts(cron, 0), (8, "read"): Counts(nginx, 0)}
        made.calls, made.count = {"read": Counts(cron + nginx, 0)}, cron + nginx
        return made

    probe = SyscallProbe()
    assert probe.busiest(None) == ""
    probe.totals = totals(70, 5)
    before = probe.totals.sample(1.0, 0, NO_COST, ())
    assert probe.busiest(None) == "cron"
    probe.totals = totals(71, 50)
    assert probe.busiest(before) == "nginx"


def test_what_switching_takes_keeps_nothing_in_bursts() -> None:
    """A machine with little to trace: attaching costs more than what is attached."""
    probe = Fake(0.0)
    probe.level = 1
    probe.parts = lambda: [Part("", SAMPLED, probe.level)]  # type: ignore[method-assign]
    # Nothing but the attaching, a fifth of the budget: four times that would be too much.
    probe.meter = SimpleNamespace(
        estimate=lambda now: 0.8 if probe.level else 0.0,
        switching=0.8, events=0, filtered=False, duty=1.0,
    )  # fmt: skip
    owner = Owner({"calls": Slot(probe)})
    owner.run(30)
    assert probe.level == 0
