# SPDX-License-Identifier: Apache-2.0
"""The probes that are to be on: clients' demand while any client watches, and runs' demand."""

from __future__ import annotations

from collections.abc import Iterable


class Watch:
    """Tracks whether a client watches now, or did within the last `linger` seconds.

    With a `linger` of 0 it always counts as watched. Times are monotonic seconds.
    """

    def __init__(self, linger: float, now: float) -> None:
        self.linger = linger
        self.here = 0
        self._last = now

    def enter(self) -> None:
        """A client starts to watch."""
        self.here += 1

    def leave(self, now: float) -> None:
        """A client that watched has gone."""
        self.here -= 1
        self.touch(now)

    def touch(self, now: float) -> None:
        """A client has read data once."""
        self._last = max(self._last, now)

    def left(self, now: float) -> float | None:
        """Seconds until the watch ends without further events; None for never."""
        if self.here or not self.linger:
            return None
        return max(0.0, self._last + self.linger - now)

    def watched(self, now: float) -> bool:
        """True if the demanded probes are to be on."""
        return self.left(now) != 0.0


class Demand:
    """The demand for probes, by clients and by runs (by their ids)."""

    def __init__(self, names: Iterable[str], wanted: Iterable[str]) -> None:
        on = set(wanted)
        self.wanted = {name: name in on for name in names}
        self.runs: dict[str, frozenset[str]] = {}

    def on(self, watched: bool) -> set[str]:
        """The names of the probes that are to be attached now."""
        mine = {name for name, wanted in self.wanted.items() if wanted and watched}
        return mine.union(*self.runs.values())
