# SPDX-License-Identifier: Apache-2.0
"""Codecs of single values: integers, numbers, texts, booleans and words of a list."""

from __future__ import annotations

from typing import Any

from probes.core.limits import ANY_FLOAT, ANY_INT, ANY_TEXT, Between, CodecError
from probes.recording.codec_rows import plain


class IntCodec:
    """An integer within a range, as the difference from the older one."""

    def __init__(self, between: Between = ANY_INT) -> None:
        self.low, self.high = between

    def encode(self, new: Any, old: Any) -> Any:
        """The value, or the difference from the older one."""
        return new if old is None else new - old

    def decode(self, data: Any, old: Any) -> Any:
        """The checked value; raises CodecError."""
        if type(data) is not int:
            raise CodecError("not an integer")
        value = data if old is None else old + data
        if not self.low <= value <= self.high:
            raise CodecError("a number out of range")
        return value


class TextCodec:
    """A string of at most so many characters."""

    def __init__(self, most: int = ANY_TEXT.size) -> None:
        self.most = most

    def encode(self, new: Any, old: Any) -> Any:
        """The value, or the difference from the older one."""
        return new

    def decode(self, data: Any, old: Any) -> Any:
        """The checked value; raises CodecError."""
        if type(data) is not str:
            raise CodecError("not a text")
        if len(data) > self.most:
            raise CodecError(f"a text of more than {self.most} characters")
        return data


class LiteralCodec:
    """A boolean, or one of a few literals."""

    def __init__(self, kind: type, allowed: tuple[Any, ...] = ()) -> None:
        self.kind = kind
        self.allowed = allowed

    def encode(self, new: Any, old: Any) -> Any:
        """The value, or the difference from the older one."""
        return new

    def decode(self, data: Any, old: Any) -> Any:
        """The checked value; raises CodecError."""
        if type(data) is not self.kind or (self.allowed and data not in self.allowed):
            raise CodecError(f"not a {self.kind.__name__}")
        return data


class FloatCodec:
    """A number within a range."""

    def __init__(self, between: Between = ANY_FLOAT) -> None:
        self.low, self.high = between

    def encode(self, new: Any, old: Any) -> Any:
        """The value, or the difference from the older one."""
        return new

    def decode(self, data: Any, old: Any) -> Any:
        """The checked value; raises CodecError."""
        if type(data) not in (int, float):
            raise CodecError("not a number")
        if not self.low <= data <= self.high:
            raise CodecError("a number out of range")
        return data


def scalar_codec(hint: Any) -> IntCodec | FloatCodec | TextCodec | LiteralCodec | None:
    """The codec of a number, a text or a boolean, with the limits that its type names."""
    kind, between, most = plain(hint)
    if kind is int:
        return IntCodec(between)
    if kind is float:
        return FloatCodec(ANY_FLOAT if between is ANY_INT else between)
    if kind is str:
        return TextCodec(most)
    return LiteralCodec(bool) if kind is bool else None
