# SPDX-License-Identifier: Apache-2.0
"""The budget of a live source: reads what probes cost, and carries out what the Governor says."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from probes.budget.meter import CallRate
from probes.budget.policy import Change, Governor, Key, Load, Part
from probes.core.sample import Budget
from probes.probe import Probe

TICK, QUICK, FIRST = 1.0, 0.5, 0.25
"""Seconds between looks at the cost, while something has just changed, and when it has begun."""
SLACK, EARLY = 0.05, 0.6
"""With a Frame that is no older, a look may be so many seconds early: it reads nothing then."""
STARTING = 5.0
"""Seconds from the first look on in which this process's own time is that of its start."""
LIFTED = 60.0
"""Seconds for which the budget is lifted on demand."""
NEWS = 3.0
"""Seconds for which a change is news."""
FEWER = "given up"
FIX = "it is tried again when there is room; --budget 0 never gives up anything"


class Standing(Protocol):
    """What a Governed knows of a probe: whether it runs, and what it can be told."""

    probe: Probe
    held: bool
    pending: int | None

    @property
    def runs(self) -> bool:
        """Whether it is attached."""


class Hands(NamedTuple):
    """What the owner of the probes does on demand, each with a probe's name.

    `busiest` names the process that causes most of the probe's events now, "" where nobody knows.
    """

    reload: Callable[[str], None]
    measure: Callable[[str], None]
    hold: Callable[[str, str, str], None]
    release: Callable[[str], None]
    busiest: Callable[[str], str] = lambda name: ""


