# SPDX-License-Identifier: Apache-2.0
"""Chooses the Frames that the panes show: the newest, or any moment of a Timeline.

Panes accumulate graphs over time. A jump therefore resets them and feeds them the Frames before the
moment, limited by the graphs' width and by time; a step forward feeds one Frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from probes.core.delta import seconds_between
from probes.core.frame import Frame
from probes.recording.timeline import Cursor, Timeline
from probes.report.windows import Windows
from tui.panes.base import Pane
from tui.shared.gc_pause import gc_paused

DRAWN_BYTES, SHOWN_BYTES = 1 << 19, 1 << 15
"""Most bytes of Frames that a jump decodes, for graphs and for tables: about 0.1 s each."""
LINGERING = 4
"""Frames before the moment that a jump feeds to tables, so that recently idle rows appear too."""
STEPS = 30
"""A move of at most this many Frames forward is not a jump."""


class TimelinePlayer:
    """Feeds Frames to panes.

    `frame` is the shown Frame and `before` its predecessor. `number` is the index of `frame` in the
    Timeline, None while the panes follow the newest Frames. `window` is the requested window of the
    tables in seconds, None for one interval; `reach` is the window that the Frames cover. `drawn`
    is the number of intervals that graphs show, at most the screen's columns. `shown` transforms a
    Frame of the Timeline before it is shown.
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
        """Show the newest Frame; reset the panes if it is not later than the last Frame."""
        self.take(frame)
        self.show_newest()

    def take(self, frame: Frame) -> None:
        """Feed the newest Frame to the graphs; `show_newest` shows it later or never."""
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
        """The Frame that was taken last, else the shown Frame; None before the first."""
        return self.frame if self._newest is None else self._newest[1]

    @property
    def behind(self) -> bool:
        """True if a taken Frame is not shown yet."""
        return self._newest is not None

    def show_newest(self) -> None:
        """Show the Frame that was taken last, compared with its predecessor."""
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
        """The first Frame that can be shown; its predecessor only serves for the difference."""
        first = self.timeline.first
        return max(first, min(first + 1, self.timeline.end - 1))

    def go(self, number: int) -> None:
        """Show the Frame with this index in the Timeline, or the nearest that exists.

        Raises LookupError if the Timeline is empty.
        """
        number = max(self.oldest, min(number, self.timeline.end - 1))
        at = self.number
        if at is not None and at < number <= at + STEPS and self._cursor is not None:
            self._onwards(at, number)
        else:
            self._jump(number)
        self.number = number

    def go_to_newest(self) -> None:
        """Show the newest Frame of the Timeline, if any, and follow new Frames."""
        with suppress(LookupError):
            if len(self.timeline):
                self._jump(max(self.oldest, self.timeline.end - 1))
        self.number = None

    def again(self) -> None:
        """Rebuild the shown moment after the choice of shown data has changed."""
        if self.number is not None:
            self._jump(self.number)

    def show_window(self, seconds: float | None) -> None:
        """Show the same moment with another window, in seconds; None is one interval."""
        self.window = seconds
        frame = self.frame
        if frame is None:
            return
        for pane in self.panes:
            window = self._windows.span(frame, pane.name, seconds)
            pane.show(*(window or (self.before, frame)))
        self._measure()

    def now(self) -> int:
        """The index of the shown Frame; the Timeline must hold at least one Frame."""
        if self.number is not None:
            return self.number
        newest = self.timeline.end - 1
        return newest if self.frame is None else self.timeline.number_at(self.frame.mono)

    def _onwards(self, at: int, number: int) -> None:
        """Feed the Frames from `at` to `number`."""
        assert self._cursor is not None
        before = self.frame
        for step in range(at + 1, number):
            frame = self._shown(self._cursor.frame(step))
            for pane in self.panes:
                pane.tick(before, frame)
            before = frame
        self._update(before, self._shown(self._cursor.frame(number)), self.window)

    def _jump(self, number: int) -> None:
        """Reset the panes and feed them the Frames before and at `number`."""
        with gc_paused():
            self._feed(number)

    def _feed(self, number: int) -> None:
        self._reset()
        full = self._back(number, LINGERING, SHOWN_BYTES)
        # The Frame before the first full one is the base of its difference, so it is decoded fully
        # too.
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
                # Pass the window as well: it determines the order of rows with nearly equal rates.
                self._update(before, frame, self.window)
            before = frame

    def _back(self, number: int, most: int, most_bytes: int) -> int:
        """The first Frame before `number` within `most` Frames and `most_bytes` bytes."""
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
        """Set `reach` to the longest window of a pane; a pane whose probe started later shows its
        own."""
        lengths = [pane.seconds for pane in self.panes if pane.seconds is not None]
        self.reach = max(lengths, default=None) if self.window is not None else None
        for pane in self.panes:
            pane.window = self.reach
