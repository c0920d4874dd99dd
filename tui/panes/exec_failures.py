# SPDX-License-Identifier: Apache-2.0
"""The number of failed executions over time, for the exec pane."""

from __future__ import annotations

from collections import deque

STEPS = 5000
"""Most moments of failed executions that are kept."""
SLACK = 1e-6
"""Two monotonic times that differ by fewer seconds than this are the same time."""


class Failures:
    """Failed executions over time."""

    def __init__(self) -> None:
        self._start: tuple[float, int] | None = None
        self._steps: deque[tuple[float, int]] = deque(maxlen=STEPS)

    def clear(self) -> None:
        """Drop all moments."""
        self._start = None
        self._steps.clear()

    def begin(self, mono: float, failed: int) -> None:
        """Set the time at which counting starts, unless it is set."""
        if self._start is None:
            self._start = (mono, failed)

    def add(self, mono: float, failed: int) -> None:
        """Add the failures of a moment; moments must be added in order."""
        last = self._steps[-1] if self._steps else self._start
        if last is None or last[1] != failed:
            self._steps.append((mono, failed))

    def since(self, mono: float) -> int | None:
        """Failures since a moment; None if counting started after it."""
        if self._start is None:
            return None
        now = self._steps[-1][1] if self._steps else self._start[1]
        for at, failed in reversed(self._steps):
            if at <= mono + SLACK:
                return now - failed
        complete = len(self._steps) < STEPS and self._start[0] <= mono + SLACK
        return now - self._start[1] if complete or abs(self._start[0] - mono) <= SLACK else None
