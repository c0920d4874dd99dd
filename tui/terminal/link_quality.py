# SPDX-License-Identifier: Apache-2.0
"""Detects a slow terminal and sets how often a Frame is drawn.

The link is slow when a write takes longer than PATIENCE. A Frame is then drawn every two seconds,
without graphs; if that blocks too, every five seconds. A level ends after a time without a block;
each relapse doubles that time, so that the level does not oscillate.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from tui.terminal.writer import Stall

PATIENCE = 0.25
"""Longest time in seconds that the terminal may take for its output."""
EVERY = (0.0, 2.0, 5.0)
"""Seconds between two drawn Frames, by level; 0 draws every Frame."""
CALM, LONGEST_CALM = 10.0, 320.0
"""Seconds without a block that end a level at first, and at most; each relapse doubles them."""
RELAPSE = 60.0
"""A block within this many seconds after a level ended is a relapse."""

Mode = Literal["auto", "slow", "full"]


class Link:
    """The quality of the link to the terminal.

    `mode` is the user's choice: "auto" judges by the stalls, the other modes always draw few Frames
    or always draw all.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.mode: Mode = "auto"
        self.level = 0
        self.rate: float | None = None
        self.clock = clock
        self._calm = CALM
        self._changed = self._blocked = self._left = -LONGEST_CALM
        self._drawn = -LONGEST_CALM
        self._measured: tuple[float, int] | None = None

    @property
    def slow(self) -> bool:
        """True while few Frames are drawn, without graphs."""
        return self.mode == "slow" or (self.mode == "auto" and self.level > 0)

    @property
    def every(self) -> float:
        """Seconds between two drawn Frames; 0 draws every Frame."""
        return EVERY[max(1, self.level)] if self.slow else 0.0

    def observe(self, stall: Stall) -> None:
        """Update the level by the longest stall since the last call."""
        now = self.clock()
        if stall.seconds > PATIENCE:
            self._block(stall, now)
        elif self.level and now - max(self._blocked, self._changed) >= self._calm:
            self.level -= 1
            self._changed = now
            if not self.level:
                self._left = now

    def _block(self, stall: Stall, now: float) -> None:
        self._blocked = now
        if not self.level:
            relapse = now - self._left < RELAPSE + self._calm
            self._calm = min(2 * self._calm, LONGEST_CALM) if relapse else CALM
            self.level, self._changed = 1, now
        elif self.level < len(EVERY) - 1 and stall.began > self._changed:
            # A stall that began at the old level still counts: even the smaller output blocked.
            self.level, self._changed = self.level + 1, now

    def wait(self) -> float:
        """Seconds until a Frame may be drawn; 0 or less for now."""
        return max(0.0, self._drawn + self.every - self.clock())

    def drew(self, written: int | None) -> None:
        """Note that a Frame was drawn; `written` is the total of bytes sent, None if unknown."""
        now = self._drawn = self.clock()
        if written is None:
            return
        if self._measured is not None:
            then, before = self._measured
            if now - then < 0.05:
                return
            self.rate = (written - before) / (now - then)
        self._measured = (now, written)

    def turn(self) -> None:
        """Switch to the next mode: first the opposite of the current state, then "auto"."""
        if self.mode != "auto":
            self.mode = "auto" if self.mode == "slow" else "slow"
        else:
            self.mode = "full" if self.level else "slow"
        if self.mode == "auto":
            self.level = 0
