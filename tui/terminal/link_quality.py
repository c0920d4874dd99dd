# SPDX-License-Identifier: Apache-2.0
"""Whether the way to the terminal is slow, and how often a Frame is drawn then.

It is slow when the terminal blocks: a write takes longer than PATIENCE. Then a Frame is drawn
every two seconds, without graphs; if that blocks too, every five. It is taken back a step when
nothing has blocked for a while, which grows with each relapse, so that it does not swing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from tui.terminal.writer import Stall

PATIENCE = 0.25
"""Seconds that the terminal may take for what it is sent."""
EVERY = (0.0, 2.0, 5.0)
"""Seconds from one drawn Frame to the next, by level; 0 draws each."""
CALM, LONGEST_CALM = 10.0, 320.0
"""Seconds without a block after which a level is taken back; twice as many after a relapse."""
RELAPSE = 60.0
"""Seconds after which a block is no relapse any more."""

Mode = Literal["auto", "slow", "full"]


class Link:
    """The state of the way to the terminal. `mode` is what the user wants: to have it judged
    ("auto"), few Frames in any case, or all of them in any case.
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
        """Whether Frames are few and without graphs."""
        return self.mode == "slow" or (self.mode == "auto" and self.level > 0)

    @property
    def every(self) -> float:
        """Seconds from one drawn Frame to the next, 0 for all of them."""
        return EVERY[max(1, self.level)] if self.slow else 0.0

    def observe(self, stall: Stall) -> None:
        """Judge by the longest time for which the terminal had something to take."""
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
            # It began when there was less to send already: that is still too much.
            self.level, self._changed = self.level + 1, now

    def wait(self) -> float:
        """Seconds until a Frame may be drawn."""
        return max(0.0, self._drawn + self.every - self.clock())

    def drew(self, written: int | None) -> None:
        """A Frame is drawn; `written` bytes were sent so far, None where nobody counts them."""
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
        """The next mode: the opposite of what is so now, then as the terminal takes it again."""
        if self.mode != "auto":
            self.mode = "auto" if self.mode == "slow" else "slow"
        else:
            self.mode = "full" if self.level else "slow"
        if self.mode == "auto":
            self.level = 0