class Governed:
    """Looks at the cost of `slots` now and then. `budget` in per cent of all `cpus`, 0 for none.

    What this process takes is the account of drawing, if it `draws` at all.
    """

    def __init__(
        self,
        budget: float,
        cpus: int,
        slots: Mapping[str, Standing],
        hands: Hands,
        draws: bool = False,
    ) -> None:
        self.budget = budget
        self._cpus = cpus
        self._slots = slots
        self._hands = hands
        self._governor = Governor(budget, cpus)
        self._due = self._news = self._soonest = float("-inf")
        self._last: tuple[float, float] | None = None
        self._parts: dict[Key, Part] = {}
        self._busy = Busy()
        self._pressed = False
        self._draws = draws
        self._started: float | None = None
        self._one_off = 0.0
        self._lifted = float("-inf")
        self._reasons: dict[str, str] = {}
        self._calls = CallRate()
        self.used: float | None = None

    def stands(self) -> Budget | None:
        """The budget and what is used of it, None without one."""
        if not self.budget:
            return None
        left = self._lifted - time.monotonic()
        return Budget(self.budget, self.used, self._governor.drawing, left if left > 0 else None)

    def forget(self, probe: str) -> None:
        """The user has decided about a probe."""
        self._governor.forget(probe)
        self._news = time.monotonic()

    def insist(self, probe: str) -> None:
        """The user has switched a probe on by hand: it is not soon detached."""
        self._governor.insist(probe, time.monotonic())

    def kept(self, probe: str) -> float | None:
        """For how many seconds it is kept on by whoever has switched it on, above the budget."""
        return self._governor.kept(probe, time.monotonic())

    def lift(self, seconds: float = LIFTED) -> None:
        """Give up nothing for a while, and take back what was given up."""
        now = time.monotonic()
        self._lifted = now + seconds if seconds > 0 else float("-inf")
        self._due = min(self._due, now)

    def one_off(self, seconds: float) -> None:
        """So many seconds of a CPU went into something that is done once, as an export."""
        self._one_off += seconds

    def reason(self, probe: str) -> str | None:
        """Why something of a probe is given up, in a few words; None where nothing is."""
        return self._reasons.get(probe)

    def begun(self, probe: Probe, now: float) -> None:
        """A probe runs from now on: its cost is soon to be looked at."""
        probe.meter.estimate(now)
        counting = self._slots.get("syscalls")
        if counting is not None and counting.probe is probe:
            # The first look may detach it: what each call pays goes by the rate known then.
            self._calls.begin(probe.meter, now)
        self._news = now
        self._due = min(self._due, now + FIRST)
        # Its loader has made calls to measure them: in a moment's rate they would be a storm.
        self._soonest = now + FIRST

    def wait(self, now: float) -> float:
        """Seconds until the next look."""
        return max(0.0, max(self._due, self._soonest) - now) if self.budget else float("inf")

    def tick(self, now: float, read: float = float("-inf")) -> None:
        """Look, and act, if it is time to. `read` is when the probes were read last."""
        fresh = now - read <= SLACK
        if not self.budget or now < max(self._due - (EARLY if fresh else 0.0), self._soonest):
            return
        loads = self._loads(now, not fresh)
        own = self._own(now)
        busy = self._busy.percent() if self._pressed else None
        changes = self._governor.decide(now, loads, own, busy)
        if self._draws:
            self._governor.draw(now)
        if now < self._lifted:
            changes = [Change(one.key, 0, one.percent) for one in loads if one.level]
        for change in changes:
            self._carry_out(change)
        if changes:
            self._news = now
        self.used = self._governor.used
        self._pressed = self.used > self.budget / 2 or any(load.level for load in loads)
        # Later than a Frame a second from now, so that it comes with that.
        self._due = now + (QUICK if now - self._news < NEWS else TICK + SLACK)

    def _loads(self, now: float, drain: bool) -> list[Load]:
        self._parts = {}
        loads: list[Load] = []
        if drain:
            # Events and time have to be of the same moment, for all of them.
            for slot in self._slots.values():
                if slot.runs:
                    slot.probe.drain()
        counting = self._slots.get("syscalls")
        meter = counting.probe.meter if counting and counting.runs else None
        calls = self._calls.of(meter, now) or 0.0
        for name, slot in self._slots.items():
            if not slot.runs and not slot.held:
                continue
            if slot.pending is not None and any(part.level for part in slot.probe.parts()):
                # Something cheaper is being loaded: what it costs until then decides nothing.
                continue
            parts = slot.probe.parts()
            percent = slot.probe.meter.estimate(now) if slot.runs else 0.0
            for part in parts:
                key, level = (name, part.what), part.level
                if slot.held:
                    level = len(part.levels) - 1
                self._parts[key] = part
                share, full = percent * part.share, None
                if slot.runs and part.levels[level].on:
                    # What switching takes does not grow with the time attached.
                    switching = slot.probe.meter.switching * part.share
                    full = max(0.0, share - switching) / part.levels[level].weight
                if part.per_call:
                    weight = part.levels[level].weight
                    full = share / (weight or 1.0) + calls * part.per_call / 1e7
                    share = full * weight
                loads.append(Load(key, part.levels, level, share, full))
        return loads

    def _own(self, now: float) -> float:
        """What this process took since the last look, in per cent of one CPU."""
        last, self._last = self._last, (now, time.process_time())
        once, self._one_off = self._one_off, 0.0
        self._started = now if self._started is None else self._started
        if last is None or now <= last[0] or now - self._started < STARTING:
            return 0.0
        return 100 * max(0.0, self._last[1] - last[1] - once) / (now - last[0])

    def _carry_out(self, change: Change) -> None:
        name, what = change.key
        slot = self._slots[name]
        last = len(self._parts[change.key].levels) - 1
        why = self._why(change.percent, name)
        # What is tried again costs nothing until then: the reason is that of before.
        lower = not slot.held and change.level > self._parts[change.key].level
        if lower or name not in self._reasons:
            self._reasons[name] = why
        if not change.level:
            self._reasons.pop(name, None)
        if not what and change.level == last:
            self._hands.hold(name, f"detached: {why}", FIX)
            return
        reload = slot.probe.give_up(what, change.level, f"{FEWER}: {why}", FIX)
        if slot.held:
            self._hands.release(name)
        elif reload:
            self._hands.reload(name)
        else:
            self._hands.measure(name)

    def _why(self, percent: float, name: str) -> str:
        """Why something is given up: the budget, what the probe took, and by whose events."""
        busiest = self._hands.busiest(name)
        by = f", {busiest}" if busiest else ""
        return f"over {self.budget:g} % CPU (probe {_percent(percent / self._cpus)}{by})"


def _percent(share: float) -> str:
    return f"{share:.1f} %" if share < 10 else f"{share:.0f} %"


class Busy:
    """How busy the kernel of the whole machine is: a read of /proc/stat, for when it matters."""

    def __init__(self) -> None:
        self._last: tuple[int, int] | None = None

    def percent(self) -> float | None:
        """Of the time since the last call; None for the first one."""
        try:
            fd = os.open("/proc/stat", os.O_RDONLY | os.O_CLOEXEC)
            try:
                words = os.read(fd, 256).split(b"\n", 1)[0].split()[1:9]
            finally:
                os.close(fd)
            times = [int(word) for word in words]
        except (OSError, ValueError):
            return None
        # What user space does by itself calls nobody: system, irq and softirq.
        system, total = times[2] + times[5] + times[6], sum(times)
        last, self._last = self._last, (system, total)
        if last is None or total <= last[1]:
            return None
        return 100 * (system - last[0]) / (total - last[1])
