# SPDX-License-Identifier: Apache-2.0
"""How much of what happened fits through a slow link, by how long Frames took to arrive."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from probes.core.frame import Frame
from probes.execs.sample import MAX_EVENTS, ExecSample

AHEAD = 2.0
"""Seconds for which a Frame may be on its way before others wait until it has arrived."""
LEAST = 50
"""Events that a Frame has room for, however slow the link is."""


class Room:
    """What is on its way, and how many events the next Frame may bring.

    Between the two ends lie pipes and buffers of megabytes, which a slow link would show minutes
    later: so the far end says what has arrived. Counters take little, whatever time they are of;
    events add up while a Frame waits for the one before. The oldest are left out, and counted.
    An end that never says anything is sent all there is.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = MAX_EVENTS
        self._clock = clock
        self._seen: int | None = None
        self._sent = 0
        self._under_way: deque[tuple[float, int]] = deque(maxlen=1000)

    @property
    def full(self) -> bool:
        """Whether a Frame of some time ago has not arrived yet."""
        if self._seen is None or not self._under_way:
            return False
        return self._clock() - self._under_way[0][0] > AHEAD

    def fit(self, frame: Frame) -> Frame:
        """The Frame that is sent now, with as many events as there is room for."""
        samples = {}
        count = 0
        for name, sample in frame.samples.items():
            if isinstance(sample, ExecSample):
                over = len(sample.events) - self.most
                if over > 0:
                    dropped = sample.dropped + over
                    sample = replace(sample, events=sample.events[over:], dropped=dropped)
                count += len(sample.events)
            samples[name] = sample
        self._sent += 1
        self._under_way.append((self._clock(), count))
        return replace(frame, samples=samples)

    def arrived(self, frames: int) -> None:
        """So many Frames have arrived in all; raises ValueError for what cannot be."""
        if not (self._seen or 0) <= frames <= self._sent:
            raise ValueError(frames)
        self._seen = frames
        while len(self._under_way) > self._sent - frames:
            began, count = self._under_way.popleft()
            self._judge(self._clock() - began, count)

    def _judge(self, seconds: float, count: int) -> None:
        if seconds > AHEAD:
            self.most = max(LEAST, min(self.most, int(count * 0.8 * AHEAD / seconds)))
        elif seconds < AHEAD / 2 and count >= self.most:
            self.most = min(MAX_EVENTS, self.most + max(LEAST, self.most // 4))
