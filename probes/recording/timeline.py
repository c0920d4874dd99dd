# SPDX-License-Identifier: Apache-2.0
"""Frames by number, of any moment: what the history in memory and a recording have in common.

Both keep most Frames as changes since the one before. A cursor decodes one step where it goes
on from where it was, else from the whole Frame before: so going forward is cheap, and so is
having two cursors where two places are followed (a moment, and where its window begins).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

from probes.core.frame import Frame
from probes.core.limits import CodecError
from probes.recording.codec import FrameCodec
from probes.recording.state_size import copied

MOST_ROWS, MOST_ROWS_TIMES = 20_000_000, 64
"""How many rows of tables are copied on the way to a Frame: so many, and so many for each byte of
the changes. Sixty changes of the largest machine's Frame are 4 million."""


class Parsed(NamedTuple):
    """A record's JSON value, and how many bytes of JSON it was."""

    value: Any
    size: int


class Timeline(ABC):
    """Frames `first` to `end` - 1, by number, in the order of time.

    Numbers stay what they are when Frames come or go at the ends. `unreadable` is the number
    of a Frame that a reader could not decode, None if there was none.
    """

    unreadable: int | None = None

    @property
    def damage(self) -> str | None:
        """One sentence about what could not be read; None if there is nothing to say."""
        return None

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
    def value(self, number: int, light: bool = False) -> Parsed:
        """What `FrameCodec.decode` takes; if it is to be `light`, the heavy fields of
        Samples (see `probes.core.schema`) may be missing.

        Raises LookupError, or CodecError where it is damaged.
        """

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
    """Decodes a Timeline's Frames; a `light` one without the heavy fields of Samples."""

    def __init__(self, timeline: Timeline, light: bool = False) -> None:
        self._timeline = timeline
        self._light = light
        self._codec = FrameCodec(light)
        self._at = -1
        self._rows = MOST_ROWS
        self._base: Frame | None = None
        self._shown: Frame | None = None

    def frame(self, number: int) -> Frame:
        """A Frame by its number; for one that cannot be decoded the one before it that can.

        Raises LookupError where there is none.
        """
        if not self._timeline.first <= number < self._timeline.end:
            raise LookupError(f"no Frame {number}")
        at = number
        while at >= self._timeline.first:
            start = self._timeline.key(at)
            self._walk(start, at)
            if self._shown is not None:
                return self._shown
            at = start - 1
        raise LookupError(f"neither Frame {number} nor one before it can be read")

    def _walk(self, start: int, number: int) -> None:
        """To a Frame from the whole one before it, or from where the last walk ended."""
        if self._shown is not None and start <= self._at <= number:
            start = self._at + 1
        else:
            self._base = self._shown = None
        self._rows = MOST_ROWS
        for at in range(start, number + 1):
            self._step(at)
        self._at = number

    def _step(self, number: int) -> None:
        timeline = self._timeline
        whole = timeline.key(number) == number
        if self._base is None and not whole:
            return
        try:
            value, size = timeline.value(number, self._light)
            before = None if whole else self._base
            frame = self._codec.decode(value, before, size)
            if before is not None:
                self._rows += MOST_ROWS_TIMES * timeline.weight(number) - copied(frame, before)
            if self._rows < 0:
                raise CodecError("changes that copy too many rows")
            self._base = self._shown = frame
        except CodecError:
            self._base = None
            timeline.unreadable = number
