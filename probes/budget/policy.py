# SPDX-License-Identifier: Apache-2.0
"""Keeps what the probes cost within a budget, whatever the load.

What can be made cheaper is a `Load`: a probe, or a target of the latency probe. Each has a row of
`Level`s, from all that was asked for down to detached, and a guess of how much cheaper each is.
What probes cost, and what it costs to draw it, are two accounts. When both are above the budget
together, less is drawn. When the probes are alone, in the mean of some seconds or far above it at
once, the dearest load goes down to the level that should fit; when there is room for the next
higher level, and has been for a while, it goes up by one. A level that did not last
makes the next attempt wait
longer: this is what keeps it from going up and down. What is detached counts nothing, so nobody
knows what it would cost: it is tried again after a while, sooner where the kernel is far less
busy than it was.

Nothing here reads a clock or a map: `probes.live.budget_controller` does, and carries out what
`decide` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

AIM, CALM = 0.8, 0.6
"""Going down aims at this part of the budget; going up must leave the whole below that part."""
FAR, HORIZON = 4.0, 5.0
"""So many times the budget is too much at once; less is, in the mean of about so many seconds."""
SETTLE = 2.5
"""Seconds after going down until the load's cost is known again."""
WAIT, LONGEST = 8.0, 300.0
"""Seconds of room before going up, at first and at most."""
TRIAL, RAREST = 30.0, 120.0
"""Seconds before a detached load is tried, at first and at most: who looks wants to know.

A trial costs about half a second of all CPUs in the worst storm; below SMALL per cent of budget
they are rarer.
"""
SMALL = 2.0
QUIET = 5.0
"""Seconds before a detached load is tried on a machine that is half as busy as it was."""
DRAWING = (1, 2, 5)
"""Of how many Frames one is drawn, as less is drawn."""
INSISTED = 60.0
"""Seconds for which nothing is detached that somebody has just switched on ..."""
TOO_MUCH = 25.0
"""... unless it costs more than so much of all CPUs, in per cent."""
LASTED = 60.0
"""Seconds that a level has to last for the attempt to have been right."""

Key = tuple[str, str]
"""A probe, and what of it: a target, or "" for all of it."""


class Level(NamedTuple):
    """One step of a ladder: what is given up, in words, and its part of the whole cost.

    On a step with bursts it is attached for `on` milliseconds in each `period`, else always.
    """

    words: str
    weight: float
    on: int = 0
    period: int = 0

    @property
    def duty(self) -> float:
        """The part of the time for which it is attached."""
        return self.on / self.period if self.on else 1.0


SAMPLING = "sampling"
"""How the words of steps with bursts begin."""
FULL, DETACHED = Level("", 1.0), Level("detached", 0.0)
ALL_OR_NOTHING = (FULL, DETACHED)


def bursts(weight: float, steps: Sequence[tuple[int, int]], what: str = "") -> tuple[Level, ...]:
    """Steps with bursts: of a step that costs `weight`, for milliseconds of each so many.

    `what` are the words for what is looked at in bursts, where that is a part only.
    """
    return tuple(
        Level(f"{SAMPLING} {what}1 s in {round(period / on)}", weight * on / period, on, period)
        for on, period in steps
    )


QUICK_BURSTS = ((48, 192), (12, 192), (3, 192))
"""Bursts of what is attached and detached in some tenths of a millisecond: five a second."""
SAMPLED = (FULL, *bursts(1.0, QUICK_BURSTS), DETACHED)


class Part(NamedTuple):
    """What of a probe can be made cheaper: `what` is a target or "" for all of it.

    `share` is its part of the probe's cost, `level` where on its ladder it stands. `per_call` are
    the ns that it costs each system call of the machine beside that.
    """

    what: str
    levels: tuple[Level, ...]
    level: int
    share: float = 1.0
    per_call: float = 0.0


class Load(NamedTuple):
    """Something that costs, now: `percent` of one CPU, and its ladder, the last step detached.

    `full` is what it would cost with nothing given up, where that is known at any level.
    """

    key: Key
    levels: tuple[Level, ...]
    level: int
    percent: float
    full: float | None = None


