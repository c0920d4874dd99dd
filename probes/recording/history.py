# SPDX-License-Identifier: Apache-2.0
"""The last minutes in memory: Frames as a recording has them, in a bounded number of bytes.

A chunk begins with a whole Frame, the others are the changes since the Frame before (see
`probes.recording.codec`), compressed. Whole chunks are forgotten. What only tables are made of lies
apart: graphs are drawn anew of many Frames, and most of a Frame are its tables. One thread may add
while another reads: only the lists are shared, encoding and decoding happen outside the lock.
"""

from __future__ import annotations

import threading
import zlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from probes.core.frame import Frame
from probes.recording import bounded_json
from probes.recording.codec import FrameCodec
from probes.recording.timeline import Parsed, Timeline

SECONDS = 600.0
MOST_BYTES = 64 << 20
CHUNK = 30
"""Frames from one whole one to the next: a jump decodes about half as many."""
OVERHEAD, CHUNK_OVERHEAD = 160, 700
"""Bytes that a Frame takes beside its payloads (the objects, their places in lists, its time),
and that a chunk takes by itself."""


@dataclass(slots=True)
class _Chunk:
    """Frames from number `first` on; the first of them is whole."""

    first: int
    light: list[bytes] = field(default_factory=list)
    heavy: list[bytes] = field(default_factory=list)
    monos: list[float] = field(default_factory=list)
    size: int = CHUNK_OVERHEAD


class History(Timeline):
    """The Frames of the last `seconds`, or as many as fit into `most_bytes`.

    `size` is how many bytes they take. `short` says that Frames were forgotten for want of
    room before their time.
    """

    def __init__(self, seconds: float = SECONDS, most_bytes: int = MOST_BYTES) -> None:
        self.seconds = seconds
        self.most_bytes = most_bytes
        self.size = 0
        self.short = False
        self._lock = threading.Lock()
        self._chunks: deque[_Chunk] = deque()
        self._codec: FrameCodec | None = None
        self._last: Frame | None = None
        self._next = 0

    def add(self, frame: Frame) -> None:
        """Keep a Frame; one that is not later than the newest begins a new history."""
        if self._codec is None:
            self._codec = FrameCodec()
        last = self._last
        if last is not None and frame.mono <= last.mono:
            self.clear()
            last = None
        chunk = self._chunks[-1] if self._chunks else None
        full = chunk is None or len(chunk.light) >= CHUNK or chunk.size > self.most_bytes // 8
        value = self._codec.encode(frame, None if full else last)
        parts = _take_out(value, self._codec.heavy)
        heavy, light = _packed(parts), _packed(value)
        size = len(heavy) + len(light) + OVERHEAD
        with self._lock:
            if chunk is None or full:
                chunk = _Chunk(self._next)
                self._chunks.append(chunk)
                self.size += chunk.size
            chunk.light.append(light)
            chunk.heavy.append(heavy)
            chunk.monos.append(frame.mono)
            chunk.size += size
            self.size += size
            self._next += 1
            self._forget(frame.mono)
        self._last = frame

    def _forget(self, now: float) -> None:
        """Drop the chunks that nobody can ask for any more, and what is too much."""
        while len(self._chunks) > 1:
            # The Frame before the next chunk is the oldest that the span needs.
            old = self._chunks[1].monos[0] <= now - self.seconds
            if not old and self.size <= self.most_bytes:
                return
            self.short = not old
            self.size -= self._chunks.popleft().size

    def clear(self) -> None:
        """Forget everything; numbers go on."""
        with self._lock:
            self._chunks.clear()
            self.size, self.short = 0, False
        self._last = None

    @property
    def first(self) -> int:
        """The number of the oldest Frame."""
        with self._lock:
            return self._chunks[0].first if self._chunks else self._next

    @property
    def end(self) -> int:
        """The number after that of the newest Frame."""
        return self._next

    @property
    def span(self) -> float:
        """Seconds from the oldest Frame to the newest."""
        with self._lock:
            if not self._chunks:
                return 0.0
            return self._chunks[-1].monos[-1] - self._chunks[0].monos[0]

    def _chunk(self, number: int) -> _Chunk:
        """The chunk that holds a Frame; the lock is held."""
        for chunk in reversed(self._chunks):
            if chunk.first <= number:
                if number - chunk.first < len(chunk.light):
                    return chunk
                break
        raise LookupError(f"no Frame {number}")

    def mono(self, number: int) -> float:
        """A Frame's monotonic seconds."""
        with self._lock:
            chunk = self._chunk(number)
            return chunk.monos[number - chunk.first]

    def key(self, number: int) -> int:
        """The whole Frame that begins the chunk."""
        with self._lock:
            return self._chunk(number).first

    def weight(self, number: int) -> int:
        """Bytes of what graphs need."""
        with self._lock:
            chunk = self._chunk(number)
            return len(chunk.light[number - chunk.first])

    def value(self, number: int, light: bool = False) -> Parsed:
        """The payloads' JSON."""
        with self._lock:
            chunk = self._chunk(number)
            at = number - chunk.first
            first, second = chunk.light[at], chunk.heavy[at]
        text = zlib.decompress(first)
        value, size = bounded_json.decode(text), len(text)
        if not light:
            text = zlib.decompress(second)
            _put_back(value, bounded_json.decode(text))
            size += len(text)
        return Parsed(value, size)


def _packed(value: Any) -> bytes:
    return zlib.compress(bounded_json.encode(value), 1)


def _take_out(value: Any, heavy: Mapping[str, frozenset[str]]) -> list[Any]:
    """Takes fields of Samples out of an encoded Frame; returns what `_put_back` needs."""
    samples = value["samples"][1] if "samples" in value else ()
    return [
        {name: fields.pop(name) for name in heavy[tag] & fields.keys()} for tag, fields in samples
    ]


def _put_back(value: Any, parts: list[Any]) -> None:
    """Puts the fields back that were taken out."""
    for (_, sample), part in zip(value["samples"][1] if parts else (), parts, strict=True):
        sample.update(part)
