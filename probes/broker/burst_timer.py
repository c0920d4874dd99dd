# SPDX-License-Identifier: Apache-2.0
"""Attaches programs in bursts: the broker's timer for what is too dear to be attached always.

Time is cut into periods. In each there is one burst, at a moment that is drawn by lot, so that a
program that does something at regular times cannot hide between bursts. The programs are loaded
already: a burst makes their links and closes them again. A unit's control page says exactly when
its programs count: it is opened once all are attached, and closed before the first is detached.

The unprivileged side only asks for lengths. A burst begins when it has said that it has taken in
what the one before counted: who does not read, is stopped or has ended gets no more bursts, and
everything stays detached. Links that are made and closed are bounded, whatever is asked for.
"""

from __future__ import annotations

import errno
import mmap
import os
import resource
import select
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from math import inf
from random import SystemRandom

from probes.bpf.maps import put_word
from probes.broker.units import Link, Units
from probes.ipc.messages import Burst, BurstReport, Taken

MOST_SCHEDULES = 200
"""Units and groups that are attached in bursts at the same time."""
MOST_LINKS = 16
"""Links that one of them has at most."""
SWITCHES = 40.0
"""Links that are made a second at most, over all."""
STAYS = 15e6
"""Nanoseconds for which nothing else is done at most: a burst that ends sooner is waited for."""
CATCH_UP = 1e-3
"""Seconds between attaching and counting: what that has kept from running is done meanwhile."""
SHORT = 2e6
"""Nanoseconds that are slept instead of waiting for messages: poll(2) counts milliseconds."""
MOMENT = 20_000_000
"""Nanoseconds after which at the earliest it is tried again to attach what is not let go of yet."""
MOST_URGENT = 1_000_000
"""Microseconds of a CPU that are taken before others without a pause at most."""
REAL_TIME = (os.SCHED_FIFO, os.SCHED_RR, 6)
"""Policies that come before others already; 6 is SCHED_DEADLINE."""
OWN_CALLS, ROUNDS = 20, 4
"""System calls by which it is measured what one costs more within a burst, and how often."""
_random = SystemRandom()
Key = tuple[int, int | None]


@dataclass(slots=True)
class _Schedule:
    """One unit, or group of it, that is attached in bursts; times in monotonic ns.

    `at` is when to attach or, while it is `attached`, to detach. `since` is where the period
    begins. While `waits`, the last report is not taken in.
    """

    on: int
    period: int
    at: int = 0
    since: int = 0
    begin: int = 0
    edges: int = 0
    cost: int = 0
    price: int = 0
    number: int = 0
    skipped: int = 0
    attached: bool = False
    waits: bool = True
    steady: bool = False


