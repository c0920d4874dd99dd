# SPDX-License-Identifier: Apache-2.0
"""A probe of the live source, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from probes.budget.policy import DETACHED
from probes.core.sample import Sample, State
from probes.latency.sample import Target
from probes.probe import Probe


@runtime_checkable
class Attributed(Protocol):
    """A probe whose events are those of processes."""

    def busiest(self, before: Sample | None) -> str:
        """The leader's name of the process with most events since a Sample, "" for none."""


MOMENT = 0.08
"""Seconds too short to say what a machine does: one program may have all of them."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a probe stands now; `settled` unless something that was asked for is awaited."""

    state: State
    settled: bool
    why: str | None
    fix: str | None
    given_up: str | None
    targets: Mapping[str, Target]


@dataclass(slots=True)
class Slot:
    """One probe and where it stands.

    `wanted` is what the user asked for last; `held` that it is detached all the same, for now,
    for it cost more than the budget allows. `begun` are the monotonic seconds when it was attached
    last, `counting` those when the counters of `generation` began. `framed` are its Samples in
    the last two Frames, with the monotonic seconds of those. `final` is what was read when it was
    switched off, until a Frame has it.
    """

    probe: Probe
    state: State = "off"
    wanted: bool = False
    why: str | None = None
    fix: str | None = None
    pending: int | None = None
    held: bool = False
    begun: float = 0.0
    counting: float = 0.0
    generation: int | None = None
    framed: tuple[tuple[float, Sample], ...] = ()
    final: Sample | None = None

    @property
    def runs(self) -> bool:
        """Whether it is attached."""
        return self.state == "on"

    def counted(self, generation: int, now: float) -> float:
        """For how many seconds the counters of this generation have counted at `now`."""
        if self.generation != generation:
            self.generation, self.counting = generation, self.begun
        return max(0.0, now - self.counting - self.probe.uncounted(now))

    def frame(self, sample: Sample, now: float) -> None:
        """Remember what a Frame says of it."""
        self.framed = (*self.framed[-1:], (now, sample))

    def before(self, now: float) -> tuple[Sample | None, float]:
        """What to compare the counters with at `now`: a Sample, None for none, and its seconds.

        The last Frame's, or of the one before that where it has only just been made.
        """
        older = [one for one in self.framed if now - one[0] >= MOMENT]
        when, sample = older[-1] if older else (0.0, None)
        if sample is None or sample.state != "on":
            return None, self.begun
        return sample, when

    def busiest(self, now: float) -> str:
        """The name of the process that causes most events since a Frame, "" if it is not known."""
        probe = self.probe
        if not self.runs or not isinstance(probe, Attributed):
            return ""
        return probe.busiest(self.before(now)[0])

    def standing(self) -> Standing:
        """All that can be said of it without reading what it counted."""
        given_up = self.probe.given_up() if self.runs else DETACHED.words if self.held else None
        targets = getattr(self.probe, "targets", {})
        settled = self.pending is None and self.state != "starting"
        return Standing(self.state, settled, self.why, self.fix, given_up, targets)
