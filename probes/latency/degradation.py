# SPDX-License-Identifier: Apache-2.0
"""How far the latency probe's targets are given up, and what part of its cost each one has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from probes.budget.meter import UNMEASURED
from probes.budget.policy import DETACHED, FULL, SAMPLING, Level, Part, bursts
from probes.latency.facts import TargetFacts
from probes.latency.sample import Target

LONG_BURSTS = bursts(1.0, ((300, 1200), (75, 1200), (40, 2400), (20, 2400)))
"""Attaching and detaching takes a tenth of a second: bursts are rarer than those of system calls,
and so long that most calls end within one. In 5 s there are two of them at least."""
COUNTED = (FULL, Level("counts only", 0.5), *LONG_BURSTS, DETACHED)
"""Calls are counted where they begin: half of the cost is the way back. Bursts time them again."""
NOTHING_SEEN: Mapping[str, int] = {}
EVENTS = (FULL, *LONG_BURSTS, DETACHED)
"""What has no way back is no cheaper if it is only counted."""


class Ladders:
    """The level of each target, by spec; what is not here is at its highest."""

    def __init__(self) -> None:
        self._levels: dict[str, int] = {}
        self._countable: set[str] = set()
        self._always: set[str] = set()
        self._outside: dict[str, float] = {}
        self._seen: dict[str, int] = {}

    def clear(self) -> None:
        """Nothing is given up any more."""
        self._levels, self._seen = {}, {}
        self._countable.clear()
        self._always.clear()

    def learn(self, spec: str, facts: TargetFacts, outside: Mapping[str, float]) -> None:
        """What the loader says of a target, and what calls take beside the programs, in ns."""
        if facts.countable:
            self._countable.add(spec)
        measured = outside.get(facts.floor, 0.0)
        # Half of it: there is no way back.
        self._outside[spec] = measured / 2 if facts.counts_only else measured

    def level(self, spec: str) -> int:
        """How far a target is given up."""
        return self._levels.get(spec, 0)

    def put(self, spec: str, level: int) -> None:
        """Note a new level."""
        self._levels[spec] = level

    def drop(self, spec: str) -> None:
        """A target is removed."""
        self._countable.discard(spec)
        self._always.discard(spec)
        self._levels.pop(spec, None)
        self._outside.pop(spec, None)
        self._seen.pop(spec, None)

    def no_bursts(self, spec: str) -> None:
        """A target cannot be attached in bursts: it is counted only, or detached."""
        self._always.add(spec)
        self._levels[spec] = 1

    def ladder(self, spec: str) -> tuple[Level, ...]:
        """The levels of a target."""
        steps = COUNTED if spec in self._countable else EVENTS
        return tuple([one for one in steps if not one.on]) if spec in self._always else steps

    def step(self, spec: str) -> Level:
        """The level at which a target is."""
        return self.ladder(spec)[self.level(spec)]

    def counted(self, specs: Sequence[str]) -> list[str]:
        """Those that are to be counted only."""
        return [spec for spec in specs if self.step(spec) is COUNTED[1]]

    def is_detached(self, spec: str) -> bool:
        """Whether a target is given up as a whole."""
        return self.step(spec) is DETACHED

    def given_up(self) -> str | None:
        """What is attached in bursts, and how many targets are given up in part or as a whole."""
        reduced = [spec for spec, level in self._levels.items() if level]
        sampled = [spec for spec in reduced if self.step(spec).on]
        words = []
        if len(sampled) == 1:
            words.append(f"{sampled[0].rpartition(':')[2]} {self.step(sampled[0]).words}")
        elif sampled:
            words.append(f"{len(sampled)} targets {SAMPLING}")
        many = len(reduced) - len(sampled)
        if many:
            words.append(f"{many} target{'s' if many > 1 else ''} given up")
        return ", ".join(words) or None

    def outside(self, spec: str) -> float:
        """The ns that a call of a target takes beside the programs."""
        return self._outside.get(spec, 0.0)

    def parts(
        self, targets: Mapping[str, Target], seen: Mapping[str, int] = NOTHING_SEEN
    ) -> tuple[list[Part], float]:
        """The targets' shares since the last call, and the mean ns of an event beside programs.

        `seen` are the calls within bursts, of those that are attached so.
        """
        weights: dict[str, float] = {}
        calls = 0
        beside = 0.0
        for spec, target in targets.items():
            before, now = self._seen.get(spec, 0), seen.get(spec, target.histogram.n)
            self._seen[spec] = now
            new = max(0, now - before)
            calls += new
            outside = self._outside.get(spec, 0.0)
            beside += new * outside
            weights[spec] = new * (outside + UNMEASURED)
        whole = sum(weights.values()) or 1.0
        parts = [
            Part(spec, self.ladder(spec), self.level(spec), weights[spec] / whole)
            for spec, target in targets.items()
            if target.state == "on" or self.level(spec)
        ]
        return parts, beside / calls if calls else 0.0
