# SPDX-License-Identifier: Apache-2.0
"""How much CPU time what is asked for may take in the mean: a token bucket of CPU seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

RATE = 0.25
"""CPUs that may be used in the mean."""
BURST = 60.0
"""CPU seconds that may be used at once: far more than a start, or somebody who types, needs."""
NICE = 10
"""How much less urgent work is that has used up half of its burst."""


class Pace:
    """Says when the next request may begin, from what earlier ones took."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives monotonic seconds."""
        self._clock = clock
        self._left, self._at = BURST, clock()

    def charge(self, seconds: float) -> None:
        """Note CPU seconds that were used."""
        self._refill()
        self._left -= seconds

    def delay(self) -> float:
        """Seconds until a request may begin, 0.0 for now."""
        self._refill()
        return max(0.0, -self._left / RATE)

    @property
    def nice(self) -> int:
        """What a process that works now adds to its nice value."""
        self._refill()
        return NICE if self._left < BURST / 2 else 0

    def _refill(self) -> None:
        now = self._clock()
        self._left, self._at = min(BURST, self._left + RATE * (now - self._at)), now
