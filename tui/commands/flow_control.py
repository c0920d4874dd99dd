# SPDX-License-Identifier: Apache-2.0
"""Flow control for a slow link: adapts the number of events to the measured delivery time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from probes.core.frame import Frame
from probes.execs.sample import MAX_EVENTS, ExecSample

AHEAD = 2.0
"""Seconds that a Frame may be in transit before later Frames wait for its arrival."""
LEAST = 50
"""Least events in a Frame, however slow the link is."""


class FlowControl:
    """Tracks Frames in transit, and limits the events of the next one.

    Pipes and buffers between the two ends hold megabytes, which a slow link would deliver minutes
    late, so the receiver acknowledges Frames. Counters take little space for any period, but events
    add up while a Frame waits for the one before. The oldest events are left out, and counted. A
    receiver that never acknowledges a Frame gets all events.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = MAX_EVENTS
        self._clock = clock
        self._seen: int | None = None
        self._sent = 0
        self._under_way: deque[tuple[float, int]] = deque(maxlen=1000)

    @property
    def full(self) -> bool:
        """True if a Frame sent `AHEAD` seconds ago or earlier has not arrived yet."""
        if self._seen is None or not self._under_way:
            return False
        return self._clock() - self._under_way[0][0] > AHEAD

    def fit(self, frame: Frame) -> Frame:
        """The Frame to send now, with as many events as the limit allows."""
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
        """Note the total of arrived Frames; raises ValueError for an impossible number."""
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
