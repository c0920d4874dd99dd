# SPDX-License-Identifier: Apache-2.0
"""Which probes are to be on: what was wished for while somebody watches, and what runs need."""

from __future__ import annotations

from collections.abc import Iterable


class Watch:
    """Whether anybody watches: somebody is there, or was within the last `linger` seconds.

    A `linger` of 0 means that it does not matter. Times are monotonic seconds.
    """

    def __init__(self, linger: float, now: float) -> None:
        self.linger = linger
        self.here = 0
        self._last = now

    def enter(self) -> None:
        """Somebody begins to watch."""
        self.here += 1

    def leave(self, now: float) -> None:
        """Somebody who had entered is gone."""
        self.here -= 1
        self.touch(now)

    def touch(self, now: float) -> None:
        """Somebody has looked once."""
        self._last = max(self._last, now)

    def left(self, now: float) -> float | None:
        """Seconds until nobody watches any more if nothing happens; None for never."""
        if self.here or not self.linger:
            return None
        return max(0.0, self._last + self.linger - now)

    def watched(self, now: float) -> bool:
        """Whether the probes that were wished for are to be on."""
        return self.left(now) != 0.0


class Demand:
    """The probes that were wished for, by the user and by runs (by their ids)."""

    def __init__(self, names: Iterable[str], wanted: Iterable[str]) -> None:
        on = set(wanted)
        self.wanted = {name: name in on for name in names}
        self.runs: dict[str, frozenset[str]] = {}

    def on(self, watched: bool) -> set[str]:
        """The names of those that are to be attached now."""
        mine = {name for name, wanted in self.wanted.items() if wanted and watched}
        return mine.union(*self.runs.values())
