# SPDX-License-Identifier: Apache-2.0
"""Frames as records of bytes, in a recording and between machines.

A record is a mark ("\\xf5PTK" before a whole Frame, "\\xf5PTD" before the changes since the Frame
before, "\\xf5PTM" before a message, which only links have), the length and the CRC-32 of its
payload (little-endian, 32 bits each) and the payload: JSON compressed by zlib, see
`probes.codec`. The CRC of changes goes on from that of the Frame before, so that they are never
applied to another one. In recordings every 60th Frame is whole.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from probes.codec import FrameCodec
from probes.codec_rows import CodecError
from probes.samples import Frame
from probes.timeline import LONGEST

KEY, DELTA, MESSAGE = b"\xf5PTK", b"\xf5PTD", b"\xf5PTM"
KEY_EVERY = 60
HEADER = struct.Struct("<4sII")
MAX_RECORD = 1 << 28
"""Bytes of JSON in one record: above what 20,000 program executions can fill."""


class Encoder:
    """Makes records of Frames, each against the one before.

    `whole` is from one whole Frame to the next; with 0 only the first is one: who reads from the
    beginning on, over a link, needs no other, and it takes ten times as many bytes.
    """

    def __init__(self, whole: int = KEY_EVERY) -> None:
        self.frames = 0
        self._whole = whole
        self._codec = FrameCodec()
        self._last: Frame | None = None
        self._checksum = 0

    def frame(self, frame: Frame) -> bytes:
        """The next Frame's record."""
        key = self.frames % self._whole == 0 if self._whole else self._last is None
        payload = _packed(self._codec.encode(frame, None if key else self._last))
        self._checksum = zlib.crc32(payload, 0 if key else self._checksum)
        self._last = frame
        self.frames += 1
        return HEADER.pack(KEY if key else DELTA, len(payload), self._checksum) + payload


def message(value: Mapping[str, Any]) -> bytes:
    """The record of a message."""
    payload = _packed(value)
    return HEADER.pack(MESSAGE, len(payload), zlib.crc32(payload)) + payload


def _packed(value: Any) -> bytes:
    return zlib.compress(
        json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii"), 6
    )


class Decoder:
    """Takes bytes as they come and gives the Frames and messages that are whole.

    What comes from another machine is not trusted: anything that is not as `Encoder` and
    `message` make it raises CodecError, after which nothing more can be decoded.
    """

    def __init__(self, most: int = 1 << 26) -> None:
        """`most` is how many bytes of a payload are taken before and after decompression."""
        self._most = most
        self._codec = FrameCodec()
        self._buffer = bytearray()
        self._last: Frame | None = None
        self._checksum = 0

    def feed(self, data: bytes) -> Iterator[Frame | dict[str, Any]]:
        """What is complete with these bytes; iterate to the end before the next call."""
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            mark, length, checksum = HEADER.unpack_from(self._buffer)
            if mark not in (KEY, DELTA, MESSAGE) or length > self._most:
                raise CodecError("not a stream of frames")
            end = HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[HEADER.size : end])
            del self._buffer[:end]
            yield self._decoded(mark, payload, checksum)

    def _decoded(self, mark: bytes, payload: bytes, checksum: int) -> Frame | dict[str, Any]:
        seed = self._checksum if mark == DELTA else 0
        if zlib.crc32(payload, seed) != checksum:
            raise CodecError("damaged on its way")
        try:
            value = parse(payload, self._most)
        except (ValueError, RecursionError) as error:
            raise CodecError(str(error)) from error
        if mark == MESSAGE:
            if type(value) is not dict:
                raise CodecError("not a message")
            return value
        if mark == DELTA and self._last is None:
            raise CodecError("changes without a frame")
        frame = self._codec.decode(value, self._last if mark == DELTA else None)
        if not 0 < frame.interval <= LONGEST:
            raise CodecError("not an interval")
        self._last, self._checksum = frame, checksum
        return frame


def parse(payload: bytes, most: int = MAX_RECORD) -> Any:
    """The JSON of a payload; raises ValueError (for damage of any kind)."""
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(payload, most)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not inflate.eof:
        raise ValueError("longer than any record")
    return json.loads(text)
