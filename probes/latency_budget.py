# SPDX-License-Identifier: Apache-2.0
"""How far the latency probe's targets are given up, and what part of its cost each one has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from probes.cost import UNMEASURED
from probes.governor import ALL_OR_NOTHING, DETACHED, FULL, Level, Part
from probes.latency_facts import TargetFacts
from probes.samples import Target

COUNTED = (FULL, Level("counts only", 0.5), DETACHED)
"""Calls are counted where they begin: half of the cost is the way back."""


class Ladders:
    """The level of each target, by spec; what is not here is at its highest."""

    def __init__(self) -> None:
        self._levels: dict[str, int] = {}
        self._countable: set[str] = set()
        self._outside: dict[str, float] = {}
        self._seen: dict[str, int] = {}

    def clear(self) -> None:
        """Nothing is given up any more."""
        self._levels, self._seen = {}, {}
        self._countable.clear()

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
        self._levels.pop(spec, None)
        self._outside.pop(spec, None)
        self._seen.pop(spec, None)

    def ladder(self, spec: str) -> tuple[Level, ...]:
        """The levels of a target."""
        return COUNTED if spec in self._countable else ALL_OR_NOTHING

    def counted(self, specs: Sequence[str]) -> list[str]:
        """Those that are to be counted only."""
        return [spec for spec in specs if self.ladder(spec)[self.level(spec)] is COUNTED[1]]

    def is_detached(self, spec: str) -> bool:
        """Whether a target is given up as a whole."""
        return self.level(spec) == len(self.ladder(spec)) - 1

    def given_up(self) -> str | None:
        """How many targets are given up in part or as a whole."""
        many = len([1 for level in self._levels.values() if level])
        return f"{many} target{'s' if many > 1 else ''} given up" if many else None

    def parts(self, targets: Mapping[str, Target]) -> tuple[list[Part], float]:
        """The targets' shares since the last call, and the mean ns of an event beside programs."""
        weights: dict[str, float] = {}
        calls = 0
        beside = 0.0
        for spec, target in targets.items():
            before, now = self._seen.get(spec, 0), target.histogram.n
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
