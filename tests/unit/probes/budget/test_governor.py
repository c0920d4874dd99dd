# SPDX-License-Identifier: Apache-2.0
"""The governor on machines that are made up: within the budget, back again, without flapping."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.budget.policy import (
    ALL_OR_NOTHING,
    DETACHED,
    DRAWING,
    FULL,
    INSISTED,
    LONGEST,
    QUICK_BURSTS,
    QUIET,
    RAREST,
    TOO_MUCH,
    TRIAL,
    Governor,
    Key,
    Level,
    Load,
    bursts,
    guess,
)

LADDER = (FULL, Level("1 in 4", 0.62), Level("1 in 16", 0.52), Level("counts only", 0.42), DETACHED)
CALLS: Key = ("syscalls", "")
BUDGET, CPUS = 2.0, 4
TICK = 1.0


class Machine:
    """Loads that cost `percent(second)` of one CPU where nothing is given up."""

    def __init__(
        self,
        percents: dict[Key, Callable[[float], float]],
        own: float = 0.0,
        busy: Callable[[float], float | None] = lambda second: None,
        ladder: tuple[Level, ...] = LADDER,
    ) -> None:
        self.governor = Governor(BUDGET, CPUS)
        self.percents, self.own, self.busy, self.ladder = percents, own, busy, ladder
        self.levels: dict[Key, int] = dict.fromkeys(percents, 0)
        self.now = 0.0
        self.log: list[tuple[float, Key, int]] = []
        self.spent: list[float] = []

    def loads(self) -> list[Load]:
        """What each costs now."""
        return [
            Load(key, self.ladder, level, self.percents[key](self.now) * self.ladder[level].weight)
            for key, level in self.levels.items()
        ]

    def run(self, seconds: float) -> None:
        """Tick after tick."""
        for _ in range(int(seconds / TICK)):
            loads = self.loads()
            self.spent.append(sum(load.percent for load in loads) / CPUS)
            for change in self.governor.decide(self.now, loads, self.own, self.busy(self.now)):
                self.levels[change.key] = change.level
                self.log.append((self.now, change.key, change.level))
            self.now += TICK

    def mean(self, last: int) -> float:
        """What the probes took in the last ticks, in per cent of all CPUs."""
        return sum(self.spent[-last:]) / last


def test_within_the_budget_nothing_is_given_up() -> None:
    machine = Machine({CALLS: lambda second: 7.9})
    machine.run(600)
    assert machine.log == []
    assert machine.governor.used == pytest.approx(7.9 / CPUS)


def test_a_storm_is_ended_at_once_and_tried_ever_more_rarely() -> None:
    machine = Machine({CALLS: lambda second: 180.0})
    machine.run(1)
    assert machine.levels[CALLS] == len(LADDER) - 1
    machine.run(1999)
    assert machine.mean(1800) < BUDGET
    tries = [when for when, _, level in machine.log if level != len(LADDER) - 1]
    waits = [after - before for before, after in pairwise(tries)]
    assert tries[0] == pytest.approx(TRIAL, abs=2)
    assert all(after >= before - 1 for before, after in pairwise(waits))
    assert max(waits) == pytest.approx(RAREST, abs=2)


def test_what_is_a_little_too_much_gives_up_a_little() -> None:
    machine = Machine({CALLS: lambda second: 10.0})
    machine.run(60)
    assert [level for _, _, level in machine.log] == [1]
    assert machine.mean(30) < BUDGET


def test_it_counts_before_it_detaches() -> None:
    # Counts only are 8.4: just more than the budget aims at, and to detach is the last resort.
    machine = Machine({CALLS: lambda second: 18.0})
    machine.run(12)
    assert [level for _, _, level in machine.log] == [3]


def test_a_short_burst_is_none_of_its_business() -> None:
    machine = Machine({CALLS: lambda second: 20.0 if second % 10 == 5 else 1.0})
    machine.run(300)
    assert machine.log == []


def test_it_comes_back_when_it_is_quiet_step_by_step() -> None:
    machine = Machine({CALLS: lambda second: 14.0 if second < 30 else 2.0})
    machine.run(200)
    assert machine.log[0][2] > 0
    assert machine.levels[CALLS] == 0
    steps = [level for when, _, level in machine.log if when >= 30]
    assert steps == sorted(steps, reverse=True)


def test_a_load_on_the_edge_does_not_go_up_and_down() -> None:
    # At level 1 it fits, at level 0 it does not.
    machine = Machine({CALLS: lambda second: 9.0 if int(second / 40) % 2 else 5.0})
    machine.run(3600)
    assert machine.mean(3600) < BUDGET
    assert len(machine.log) < 3600 / 60


def test_detached_is_tried_soon_where_the_kernel_has_become_quiet() -> None:
    machine = Machine(
        {CALLS: lambda second: 180.0 if second < 10 else 1.0},
        busy=lambda second: 90.0 if second < 10 else 3.0,
    )
    machine.run(25)
    back = [when for when, _, level in machine.log if level != len(LADDER) - 1]
    assert back[0] == 10
    assert back[0] >= QUIET
    # Where the kernel's share is not known, only time tells.
    blind = Machine({CALLS: lambda second: 180.0 if second < 10 else 1.0})
    blind.run(25)
    assert len(blind.log) == 1


def test_the_dearest_goes_first_and_others_stay() -> None:
    small: Key = ("execs", "")
    machine = Machine({small: lambda second: 1.0, CALLS: lambda second: 16.0})
    machine.run(30)
    assert machine.levels[small] == 0
    assert machine.levels[CALLS] > 0


def test_two_targets_of_one_probe_are_told_apart() -> None:
    malloc, free = ("latency", "malloc"), ("latency", "free")
    machine = Machine(
        {malloc: lambda second: 80.0, free: lambda second: 3.0}, ladder=ALL_OR_NOTHING
    )
    machine.run(5)
    assert machine.levels == {malloc: 1, free: 0}


def test_no_probe_pays_for_drawing_of_which_there_is_less_instead() -> None:
    machine = Machine({CALLS: lambda second: 3.5}, own=50.0)
    drawn = []
    for _ in range(60):
        machine.run(1)
        machine.governor.draw(machine.now)
        drawn.append(machine.governor.drawing)
    assert machine.log == []
    assert drawn[:1] == [DRAWING[1]]
    assert drawn[-1] == DRAWING[-1]
    machine.own = 0.5
    for _ in range(60):
        machine.run(1)
        machine.governor.draw(machine.now)
    assert machine.governor.drawing == 1


BURSTS = (FULL, *bursts(1.0, QUICK_BURSTS), DETACHED)


def test_a_storm_is_seen_in_bursts_that_fit() -> None:
    machine = Machine({CALLS: lambda second: 60.0}, ladder=BURSTS)
    machine.run(1)
    level = BURSTS[machine.levels[CALLS]]
    assert level.words == "sampling 1 s in 16"
    machine.run(200)
    assert machine.mean(100) < BUDGET
    assert BURSTS[machine.levels[CALLS]].on


def test_only_what_is_too_much_in_the_least_bursts_is_detached() -> None:
    machine = Machine({CALLS: lambda second: 395.0}, ladder=BURSTS)
    machine.run(5)
    assert BURSTS[machine.levels[CALLS]].words == "sampling 1 s in 64"
    machine = Machine({CALLS: lambda second: 3950.0}, ladder=BURSTS)
    machine.run(5)
    assert BURSTS[machine.levels[CALLS]] is DETACHED


def test_what_somebody_switched_on_is_not_soon_detached_unless_it_is_far_too_much() -> None:
    cost = 30.0
    machine = Machine({CALLS: lambda second: cost}, ladder=ALL_OR_NOTHING)
    machine.governor.insist(CALLS[0], machine.now)
    machine.run(INSISTED - 2)
    assert machine.log == []
    machine.run(10)
    assert machine.levels[CALLS] == 1
    cost = CPUS * TOO_MUCH + 1
    machine = Machine({CALLS: lambda second: cost}, ladder=ALL_OR_NOTHING)
    machine.governor.insist(CALLS[0], machine.now)
    machine.run(2)
    assert machine.levels[CALLS] == 1


def test_what_is_kept_on_says_for_how_long_yet() -> None:
    cost = 30.0
    machine = Machine({CALLS: lambda second: cost}, ladder=ALL_OR_NOTHING)
    assert machine.governor.kept(CALLS[0], machine.now) is None
    machine.governor.insist(CALLS[0], machine.now)
    machine.run(10)
    left = machine.governor.kept(CALLS[0], machine.now)
    assert left == pytest.approx(INSISTED - 10, abs=1.5)
    # What stays within the budget is kept on by nobody.
    cost = 0.1
    machine.run(20)
    assert machine.governor.kept(CALLS[0], machine.now) is None
    cost = 30.0
    machine.run(INSISTED)
    assert machine.governor.kept(CALLS[0], machine.now) is None


def test_the_user_starts_anew() -> None:
    machine = Machine({CALLS: lambda second: 180.0})
    machine.run(300)
    machine.governor.forget("syscalls")
    machine.levels[CALLS] = 0
    machine.log.clear()
    machine.run(1 + TRIAL)
    assert machine.log[0][2] == len(LADDER) - 1
    assert machine.log[-1][0] - machine.log[0][0] <= TRIAL + 1


def test_what_is_detached_comes_back_though_its_past_was_forgotten() -> None:
    machine = Machine({CALLS: lambda second: 180.0 if second < 3 else 0.5})
    machine.run(5)
    machine.governor.forget("syscalls")
    machine.run(TRIAL + 5)
    assert machine.levels[CALLS] < len(LADDER) - 1


def test_a_guess_from_nothing_is_nothing() -> None:
    assert guess(Load(CALLS, LADDER, len(LADDER) - 1, 0.0), 0) == 0


LOADS = st.lists(st.tuples(st.integers(5, 120), st.floats(0, 380)), min_size=1, max_size=20)
"""Stretches of time, in seconds, and what all of it would cost in them."""


@settings(max_examples=150, deadline=None)
@given(stretches=LOADS)
def test_whatever_comes_the_budget_holds_without_flapping(
    stretches: list[tuple[int, float]],
) -> None:
    ends: list[tuple[float, float]] = []
    for seconds, percent in stretches:
        ends.append(((ends[-1][0] if ends else 0.0) + seconds, percent))
    end = ends[-1][0]
    machine = Machine({CALLS: lambda second: next((p for e, p in ends if second < e), 0.0)})
    machine.run(end)
    # Each change of the load is noticed within ticks; what those took is all that is above.
    surges = sum(p for _, p in ends) / CPUS + 180.0
    trials = len([1 for _, _, level in machine.log if level == len(LADDER) - 2])
    assert sum(machine.spent) <= BUDGET * (end + 5 * len(ends)) + surges + trials * 95
    assert len(machine.log) <= 5 * len(ends) + 2 * end / TRIAL + 2
    machine.percents[CALLS] = lambda second: 0.5
    machine.run(2 * RAREST + 5 * 2 * LONGEST)
    assert machine.levels[CALLS] == 0


def test_what_is_seen_in_bursts_is_not_detached_for_what_others_cost() -> None:
    """In a storm of calls, to see executions fail costs about as much as to count the calls."""
    governor = Governor(BUDGET, CPUS)
    failing: Key = ("execs", "failed")
    sampled = (FULL, *bursts(1.0, QUICK_BURSTS), DETACHED)
    loads = [Load(CALLS, sampled, 0, 160.0), Load(failing, ALL_OR_NOTHING, 0, 150.0)]
    levels = {change.key: change.level for change in governor.decide(1.0, loads, 0.0, None)}
    assert levels == {CALLS: len(sampled) - 2, failing: 1}