class Bursts:
    """All that is attached in bursts. `send` is given the reports."""

    def __init__(self, units: Units, send: Callable[[BurstReport], object]) -> None:
        self._units = units
        self._send = send
        self._schedules: dict[Key, _Schedule] = {}
        self._urgent = Urgent()
        self._room = SWITCHES
        self._filled = time.monotonic_ns()

    def ask(self, wish: Burst) -> None:
        """Attach in bursts from now on, in other ones, or for good again."""
        key = (wish.unit, wish.group)
        known = self._schedules.get(key)
        if known is not None:
            self._change(known, wish)
            return
        links = self._units.switchable(*key)
        if not wish.on:
            return
        if not 0 < len(links) <= MOST_LINKS or len(self._schedules) >= MOST_SCHEDULES:
            self._send(BurstReport(*key, 0, "failed"))
            return
        schedule = self._schedules[key] = _Schedule(0, 0)
        end, edges = self._shut(key, links)
        self._change(schedule, wish)
        schedule.since = end
        schedule.at = self._drawn(schedule)
        self._send(BurstReport(*key, 0, "paused", end=end, edges=edges))

    def taken(self, answer: Taken) -> None:
        """The report of this number is taken in."""
        schedule = self._schedules.get((answer.unit, answer.group))
        if schedule is not None and answer.number == schedule.number:
            schedule.waits = False

    def forget(self, unit: int, groups: Collection[int] | None) -> None:
        """These are detached for good."""
        self._schedules = {
            key: one
            for key, one in self._schedules.items()
            if key[0] != unit or (groups is not None and key[1] not in groups)
        }

    def timeout(self) -> float | None:
        """Seconds until something is to be switched."""
        now = time.monotonic_ns()
        due = [one.at - now for one in self._schedules.values() if one.attached or not one.waits]
        return max(0.0, (min(due) - SHORT) / 1e9) if due else None

    def wait(self, poll: select.poll, milliseconds: float | None) -> list[tuple[int, int]]:
        """What poll(2) says within so many milliseconds; switch what is due then.

        A burst is to begin and to end when it should, however many others want the CPUs: one that
        begins when the scheduler has time for it sees what happens at such moments. So we come
        before others while we wait and switch, but for nothing else.
        """
        with self._urgent if self._schedules else nullcontext():
            ready = poll.poll(milliseconds)
            self.run()
            until = time.monotonic_ns() + STAYS
            while (end := self._next_end()) < until:
                time.sleep(max(0, end - time.monotonic_ns()) / 1e9)
                self.run()
        return ready

    def _next_end(self) -> float:
        """When the first of the present bursts ends, in ns; infinity without one."""
        return min([one.at for one in self._schedules.values() if one.attached], default=inf)

    def run(self) -> None:
        """Switch what is due."""
        for key, one in list(self._schedules.items()):
            wait = one.at - time.monotonic_ns()
            if one.attached and wait < SHORT:
                if wait > 0:
                    time.sleep(wait / 1e9)
                self._end(key, one)
            elif not one.attached and not one.waits and wait < SHORT:
                self._begin(key, one)

    def _change(self, schedule: _Schedule, wish: Burst) -> None:
        schedule.steady = not wish.on
        if schedule.steady and not schedule.attached:
            schedule.at = time.monotonic_ns()
        if wish.on:
            schedule.period = wish.period * 1_000_000
            schedule.on = min(wish.on, wish.period) * 1_000_000

    def _drawn(self, schedule: _Schedule) -> int:
        """When the burst of the period begins that `since` opens."""
        return schedule.since + int(_random.random() * max(0, schedule.period - schedule.on))

    def _begin(self, key: Key, one: _Schedule) -> None:
        links = self._units.switchable(*key)
        if not links:
            del self._schedules[key]
            return
        now = time.monotonic_ns()
        self._room = min(SWITCHES, self._room + SWITCHES * (now - self._filled) / 1e9)
        self._filled = now
        made = len([link for link in links if link.recipe.kind != "edge"])
        if self._room < made:
            one.at = now + int(1e9 * (made - self._room) / SWITCHES)
            return
        self._room -= made
        free = _own_calls()
        now, worked = time.monotonic_ns(), time.thread_time_ns()
        try:
            self._units.attach_again(key[0], links)
        except OSError as error:
            self._units.pause(links)
            if error.errno == errno.EEXIST:
                self._skip(one, now)
                return
            del self._schedules[key]
            self._send(BurstReport(*key, one.number + 1, "failed"))
            return
        one.cost = time.thread_time_ns() - worked
        if self._units.gated(*key) is not None:
            time.sleep(CATCH_UP)
        self._open(key, one, now)
        one.price = (_own_calls() - free) // OWN_CALLS

    def _open(self, key: Key, one: _Schedule, before: int) -> None:
        """Have programs count that are attached since `before` at the earliest."""
        worked = time.thread_time_ns()
        one.begin, one.edges = _turn(self._units.gated(*key), True, before)
        links = self._units.switchable(*key)
        try:
            self._units.run_edges(key[0], links, one.number + 1)
        except OSError:
            self._shut(key, links)
            del self._schedules[key]
            self._send(BurstReport(*key, one.number + 1, "failed"))
            return
        one.cost += time.thread_time_ns() - worked
        one.attached, one.at = True, one.begin + one.on
        if one.steady:
            del self._schedules[key]
            report = BurstReport(*key, one.number + 1, "steady", begin=one.begin, edges=one.edges)
            self._send(report)

    def _skip(self, one: _Schedule, now: int) -> None:
        """Go without a burst: the kernel has not let go yet of what the last one attached."""
        one.skipped += 1
        later = max(0, one.period - one.on) if not one.steady else MOMENT
        one.at = now + MOMENT + int(_random.random() * later)

    def _end(self, key: Key, one: _Schedule) -> None:
        worked = time.thread_time_ns()
        end, edges = self._shut(key, self._units.switchable(*key))
        cost = one.cost + time.thread_time_ns() - worked
        one.number += 1
        one.attached, one.waits = False, True
        since, one.since = one.since, max(end, one.since + one.period)
        one.at = 0 if one.steady else self._drawn(one)
        times = (since, one.begin, max(end, one.begin), one.since, one.edges + edges, cost)
        self._send(BurstReport(*key, one.number, "burst", *times, one.price, one.skipped))
        one.skipped = 0

    def _shut(self, key: Key, links: Sequence[Link]) -> tuple[int, int]:
        """Have programs count no more, and detach them: since when, and how uncertain that is."""
        now = time.monotonic_ns()
        gate = self._units.gated(*key)
        if links:
            with suppress(OSError):  # where it fails, the next burst does
                self._units.run_edges(key[0], links, 0)
        if gate is None:
            self._units.pause(links)
            return _turn(None, False, now)
        turned = _turn(gate, False, now)
        self._units.pause(links)
        return turned


