# SPDX-License-Identifier: Apache-2.0
"""Where a window begins: the Frame with which the newest one is compared.

Counters are cumulative, so rates and percentiles of any window come from two Frames. But a
window must not reach back beyond the moment when a probe was switched on, its counters
restarted, or it was told to count something else: `Sample.since` says when that was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from probes.core.frame import Frame
from probes.core.sample import Sample
from probes.recording.timeline import Cursor, Timeline
from probes.report.window_rows import RowSum

SINCE_START = float("inf")
KEPT = 8
"""Frames with which windows begin that stay decoded: one for each probe, and some."""
STEPS = 120
"""Intervals that are decoded at most to add up a window's rows; older ones count as one."""


def continues(before: Sample | None, after: Sample) -> bool:
    """Whether all that `after` counts was counted from `before` on, without a gap."""
    if before is None or before.state != "on" or after.state != "on":
        return False
    if type(before) is not type(after) or before.generation != after.generation:
        return False
    return after.counts_as(before)


class Windows:
    """Finds where windows of a Timeline begin, decoding as little as it can.

    The Frame that is `seconds` ago moves by one step a tick, and has a cursor of its own;
    those with which counting began do not move and stay decoded.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._cursor = Cursor(timeline)
        self._kept: dict[float, Frame] = {}
        self._sums: dict[str, _Rows] = {}

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

    def span(self, after: Frame, probe: str, seconds: float | None) -> tuple[Frame, Frame] | None:
        """Two Frames whose difference is a probe's window, with the rows of all its processes.

        They are to be shown before the next ones are asked for. None as `base` has it.
        """
        base = self.base(after, probe, seconds)
        if base is None:
            self._sums.pop(probe, None)
            return None
        rows = self._sums.get(probe)
        try:
            if rows is None or not rows.move(base, after):
                rows = self._sums[probe] = _Rows(self._timeline, probe, base)
                rows.move(base, after)
        except LookupError:  # it is not kept any more, and the difference tells most of it
            self._sums.pop(probe, None)
            return base, after
        old, new = rows.sum.between(base.samples[probe], after.samples[probe])
        return (
            replace(base, samples={**base.samples, probe: old}),
            replace(after, samples={**after.samples, probe: new}),
        )

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


class _Rows:
    """The rows of one probe's window, which moves on with the Frames."""

    def __init__(self, timeline: Timeline, probe: str, base: Frame) -> None:
        self._kind = type(base.samples[probe])
        self.sum = RowSum(self._kind)
        self._timeline, self._probe = timeline, probe
        self._base = self._last = base
        self._head, self._tail = Cursor(timeline), Cursor(timeline)

    def move(self, base: Frame, after: Frame) -> bool:
        """Let the window be of the time between two Frames; False if it is to begin anew.

        Raises LookupError where a Frame between is missing.
        """
        last = self._last
        known = self._base.mono <= base.mono <= last.mono <= after.mono
        if not known or not continues(last.samples.get(self._probe), after.samples[self._probe]):
            return False
        for old, new in self._steps(last, after, self._head):
            self.sum.add(old.samples[self._probe], new.samples[self._probe])
        self._last = after
        for old, new in self._steps(self._base, base, self._tail):
            self.sum.subtract(old.samples[self._probe], new.samples[self._probe])
        self._base = base
        return True

    def _steps(self, old: Frame, new: Frame, cursor: Cursor) -> Iterator[tuple[Frame, Frame]]:
        """The intervals between two Frames, in order."""
        if old.mono >= new.mono:
            return
        end = self._timeline.number_at(new.mono)
        first = self._timeline.number_at(old.mono) + 1
        for number in range(max(first, end - STEPS), end):
            between = cursor.frame(number)
            sample = between.samples.get(self._probe)
            runs = type(sample) is self._kind and sample is not None and sample.state == "on"
            if runs and old.mono < between.mono < new.mono:
                yield old, between
                old = between
        yield old, new
