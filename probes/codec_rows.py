# SPDX-License-Identifier: Apache-2.0
"""Codecs of what a Frame holds most of, written out: rows by process, and buckets.

They read and write just what `probes.codec` would put together from the types. A busy machine's
Frame has 60,000 rows, and a call for each number of each row would be most of its cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_type_hints

from probes.changes import changed, gone

INT_LIMIT = 1 << 80
"""Integers beyond this are no counters."""


class CodecError(ValueError):
    """The data does not have the shape that it should."""


def checked_list(data: Any) -> list[Any]:
    """The same list; raises CodecError for anything else."""
    if type(data) is not list:
        raise CodecError("not a list")
    return data


def changed_keys(new: Mapping[Any, Any], old: Mapping[Any, Any]) -> list[Any]:
    """Keys that are new, or of another value than before."""
    return [key for key, was, value in changed(old, new) if was is None or was != value]


def says_nothing(encoded: Any) -> bool:
    """Whether an encoded mapping, against an older one, is the same as that."""
    return bool(encoded == [[], []])


def columns_of(data: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """Keys, values and deleted keys of an encoded mapping; raises CodecError."""
    if len(checked_list(data)) not in (2, 3):
        raise CodecError("not a mapping")
    keys, values = checked_list(data[0]), checked_list(data[1])
    if len(keys) != len(values):
        raise CodecError("a key without a value")
    return keys, values, checked_list(data[2]) if len(data) == 3 else []


def is_int(number: Any) -> bool:
    """Whether this is an integer that a counter may have."""
    return type(number) is int and -INT_LIMIT < number < INT_LIMIT


class Buckets:
    """A mapping of integers to integers."""

    def encode(self, new: Any, old: Any) -> Any:
        """Keys as differences, values as differences from the older mapping."""
        before = {} if old is None else old
        keys = list(new) if old is None else changed_keys(new, old)
        keys.sort()
        get = before.get
        columns = [_steps(keys), [new[key] - get(key, 0) for key in keys]]
        deleted = [] if old is None else sorted(gone(old, new))
        return [*columns, _steps(deleted)] if deleted else columns

    def decode(self, data: Any, old: Any) -> Any:
        """The mapping; raises CodecError."""
        keys, values, gone = columns_of(data)
        out: dict[int, int] = {} if old is None else dict(old)
        key, get = 0, out.get
        for step in gone:
            if not is_int(step):
                raise CodecError("not an integer")
            key += step
            out.pop(key, None)
        key = 0
        for step, more in zip(keys, values, strict=True):
            if type(step) is not int or type(more) is not int:
                raise CodecError("not an integer")
            if not (-INT_LIMIT < step < INT_LIMIT and -INT_LIMIT < more < INT_LIMIT):
                raise CodecError("not an integer")
            key += step
            out[key] = get(key, 0) + more
        return out


class Rows:
    """A mapping of pairs of an integer and a text to two counters each.

    `kind` is the counters' NamedTuple, `integer` the place of the integer in the pair.
    """

    def __init__(self, kind: Any, integer: int) -> None:
        self.kind = kind
        self.integer = integer

    def encode(self, new: Any, old: Any) -> Any:
        """Keys against those before them, counters as differences from the older mapping."""
        if old is None:
            keys = sorted(new)
            return [self._keys(keys), [list(new[key]) for key in keys]]
        rows = [row for row in changed(old, new) if row[1] is None or row[1] != row[2]]
        # No two keys are the same: what is behind them is not compared.
        rows.sort()
        values = [
            [value[0], value[1]] if was is None else [value[0] - was[0], value[1] - was[1]]
            for _, was, value in rows
        ]
        deleted = sorted(gone(old, new))
        columns = [self._keys([row[0] for row in rows]), values]
        return [*columns, self._keys(deleted)] if deleted else columns

    def _keys(self, keys: list[Any]) -> list[Any]:
        out: list[Any] = []
        before = 0
        if self.integer == 0:
            for number, text in keys:
                out.append([number - before, text])
                before = number
        else:
            for text, number in keys:
                out.append([text, number - before])
                before = number
        return out

    def decode(self, data: Any, old: Any) -> Any:
        """The mapping; raises CodecError."""
        keys, values, gone = columns_of(data)
        out: dict[Any, Any] = {} if old is None else dict(old)
        for key in self._decoded_keys(gone):
            out.pop(key, None)
        get, kind, new = out.get, self.kind, tuple.__new__
        try:
            for key, (a, b) in zip(self._decoded_keys(keys), values, strict=True):
                if type(a) is not int or type(b) is not int:
                    raise CodecError("not an integer")
                if not (-INT_LIMIT < a < INT_LIMIT and -INT_LIMIT < b < INT_LIMIT):
                    raise CodecError("not an integer")
                was = get(key)
                out[key] = new(kind, (a, b) if was is None else (was[0] + a, was[1] + b))
        except (TypeError, ValueError) as error:
            raise CodecError("not a row") from error
        return out

    def _decoded_keys(self, data: list[Any]) -> list[Any]:
        out: list[Any] = []
        number = 0
        first = self.integer == 0
        for item in data:
            if type(item) is not list or len(item) != 2:
                raise CodecError("not a key")
            step, text = item if first else (item[1], item[0])
            if type(step) is not int or type(text) is not str:
                raise CodecError("not a key")
            if not -INT_LIMIT < step < INT_LIMIT:
                raise CodecError("not an integer")
            number += step
            out.append((number, text) if first else (text, number))
        return out


def _steps(keys: list[int]) -> list[int]:
    """Sorted integers as the differences between neighbours, the first as it is."""
    return [key - before for key, before in zip(keys, [0, *keys], strict=False)]


def _types(kind: Any) -> set[Any]:
    return set(get_type_hints(kind).values())


def written_out(key: tuple[Any, ...] | Any, value: Any) -> Buckets | Rows | None:
    """The codec for a mapping of these types, None where there is none of its own."""
    if key is int and value is int:
        return Buckets()
    fields = getattr(value, "_fields", ())
    kinds = getattr(key, "__args__", ())
    if len(fields) == 2 and set(kinds) == {int, str} and _types(value) == {int}:
        return Rows(value, kinds.index(int))
    return None
