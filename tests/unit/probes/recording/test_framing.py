# SPDX-License-Identifier: Apache-2.0
"""Records between machines: whole, in any pieces, and never taken when they are damaged."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.core.limits import CodecError
from probes.recording.framing import DELTA, HEADER, KEY, MESSAGE, Decoder, Encoder, message
from tests.unit.probes.recording.test_recording import make_frames


def records() -> tuple[list[Any], list[bytes]]:
    """Frames with a message between, and the record of each."""
    encoder, frames = Encoder(), make_frames(70)
    said = {"id": 1, "ok": False, "why": "nö"}
    items: list[Any] = [*frames[:3], said, *frames[3:]]
    return items, [message(i) if isinstance(i, dict) else encoder.frame(i) for i in items]


@given(st.lists(st.integers(1, 4000), min_size=1, max_size=50))
def test_pieces_of_any_size_give_the_same(sizes: list[int]) -> None:
    items, parts = records()
    data, decoder, got, at = b"".join(parts), Decoder(), [], 0
    for size in [*sizes, len(data)]:
        got += list(decoder.feed(data[at : at + size]))
        at += size
    assert got == items


def test_frames_are_changes_but_for_each_sixtieth() -> None:
    marks = [part[:4] for part in records()[1]]
    assert marks[0] == KEY
    assert marks[3] == MESSAGE
    assert marks.count(KEY) == 2
    assert marks.count(DELTA) == 68


def test_over_a_link_only_the_first_is_whole() -> None:
    encoder, decoder, frames = Encoder(whole=0), Decoder(), make_frames(130)
    parts = [encoder.frame(frame) for frame in frames]
    assert [part[:4] for part in parts] == [KEY] + 129 * [DELTA]
    assert [frame for part in parts for frame in decoder.feed(part)] == frames


@pytest.mark.parametrize("at", [0, 5, 9, 20, -1])
def test_damage_ends_it(at: int) -> None:
    parts = records()[1]
    damaged = bytearray(parts[1])
    damaged[at] ^= 0x55
    decoder = Decoder(most=1 << 20)
    assert len(list(decoder.feed(parts[0]))) == 1
    with pytest.raises(CodecError):
        # More than the damaged length may say it has.
        list(decoder.feed(bytes(damaged) + b"\0" * (1 << 21)))


def test_a_frame_in_between_must_not_be_missing() -> None:
    parts = records()[1]
    decoder = Decoder()
    list(decoder.feed(parts[0]))
    with pytest.raises(CodecError):
        list(decoder.feed(parts[2]))


def record(mark: bytes, value: Any) -> bytes:
    payload = zlib.compress(json.dumps(value).encode())
    return HEADER.pack(mark, len(payload), zlib.crc32(payload)) + payload


@pytest.mark.parametrize(
    "data",
    [
        record(KEY, {"time": 1.0}),
        record(KEY, []),
        record(DELTA, {}),
        record(MESSAGE, [1]),
        record(MESSAGE, "x" * 5000),
        HEADER.pack(KEY, 2000, 0),
        HEADER.pack(b"HTTP", 1, 0),
        b"Welcome to this machine!\n",
    ],
)
def test_what_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        list(Decoder(most=1000).feed(data))
