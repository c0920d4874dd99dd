# SPDX-License-Identifier: Apache-2.0
"""JSON that nobody vouches for, in a bounded amount of memory.

`inflate` stops at a size and at a ratio, `decode` refuses a text whose values would take too much
memory: a list of empty lists takes 20 times the bytes of its text, nested lists 50 times.
"""

from __future__ import annotations

import json
import re
import zlib
from typing import Any, NoReturn

import msgspec

from probes.core.limits import MOST_TEXT, MOST_WEIGHT, CodecError
from probes.core.safe_text import escaped

HARMLESS = MOST_WEIGHT // 64
"""Bytes of JSON whose values fit into MOST_WEIGHT, whatever they are."""
LEVEL = 6
"""Of zlib: the higher ones take twice as long for a few bytes."""
MOST_TIMES = 100
"""How many times the size of its payload a record may have. Those of real machines are packed 3 to
20 times, whole ones of a large and quiet machine up to 50 times."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def encode(value: Any) -> bytes:
    """The JSON of a value, without spaces."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        # A text with half a surrogate pair, which UTF-8 does not have.
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


def deflate(text: bytes) -> bytes:
    """The compressed text, as `inflate` accepts it: what repeats itself too much stays as it is."""
    payload = zlib.compress(text, LEVEL)
    return payload if len(text) <= MOST_TIMES * len(payload) else zlib.compress(text, 0)


def inflate(payload: bytes, most: int = MOST_TEXT) -> bytes:
    """The decompressed payload; raises CodecError where it is damaged or larger than `most`.

    So it does where it is more than MOST_TIMES as large as the payload: to read a few bytes of
    blanks that are packed a thousandfold would cost much more than the file or the link held.
    """
    limit = min(most, MOST_TIMES * len(payload))
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(payload, limit)
    except zlib.error as error:
        raise CodecError(str(error)) from error
    if not inflater.eof:
        if len(text) < limit:
            raise CodecError("a compressed record without an end")
        if limit < most:
            raise CodecError(f"a record that is packed more than {MOST_TIMES} times")
        raise CodecError(f"a record of more than {most / 1e6:.0f} MB")
    return text


def decode(text: bytes) -> Any:
    """The value of a JSON text, whose texts are all valid UTF-8; raises CodecError."""
    if len(text) > HARMLESS and weight(text) > MOST_WEIGHT:
        raise CodecError(f"a record whose values take more than {MOST_WEIGHT >> 20} MB")
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ValueError) and _SURROGATE.search(text):
            return _decode_surrogates(text)
        raise CodecError(str(error)) from error


def weight(text: bytes) -> int:
    """About how many bytes of memory the values of a JSON text take."""
    commas, lists, objects = text.count(b","), text.count(b"["), text.count(b"{")
    return len(text) + 64 * commas + 96 * lists + 256 * objects


def _decode_surrogates(text: bytes) -> Any:
    """As `decode`, for recordings that have bytes that are no UTF-8 as half surrogate pairs."""
    try:
        value = json.loads(text.decode("utf-8"), parse_constant=_refuse)
        return _escaped(value)
    except (ValueError, RecursionError) as error:
        raise CodecError(str(error)) from error


def _refuse(word: str) -> NoReturn:
    raise CodecError(f"{word} is not a number")


def _escaped(value: Any) -> Any:
    """The same value with backslash escapes in the place of surrogates."""
    if type(value) is str:
        return escaped(value)
    if type(value) is list:
        return [_escaped(item) for item in value]
    if type(value) is dict:
        return {escaped(key): _escaped(item) for key, item in value.items()}
    return value
