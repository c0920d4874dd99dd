# SPDX-License-Identifier: Apache-2.0
"""Frames by number, of any moment: what the history in memory and a recording have in common.

Both keep most Frames as changes since the one before. A cursor decodes one step where it goes
on from where it was, else from the whole Frame before: so going forward is cheap, and so is
having two cursors where two places are followed (a moment, and where its window begins).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from probes.codec import CodecError, FrameCodec
from probes.samples import Frame

HEAVY = frozenset({"matrix", "errnos", "processes", "texts"})
"""Fields of Samples that only tables are made of: what is drawn over time does without."""


class Timeline(ABC):
    """Frames `first` to `end` - 1, by number, in the order of time.

    Numbers stay what they are when Frames come or go at the ends. `damage` is None or one
    sentence about what could not be read.
    """

    damage: str | None = None

    @property
    @abstractmethod
    def first(self) -> int:
        """The number of the oldest Frame."""

    @property
    @abstractmethod
    def end(self) -> int:
        """The number after that of the newest Frame."""

    @abstractmethod
    def mono(self, number: int) -> float:
        """A Frame's monotonic seconds; raises LookupError for one that is not there."""

    @abstractmethod
    def key(self, number: int) -> int:
        """The number of the whole Frame from which this one is decoded."""

    @abstractmethod
    def weight(self, number: int) -> int:
        """How much there is to decode of a Frame, in bytes."""

    @abstractmethod
    def value(self, number: int) -> Any:
        """What `FrameCodec.decode` takes; raises LookupError, or ValueError where it is damaged."""

    def __len__(self) -> int:
        return self.end - self.first

    def number_at(self, mono: float) -> int:
        """The newest Frame that is not later than `mono`, else the oldest."""
        low, high = self.first, self.end
        while high - low > 1:
            middle = (low + high) // 2
            if self.mono(middle) <= mono:
                low = middle
            else:
                high = middle
        return low

    def last(self, seconds: float, until: int | None = None) -> list[Frame]:
        """The Frames of the last `seconds`, up to Frame `until` or the newest one."""
        return list(self.between(seconds, until))

    def between(self, seconds: float, until: int | None = None) -> Iterator[Frame]:
        """As `last`, one by one: a few Frames are in memory at a time."""
        newest = self.end - 1 if until is None else until
        if newest < self.first:
            return
        oldest = self.number_at(self.mono(newest) - seconds)
        cursor = Cursor(self)
        for number in range(oldest, newest + 1):
            yield cursor.frame(number)


class Cursor:
    """Decodes a Timeline's Frames; with `skip`, without these fields of Samples."""

    def __init__(self, timeline: Timeline, skip: frozenset[str] = frozenset()) -> None:
        self._timeline = timeline
        self._codec = FrameCodec(skip)
        self._at: int | None = None
        self._frame: Frame | None = None

    def frame(self, number: int) -> Frame:
        """A Frame by its number; what cannot be read shows the Frame before it.

        Raises LookupError where there is none.
        """
        timeline = self._timeline
        if not timeline.first <= number < timeline.end:
            raise LookupError(f"no Frame {number}")
        start = timeline.key(number)
        if self._at is not None and self._frame is not None and start <= self._at <= number:
            start = self._at + 1
        else:
            self._frame = None
        for at in range(start, number + 1):
            self._step(at)
        self._at = number
        if self._frame is None:
            raise LookupError(f"Frame {number} cannot be read")
        return self._frame

    def _step(self, number: int) -> None:
        timeline = self._timeline
        whole = timeline.key(number) == number
        try:
            value = timeline.value(number)
            self._frame = self._codec.decode(value, None if whole else self._frame)
        except (CodecError, ValueError, RecursionError):
            timeline.damage = timeline.damage or f"frame {number + 1} could not be read"
