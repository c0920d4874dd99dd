# SPDX-License-Identifier: Apache-2.0
"""Where a window begins: the Frame with which the newest one is compared.

Counters are cumulative, so rates and percentiles of any window come from two Frames. But a
window must not reach back beyond the moment when a probe was switched on, its counters
restarted, or it was told to count something else: `Sample.since` says when that was.
"""

from __future__ import annotations

from probes.samples import Frame, LatencySample, PmcSample, Sample, SyscallSample
from probes.timeline import Cursor, Timeline

SINCE_START = float("inf")
KEPT = 8
"""Frames with which windows begin that stay decoded: one for each probe, and some."""


def continues(before: Sample | None, after: Sample) -> bool:
    """Whether all that `after` counts was counted from `before` on, without a gap."""
    if before is None or before.state != "on" or after.state != "on":
        return False
    if type(before) is not type(after) or before.generation != after.generation:
        return False
    if isinstance(after, SyscallSample) and isinstance(before, SyscallSample):
        if (before.latency is None) != (after.latency is None):
            return False
        return before.sample_every == after.sample_every
    if isinstance(after, LatencySample) and isinstance(before, LatencySample):
        return all(
            (old := before.targets.get(spec)) is not None
            and old.state == "on"
            and old.histogram.n <= new.histogram.n
            for spec, new in after.targets.items()
            if new.state == "on"
        )
    if isinstance(after, PmcSample) and isinstance(before, PmcSample):
        same = (before.mode, before.event_set) == (after.mode, after.event_set)
        return same and set(after.events) <= set(before.events)
    return True


class Windows:
    """Finds where windows of a Timeline begin, decoding as little as it can.

    The Frame that is `seconds` ago moves by one step a tick, and has a cursor of its own;
    those with which counting began do not move and stay decoded.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._cursor = Cursor(timeline)
        self._kept: dict[float, Frame] = {}

    def keep(self, frame: Frame) -> None:
        """Remember a Frame that came, if counting began with it: it outlives the Timeline's."""
        if any(sample.since == frame.mono for sample in frame.samples.values()):
            self._keep(frame)

    def base(self, after: Frame, probe: str, seconds: float | None) -> Frame | None:
        """The Frame with which a probe's window of `seconds` that ends with `after` begins.

        None where there is none before `after`: then the last interval is the window.
        """
        sample = after.samples.get(probe)
        if seconds is None or sample is None or sample.state != "on":
            return None
        try:
            found = self._found(sample, after, seconds)
        except LookupError:
            return None
        if found.mono >= after.mono or not continues(found.samples.get(probe), sample):
            return None
        return found

    def _found(self, sample: Sample, after: Frame, seconds: float) -> Frame:
        start = after.mono - seconds
        if sample.since is not None and sample.since >= start:
            return self._kept.get(sample.since) or self._begin(sample.since)
        # The nearest, for timers are not exact.
        return self._cursor.frame(self._timeline.number_at(start + after.interval / 2))

    def _begin(self, since: float) -> Frame:
        """The first Frame of a stretch, or the oldest that is left of it."""
        number = self._timeline.number_at(since)
        if self._timeline.mono(number) < since:
            number += 1
        found = self._cursor.frame(number)
        if found.mono == since:
            self._keep(found)
        return found

    def _keep(self, frame: Frame) -> None:
        self._kept[frame.mono] = frame
        while len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]
