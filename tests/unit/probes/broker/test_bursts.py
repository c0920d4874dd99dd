# SPDX-License-Identifier: Apache-2.0
"""The broker's timer for bursts: what it switches when, whatever it is asked for."""

from __future__ import annotations

import errno
import mmap
import os
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from probes.broker import burst_timer as bursts
from probes.broker.burst_timer import CATCH_UP, MOST_LINKS, MOST_SCHEDULES, SWITCHES, Bursts
from probes.broker.units import Link
from probes.ipc import messages
from probes.ipc.messages import Burst, BurstReport, MessageError, Recipe, Taken

MS = 1_000_000


class Machine:
    """Units with one link each, and a clock that goes on when somebody waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, links: int = 1) -> None:
        self.now = 1_000 * MS
        self.worked = self.kept_waiting = 0
        self.links = [Link(None, 5, Recipe("btf_tracepoint")) for _ in range(links)]
        self.reports: list[BurstReport] = []
        self.switched: list[tuple[int, bool]] = []
        self.broken: OSError | None = None
        self.no_edges = False
        self.edges: list[tuple[int, int]] = []
        self.gate: mmap.mmap | None = None
        clock = SimpleNamespace(
            monotonic_ns=lambda: self.now, sleep=self.sleep, thread_time_ns=lambda: self.worked
        )
        monkeypatch.setattr(bursts, "time", clock)
        self.bursts = Bursts(self, self.reports.append)  # type: ignore[arg-type]

    def sleep(self, seconds: float) -> None:
        self.now += int(seconds * 1e9)

    def switchable(self, number: int, group: int | None) -> list[Link]:
        return self.links

    def gated(self, number: int, group: int | None) -> Any:
        return self.gate

    def run_edges(self, number: int, links: list[Link], burst: int) -> None:
        if self.no_edges:
            raise OSError(errno.EPERM, "not permitted")
        self.edges.append((self.now, burst))

    def attach_again(self, number: int, links: list[Link]) -> None:
        if self.broken:
            raise self.broken
        self.switched.append((self.now, True))
        self.worked += MS // 4
        self.now += self.kept_waiting

    def pause(self, links: list[Link]) -> None:
        self.switched.append((self.now, False))

    def ask(self, on: int = 10, period: int = 200, unit: int = 1) -> None:
        self.bursts.ask(Burst(id=1, unit=unit, on=on, period=period))

    def run(self, seconds: float, reads: bool = True) -> None:
        """Let the time pass, taking in reports or not."""
        end = self.now + int(seconds * 1e9)
        while self.now < end:
            self.bursts.run()
            if reads and self.reports:
                last = self.reports[-1]
                self.bursts.taken(Taken(id=2, unit=last.unit, number=last.number))
            wait = self.bursts.timeout()
            self.now = end if wait is None else min(end, self.now + max(MS, int(wait * 1e9)))


def test_one_burst_a_period_each_at_another_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    machine.ask()
    assert machine.reports[0].kind == "paused"
    machine.run(20)
    found = [one for one in machine.reports if one.kind == "burst"]
    assert len(found) == pytest.approx(100, abs=3)
    # Periods follow each other without a gap, and each has its burst within.
    assert found[0].since == machine.reports[0].end
    for before, after in pairwise(found):
        assert before.until == after.since
        assert after.since <= after.begin + 2 * MS
        assert after.end <= after.until + 4 * MS
        assert after.end - after.begin == pytest.approx(10 * MS, abs=2 * MS)
    phases = {(one.begin - one.since) // (10 * MS) for one in found}
    assert len(phases) > 10


def test_who_does_not_read_gets_no_more_bursts(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    machine.ask()
    machine.run(1)
    many = len(machine.reports)
    machine.run(30, reads=False)
    assert len(machine.reports) <= many + 1
    assert machine.switched[-1][1] is False
    assert machine.bursts.timeout() is None


def test_it_is_attached_for_good_again_after_a_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    machine.ask()
    machine.run(1)
    machine.ask(on=0)
    machine.run(1)
    assert machine.reports[-1].kind == "steady"
    assert machine.switched[-1][1] is True
    many = len(machine.switched)
    machine.run(5)
    assert len(machine.switched) == many


def test_nothing_is_counted_until_what_attaching_held_up_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel stops all CPUs for a moment to attach: what waited then runs all at once."""
    machine = Machine(monkeypatch)
    machine.gate = mmap.mmap(-1, mmap.PAGESIZE)
    machine.ask()
    machine.run(2)
    attached = [at for at, on in machine.switched if on]
    found = [one for one in machine.reports if one.kind == "burst"]
    assert len(found) >= 8
    for at, one in zip(attached, found, strict=False):
        assert one.begin - at >= CATCH_UP * 1e9 * 0.99
        assert one.end - one.begin == pytest.approx(10 * MS, abs=2 * MS)


