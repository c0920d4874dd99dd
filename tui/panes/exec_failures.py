# SPDX-License-Identifier: Apache-2.0
"""How many programs could not be started, over time: what the exec pane's title shows of them."""

from __future__ import annotations

from collections import deque

STEPS = 5000
"""Moments at which programs failed to start that are kept."""
SLACK = 1e-6
"""Seconds by which two monotonic times may differ and be the same."""


class Failures:
    """How many programs could not be started, over time."""

    def __init__(self) -> None:
        self._start: tuple[float, int] | None = None
        self._steps: deque[tuple[float, int]] = deque(maxlen=STEPS)

    def clear(self) -> None:
        """Forget everything."""
        self._start = None
        self._steps.clear()

    def begin(self, mono: float, failed: int) -> None:
        """Where counting begins, unless it has begun."""
        if self._start is None:
            self._start = (mono, failed)

    def add(self, mono: float, failed: int) -> None:
        """The number at a moment; moments rise."""
        last = self._steps[-1] if self._steps else self._start
        if last is None or last[1] != failed:
            self._steps.append((mono, failed))

    def since(self, mono: float) -> int | None:
        """How many there were since a moment; None for one before the first that is known."""
        if self._start is None:
            return None
        now = self._steps[-1][1] if self._steps else self._start[1]
        for at, failed in reversed(self._steps):
            if at <= mono + SLACK:
                return now - failed
        complete = len(self._steps) < STEPS and self._start[0] <= mono + SLACK
        return now - self._start[1] if complete or abs(self._start[0] - mono) <= SLACK else None