class Change(NamedTuple):
    """Take a load to a level. `percent` (of one CPU) is what it cost, or would cost."""

    key: Key
    level: int
    percent: float


@dataclass(slots=True)
class _Past:
    """What happened to a load: when it went down and up, since when there is room for more.

    `wait` and `trial` are how long to have room, or to be detached, before it goes up.
    """

    lowered: float = float("-inf")
    raised: float = float("-inf")
    room_since: float | None = None
    wait: float = field(default_factory=lambda: WAIT)
    trial: float = field(default_factory=lambda: TRIAL)
    busy: float | None = None


class Governor:
    """Decides, tick by tick. `budget` is per cent of all `cpus` together."""

    def __init__(self, budget: float, cpus: int) -> None:
        self.budget = budget
        self.whole = budget * cpus
        self._cpus = cpus
        self._rarer = max(1.0, SMALL / budget) if budget else 1.0
        self._past: dict[Key, _Past] = {}
        self._means: dict[Key, float] = {}
        self._own = 0.0
        self._last: float | None = None
        self._insisted: dict[str, float] = {}
        self._kept: dict[str, float] = {}
        self._drawing = 0
        self._drawn = float("-inf")
        self.seen = 0.0
        """What all of it took when it was decided last, before that, as `used`."""

    @property
    def used(self) -> float:
        """What all of it took in the last seconds, in per cent of all CPUs."""
        return (self._own + sum(self._means.values())) / self._cpus

    @property
    def drawing(self) -> int:
        """Of how many Frames one is to be drawn."""
        return DRAWING[self._drawing]

    @property
    def probes(self) -> float:
        """What the probes alone took in the last seconds, in per cent of all CPUs."""
        return sum(self._means.values()) / self._cpus

    def insist(self, probe: str, now: float) -> None:
        """Somebody has switched a probe on while it ran without: it is not soon detached."""
        self._insisted[probe] = now + INSISTED

    def kept(self, probe: str, now: float) -> float | None:
        """For how many seconds a probe is not detached yet that would be; None for no such one."""
        left = self._insisted.get(probe, now) - now
        lately = now - self._kept.get(probe, float("-inf")) <= SETTLE
        return left if left > 0 and lately else None

    def draw(self, now: float) -> None:
        """Decide how much is drawn, by what drawing and probes took in the last seconds."""
        whole = self._own + sum(self._means.values())
        last = len(DRAWING) - 1
        if whole > self.whole and self._drawing < last and now - self._drawn >= SETTLE:
            self._drawing, self._drawn = self._drawing + 1, now
        elif self._drawing and now - self._drawn >= WAIT:
            more = DRAWING[self._drawing] / DRAWING[self._drawing - 1]
            if whole + self._own * (more - 1) <= CALM * self.whole:
                self._drawing, self._drawn = self._drawing - 1, now

    def forget(self, probe: str) -> None:
        """The user has decided about a probe: what was tried before counts no more."""
        self._past = {key: past for key, past in self._past.items() if key[0] != probe}

    def decide(
        self, now: float, loads: Sequence[Load], own: float, busy: float | None
    ) -> list[Change]:
        """What to change at this tick.

        `own` is what this process itself takes, in per cent of one CPU: no probe pays for it, for
        taking one away would not make it less (see `draw`). `busy` is how busy the kernel is, in
        per cent of all CPUs, None when that is not known.
        """
        passed = HORIZON if self._last is None else max(0.0, now - self._last)
        self._last = now
        part = min(1.0, passed / HORIZON)
        self._own += (own - self._own) * part
        means = {load.key: self._means.get(load.key, 0.0) for load in loads}
        self._means = {
            load.key: means[load.key] + (load.percent - means[load.key]) * part for load in loads
        }
        self.seen = self.used
        room = self.whole
        if sum([load.percent for load in loads]) > FAR * room:
            return self._down(now, loads, room, busy)
        usual = [load._replace(percent=self._means[load.key]) for load in loads]
        if sum(self._means.values()) > room:
            return self._down(now, usual, room, busy)
        return self._up(now, usual, room, busy)

    def _down(
        self, now: float, loads: Sequence[Load], room: float, busy: float | None
    ) -> list[Change]:
        """The dearest first, until enough is given up."""
        changes: list[Change] = []
        excess = sum([load.percent for load in loads]) - AIM * room
        for load in sorted(loads, key=lambda load: -load.percent):
            if excess <= 0:
                break
            past = self._past.setdefault(load.key, _Past())
            last = self._last_level(load, now)
            if last < len(load.levels) - 1 and guess(load, last) > load.percent - excess:
                self._kept[load.key[0]] = now
            if load.percent <= 0 or load.level >= last or now - past.lowered < SETTLE:
                continue
            lower = range(load.level + 1, last + 1)
            fits = [n for n in lower if guess(load, n) <= load.percent - excess]
            level = fits[0] if fits else last
            # To detach is the last resort: not where the level above it may just do.
            spare = load.percent - guess(load, last - 1)
            may_do = load.level < last - 1 and excess - spare <= (1 - AIM) * room
            if last < len(load.levels) - 1:
                may_do = False  # it is not detached, however little that is
            if level == last and may_do:
                level, excess = last - 1, 0.0
            elif level == last and load.level < last - 1 and load.levels[last - 1].on:
                # Others are too dear as well: bursts first, and what is left is for them.
                level = last - 1
            self._means[load.key] = guess(load, level)
            excess -= load.percent - guess(load, level)
            self._lowered(past, now, load, level, busy)
            changes.append(Change(load.key, level, load.percent))
        return changes

    def _last_level(self, load: Load, now: float) -> int:
        """The lowest level that a load may be taken to now."""
        last = len(load.levels) - 1
        insisted = self._insisted.get(load.key[0], now) > now
        return last - 1 if insisted and load.percent <= TOO_MUCH * self._cpus else last

    def _lowered(self, past: _Past, now: float, load: Load, level: int, busy: float | None) -> None:
        short = now - past.raised < LASTED
        if level == len(load.levels) - 1:
            first = TRIAL * self._rarer
            past.trial = min(RAREST * self._rarer, 2 * past.trial) if short else first
            past.busy = busy
        else:
            past.wait = min(LONGEST, 2 * past.wait) if short else WAIT
        past.lowered, past.room_since = now, None

    def _up(
        self, now: float, loads: Sequence[Load], room: float, busy: float | None
    ) -> list[Change]:
        """At most one step of one load: what comes then is to be seen first."""
        total = sum([load.percent for load in loads])
        for load in sorted(loads, key=lambda load: load.percent):
            if load.level == 0:
                continue
            past = self._past.setdefault(load.key, _Past(lowered=now))
            level = load.level - 1
            if load.level == len(load.levels) - 1 and load.full is None:
                past.busy = busy if past.busy is None else past.busy
                ready = total <= CALM * room and _may_try(past, now, busy)
            else:
                more = guess(load, level) - load.percent
                if total + more > CALM * room:
                    past.room_since = None
                elif past.room_since is None:
                    past.room_since = now
                ready = past.room_since is not None and now - past.room_since >= past.wait
            if ready:
                past.raised, past.room_since = now, None
                return [Change(load.key, level, load.percent)]
        return []


def guess(load: Load, level: int) -> float:
    """What a load would cost at another level, in per cent of one CPU."""
    if load.full is not None:
        return load.full * load.levels[level].weight
    return load.percent * load.levels[level].weight / (load.levels[load.level].weight or 1.0)


def _may_try(past: _Past, now: float, busy: float | None) -> bool:
    """Whether it is time to see what a detached load costs now."""
    waited = now - past.lowered
    if waited >= past.trial:
        return True
    known = busy is not None and past.busy is not None
    # Where trials have failed here, a quiet moment is not enough either.
    soon = QUIET * past.trial / TRIAL
    return known and waited >= soon and (busy or 0.0) <= (past.busy or 0.0) / 2
