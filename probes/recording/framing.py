# SPDX-License-Identifier: Apache-2.0
"""Frames as records of bytes, in a recording and between machines.

A record is a mark ("\\xf5PTK" before a whole Frame, "\\xf5PTD" before the changes since the Frame
before, "\\xf5PTM" before a message, which only links have), the length and the CRC-32 of its
payload (little-endian, 32 bits each) and the payload: JSON compressed by zlib, see
`probes.recording.codec`. The CRC of changes goes on from that of the Frame before, so that they are
never applied to another one. In recordings every 60th Frame is whole.

Writer and reader keep to the same sizes (see `probes.core.limits`): a record that a reader would
refuse is never written.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from probes.core.errors import ProbeError
from probes.core.frame import Frame
from probes.core.limits import MOST_PACKED, MOST_TEXT, MOST_WEIGHT, CodecError
from probes.recording import bounded_json
from probes.recording.codec import FrameCodec

KEY, DELTA, MESSAGE = b"\xf5PTK", b"\xf5PTD", b"\xf5PTM"
KEY_EVERY = 60
HEADER = struct.Struct("<4sII")


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
        """The next Frame's record; without its oldest events where it would be too large.

        Raises ProbeError where it is too large without any.
        """
        key = self.frames % self._whole == 0 if self._whole else self._last is None
        self._last, payload = self._payload(frame, None if key else self._last)
        self._checksum = zlib.crc32(payload, 0 if key else self._checksum)
        self.frames += 1
        return HEADER.pack(KEY if key else DELTA, len(payload), self._checksum) + payload

    def _payload(self, frame: Frame, last: Frame | None) -> tuple[Frame, bytes]:
        """The Frame as it is written, and its payload."""
        while True:
            text = bounded_json.encode(self._codec.encode(frame, last))
            if len(text) <= bounded_json.HARMLESS or _fits(text):
                payload = bounded_json.deflate(text)
                if len(payload) <= MOST_PACKED:
                    return frame, payload
            samples = {name: s.with_fewer_events() for name, s in frame.samples.items()}
            if all(samples[name] is sample for name, sample in frame.samples.items()):
                why = f"an interval's tables take more than the {MOST_TEXT >> 20} MiB of a record"
                raise ProbeError(why, "filter what is counted, or switch probes off")
            frame = replace(frame, samples=samples)


def _fits(text: bytes) -> bool:
    return len(text) <= MOST_TEXT and bounded_json.weight(text) <= MOST_WEIGHT


def message(value: Mapping[str, Any]) -> bytes:
    """The record of a message."""
    payload = bounded_json.deflate(bounded_json.encode(value))
    return HEADER.pack(MESSAGE, len(payload), zlib.crc32(payload)) + payload


class Decoder:
    """Takes bytes as they come and gives the Frames and messages that are whole.

    What comes from another machine is not trusted: anything that is not as `Encoder` and
    `message` make it raises CodecError, after which nothing more can be decoded.
    """

    def __init__(self, most: int = MOST_TEXT) -> None:
        """`most` is how many bytes a payload may have after decompression."""
        self._most = most
        self._codec = FrameCodec()
        self._buffer = bytearray()
        self._last: Frame | None = None
        self._checksum = 0

    def feed(self, data: bytes) -> Iterator[Frame | dict[str, Any]]:
        """What is complete with these bytes; what is not asked for comes with the next call."""
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            mark, length, checksum = HEADER.unpack_from(self._buffer)
            if mark not in (KEY, DELTA, MESSAGE):
                raise CodecError("not a stream of frames")
            if length > min(self._most, MOST_PACKED):
                raise CodecError(f"a record of {length / 1e6:.0f} MB, more than any may have")
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
        text = bounded_json.inflate(payload, self._most)
        value = bounded_json.decode(text)
        if mark == MESSAGE:
            if type(value) is not dict:
                raise CodecError("not a message")
            return value
        if mark == DELTA and self._last is None:
            raise CodecError("changes without a frame")
        frame = self._codec.decode(value, self._last if mark == DELTA else None, len(text))
        self._last, self._checksum = frame, checksum
        return frame