class Urgent:
    """Within it this process is scheduled before all usual ones, where it may be.

    Children are not: they get the usual policy when they are forked. A process that is scheduled
    in real time already stays as it is.
    """

    def __init__(self) -> None:
        """Ends the process by SIGXCPU where it ever takes a CPU for MOST_URGENT without a pause."""
        self._policy, self._param = os.sched_getscheduler(0), os.sched_getparam(0)
        self._usual = self._policy & ~os.SCHED_RESET_ON_FORK not in REAL_TIME
        if self._usual:
            _, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
            soft = MOST_URGENT if hard == resource.RLIM_INFINITY else min(MOST_URGENT, hard)
            resource.setrlimit(resource.RLIMIT_RTTIME, (soft, hard))

    def __enter__(self) -> None:
        if self._usual:
            self._set(os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))

    def __exit__(self, *error: object) -> None:
        # Without CAP_SYS_NICE a process may give real time back, but not that flag.
        if self._usual and not self._set(self._policy, self._param):
            self._set(self._policy | os.SCHED_RESET_ON_FORK, self._param)

    def _set(self, policy: int, param: os.sched_param) -> bool:
        # Some cgroups and containers allow none of it.
        with suppress(OSError):
            os.sched_setscheduler(0, policy, param)
            return True
        return False


def _own_calls() -> int:
    """Nanoseconds that OWN_CALLS system calls take which do next to nothing: the fastest ones.

    The first ones after a rest are slow, for what they need is in no cache.
    """
    fastest = 1 << 62
    for _ in range(ROUNDS):
        begun = time.monotonic_ns()
        for _ in range(OWN_CALLS):
            os.getpgid(0)
        fastest = min(fastest, time.monotonic_ns() - begun)
    return fastest


def _turn(gate: mmap.mmap | None, on: bool, before: int) -> tuple[int, int]:
    """Let the programs of a control page count or not: when that was, and how uncertain it is.

    Without a page it is between `before` and now that they were attached, or detached.
    """
    if gate is not None:
        before = time.monotonic_ns()
        put_word(gate, 0, int(on))
    after = time.monotonic_ns()
    return (before + after) // 2, after - before