def test_switching_costs_what_it_takes_of_a_cpu_not_how_long_others_had_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch)
    machine.kept_waiting = 8 * MS
    machine.ask()
    machine.run(1)
    costs = [one.cost for one in machine.reports if one.kind == "burst"]
    assert costs
    assert set(costs) == {MS // 4}


class Poll:
    """Notes the scheduling policy with which it is waited, and lets the time pass."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.policies: list[int] = []

    def poll(self, milliseconds: float | None) -> list[tuple[int, int]]:
        self.policies.append(os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK)
        self.machine.now += int((milliseconds or 0) * MS)
        return []


def test_who_waits_for_the_next_switch_comes_before_others_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = os.sched_getscheduler(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        os.sched_setscheduler(0, usual, os.sched_param(0))
    except PermissionError:
        pytest.skip("scheduling before others takes CAP_SYS_NICE")
    machine = Machine(monkeypatch)
    poll = Poll(machine)
    machine.bursts.wait(poll, 1)  # type: ignore[arg-type]
    machine.ask()
    machine.bursts.wait(poll, 1)  # type: ignore[arg-type]
    assert poll.policies == [usual, os.SCHED_FIFO]
    assert os.sched_getscheduler(0) == usual


def test_a_short_burst_ends_in_time_whatever_else_is_to_be_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch)
    machine.ask(on=10)
    machine.bursts.taken(Taken(id=2, unit=1, number=0))
    while len(machine.reports) < 2:
        machine.bursts.wait(Poll(machine), 1)  # type: ignore[arg-type]
        # It is never left while a burst of ten milliseconds is under way.
        assert len(machine.switched) % 2
    # A long one does not keep messages waiting.
    machine.ask(on=100)
    machine.bursts.taken(Taken(id=2, unit=1, number=machine.reports[-1].number))
    while len(machine.switched) % 2:
        machine.bursts.wait(Poll(machine), 1)  # type: ignore[arg-type]
    assert len(machine.reports) == 2


def test_what_waits_for_room_to_be_attached_for_good_is_not_asked_for_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch, links=MOST_LINKS)
    for unit in (1, 2, 3, 4):
        machine.ask(unit=unit)
    for unit in (1, 2, 3, 4):
        machine.bursts.taken(Taken(id=2, unit=unit, number=0))
        machine.ask(on=0, unit=unit)
    assert machine.bursts.timeout() == 0
    machine.bursts.run()
    # There is room for two of them at once.
    assert [one.kind for one in machine.reports[4:]] == ["steady", "steady"]
    assert (machine.bursts.timeout() or 0) > 0.1
    machine.run(5)
    assert [one.kind for one in machine.reports[4:]] == ["steady"] * 4


def test_lengths_may_change_and_what_is_detached_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch)
    machine.ask()
    machine.run(1)
    machine.ask(on=50)
    machine.run(1)
    last = machine.reports[-1]
    assert last.end - last.begin == pytest.approx(50 * MS, abs=2 * MS)
    machine.bursts.forget(1, None)
    many = len(machine.switched)
    machine.run(2)
    assert len(machine.switched) == many


def test_switches_are_bounded_whatever_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, links=MOST_LINKS)
    machine.ask(on=0)
    assert machine.reports == []
    machine.ask(on=1, period=100)
    machine.run(20)
    made = sum(on for _, on in machine.switched) * MOST_LINKS
    assert made <= SWITCHES * 21 + MOST_LINKS
    machine = Machine(monkeypatch, links=MOST_LINKS + 1)
    machine.ask()
    assert [one.kind for one in machine.reports] == ["failed"]
    assert machine.switched == []
    machine = Machine(monkeypatch)
    for unit in range(MOST_SCHEDULES + 1):
        machine.ask(unit=unit)
    assert [one.unit for one in machine.reports if one.kind == "failed"] == [MOST_SCHEDULES]


def test_what_cannot_be_attached_again_says_so_and_stays_detached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch)
    machine.ask()
    machine.broken = OSError()
    machine.run(2)
    assert machine.reports[-1].kind == "failed"
    assert machine.switched[-1][1] is False
    many = len(machine.reports)
    machine.run(2)
    assert len(machine.reports) == many


@pytest.mark.parametrize(
    "fields",
    [
        {"on": 10, "period": 99},
        {"on": -1, "period": 200},
        {"on": 10_001, "period": 60_000},
        {"on": 10, "period": 60_001},
        {"on": 10, "period": 200.5},
        {"on": True, "period": 200},
        {"on": 10, "period": 200, "group": -1},
        {"on": 10, "period": 200, "program": 3},
        {"on": 10},
    ],
)
def test_wishes_out_of_bounds_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        messages.request({"id": 1, "op": "burst", "unit": 1, **fields})


def test_a_machine_may_have_been_up_for_years() -> None:
    """Monotonic nanoseconds are beyond 2**53 after 104 days."""
    now = 10 * 365 * 86_400 * 10**9
    sent = BurstReport(1, None, 2, "burst", now, now + 1, now + 2, now + 3)
    packed = msgspec.json.encode(sent)
    assert msgspec.json.decode(packed, type=BurstReport) == sent


def test_where_the_last_burst_is_not_let_go_of_yet_one_is_skipped_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch)
    machine.ask()
    machine.run(1)
    before = machine.reports[-1]
    machine.broken = OSError(errno.EEXIST, "there is one already")
    machine.run(1)
    assert machine.reports[-1] == before
    machine.broken = None
    machine.run(1)
    after = machine.reports[machine.reports.index(before) + 1]
    # The next one stands for the time of those that were skipped as well.
    assert after.kind == "burst"
    assert after.since == before.until
    assert 2 <= after.skipped <= 20
    assert after.until >= after.since + 1000 * MS
    assert machine.reports[-1].skipped == 0


def test_for_good_again_waits_for_what_is_not_let_go_of_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch)
    machine.ask()
    machine.run(1)
    machine.broken = OSError(errno.EEXIST, "there is one already")
    machine.ask(on=0)
    many = len(machine.switched)
    machine.run(1)
    assert len(machine.switched) - many < 60
    machine.broken = None
    machine.run(1)
    assert machine.reports[-1].kind == "steady"


def test_each_burst_begins_and_ends_on_the_cpus_too(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    machine.ask()
    machine.run(2)
    bursts = [one for one in machine.reports if one.kind == "burst"]
    numbers = [number for _, number in machine.edges]
    assert numbers[0] == 0
    assert numbers[1::2][: len(bursts)] == [one.number for one in bursts]
    assert not any(numbers[2::2])
    for one, (begin, _), (end, _) in zip(
        bursts, machine.edges[1::2], machine.edges[2::2], strict=False
    ):
        assert one.begin <= begin <= end <= one.end


def test_without_edges_there_are_no_bursts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be charged in full on no CPU is no estimate."""
    machine = Machine(monkeypatch)
    machine.no_edges = True
    machine.ask()
    machine.run(2)
    assert [one.kind for one in machine.reports] == ["paused", "failed"]
    assert machine.switched[-1][1] is False
    assert machine.bursts.timeout() is None
