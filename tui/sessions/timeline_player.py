# SPDX-License-Identifier: Apache-2.0
"""Which moment the panes show: the newest Frames as they come, or any of a Timeline.

A pane draws some things over time. So a jump begins anew and feeds it what came before the
moment, as much as its graphs show and a key press may take; a step onwards feeds one Frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from probes.core.delta import seconds_between
from probes.core.frame import Frame
from probes.recording.timeline import Cursor, Timeline
from probes.report.windows import Windows
from tui.panes.base import Pane
from tui.shared.gc_pause import uncollected

DRAWN_BYTES, SHOWN_BYTES = 1 << 19, 1 << 15
"""Bytes of Frames that a jump may take in, for graphs and for tables: about 0.1 s each."""
LINGERING = 4
"""Frames before a moment that tables are fed: rows that went quiet just before are there too."""
STEPS = 30
"""Frames up to which going onwards is no jump."""


class Travel:
    """Feeds panes. `frame` is what they show, `before` the one before it; `number` is that of
    `frame` in the Timeline, None while the panes follow the newest Frames.

    `window` are the seconds that tables shall be of, None for an interval, `reach` those that
    they are of. `drawn` is how many intervals graphs show, at most as many as the screen has
    columns. `shown` changes a Frame of the Timeline before it is shown.
    """

    def __init__(
        self,
        timeline: Timeline,
        panes: Sequence[Pane],
        shown: Callable[[Frame], Frame] = lambda frame: frame,
    ) -> None:
        self.timeline = timeline
        self.panes = panes
        self.frame: Frame | None = None
        self.before: Frame | None = None
        self.number: int | None = None
        self.window: float | None = None
        self.reach: float | None = None
        self.drawn = 240
        self._newest: tuple[Frame | None, Frame] | None = None
        self._shown = shown
        self._windows = Windows(timeline)
        self._cursor: Cursor | None = None

    def follow(self, frame: Frame) -> None:
        """Show the newest Frame; one that is not later than the last begins anew."""
        self.take(frame)
        self.show_newest()

    def take(self, frame: Frame) -> None:
        """Take in the newest Frame for what is drawn over time; it may never be shown."""
        before = self.frame if self._newest is None else self._newest[1]
        if before is not None and frame.mono <= before.mono:
            before = None
            self._reset()
        self.number = None
        self._cursor = None
        self._windows.keep(frame)
        for pane in self.panes:
            pane.tick(before, frame)
        self._newest = (before, frame)

    @property
    def newest(self) -> Frame | None:
        """The Frame that was taken in last, else the one that is shown."""
        return self.frame if self._newest is None else self._newest[1]

    @property
    def behind(self) -> bool:
        """Whether a Frame was taken in that is not shown."""
        return self._newest is not None

    def show_newest(self) -> None:
        """Show the Frame that was taken in last, compared with the one before it."""
        if self._newest is None:
            return
        (before, frame), self._newest = self._newest, None
        passed = seconds_between(self.frame or before, frame)
        for pane in self.panes:
            window = self._windows.span(frame, pane.name, self.window)
            pane.show(*(window or (before, frame)), passed)
        self.before, self.frame = before, frame
        self._measure()

    @property
    def oldest(self) -> int:
        """The first Frame that is shown: the one before it only tells what had been counted."""
        first = self.timeline.first
        return max(first, min(first + 1, self.timeline.end - 1))

    def go(self, number: int) -> None:
        """Show a Frame of the Timeline, the nearest where there is none of this number.

        Raises LookupError if there is no Frame at all.
        """
        number = max(self.oldest, min(number, self.timeline.end - 1))
        at = self.number
        if at is not None and at < number <= at + STEPS and self._cursor is not None:
            self._onwards(at, number)
        else:
            self._jump(number)
        self.number = number

    def go_to_newest(self) -> None:
        """Show the newest Frame of the Timeline, if there is any, and follow what comes."""
        with suppress(LookupError):
            if len(self.timeline):
                self._jump(max(self.oldest, self.timeline.end - 1))
        self.number = None

    def again(self) -> None:
        """Show the same moment anew: what is shown of it has changed."""
        if self.number is not None:
            self._jump(self.number)

    def show_window(self, seconds: float | None) -> None:
        """Show the same moment with another window."""
        self.window = seconds
        frame = self.frame
        if frame is None:
            return
        for pane in self.panes:
            window = self._windows.span(frame, pane.name, seconds)
            pane.show(*(window or (self.before, frame)))
        self._measure()

    def now(self) -> int:
        """The number of what is shown, in either case; the Timeline holds Frames."""
        if self.number is not None:
            return self.number
        newest = self.timeline.end - 1
        return newest if self.frame is None else self.timeline.number_at(self.frame.mono)

    def _onwards(self, at: int, number: int) -> None:
        """Feed the Frames up to this one."""
        assert self._cursor is not None
        before = self.frame
        for step in range(at + 1, number):
            frame = self._shown(self._cursor.frame(step))
            for pane in self.panes:
                pane.tick(before, frame)
            before = frame
        self._update(before, self._shown(self._cursor.frame(number)), self.window)

    def _jump(self, number: int) -> None:
        """Begin anew with the Frames before this one."""
        with uncollected():
            self._feed(number)

    def _feed(self, number: int) -> None:
        self._reset()
        full = self._back(number, LINGERING, SHOWN_BYTES)
        # The Frame with which the first of them is compared has to be a full one too.
        first = max(self.timeline.first, full - 1)
        start = self._back(first, self.drawn, DRAWN_BYTES)
        before: Frame | None = None
        light = Cursor(self.timeline, light=True)
        cursor = self._cursor = Cursor(self.timeline)
        for step in range(start, number + 1):
            frame = self._shown((light if step < first else cursor).frame(step))
            if step < full:
                for pane in self.panes:
                    pane.tick(before, frame)
            else:
                # With the window: rows of nearly equal rates stand in the order that they had.
                self._update(before, frame, self.window)
            before = frame

    def _back(self, number: int, most: int, most_bytes: int) -> int:
        """The first of the Frames up to this one that are not too many."""
        size = self.timeline.weight(number)
        while number > self.timeline.first and most > 0:
            size += self.timeline.weight(number - 1)
            if size > most_bytes:
                break
            number -= 1
            most -= 1
        return number

    def _reset(self) -> None:
        self.frame = self.before = self._newest = None
        for pane in self.panes:
            pane.reset()

    def _update(self, before: Frame | None, frame: Frame, window: float | None) -> None:
        for pane in self.panes:
            pane.update(before, frame, self._windows.span(frame, pane.name, window))
        self.before, self.frame = before, frame
        self._measure()

    def _measure(self) -> None:
        """How long the window really is: a pane whose probe began later says so itself."""
        lengths = [pane.seconds for pane in self.panes if pane.seconds is not None]
        self.reach = max(lengths, default=None) if self.window is not None else None
        for pane in self.panes:
            pane.window = self.reach
