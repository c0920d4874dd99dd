# SPDX-License-Identifier: Apache-2.0
"""Codecs of what a Frame holds most of, written out: rows by process, and buckets.

They read and write just what `probes.recording.codec` would put together from the types. A busy
machine's Frame has 60,000 rows, and a call for each number of each row would be most of its cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

from probes.core.changes import changed, gone
from probes.core.limits import ANY_INT, ANY_SIZE, ANY_TEXT, AtMost, Between, CodecError


def checked_list(data: Any) -> list[Any]:
    """The same list; raises CodecError for anything else."""
    if type(data) is not list:
        raise CodecError("not a list")
    return data


def changed_entries(new: Mapping[Any, Any], old: Mapping[Any, Any]) -> list[Any]:
    """Entries (key, old, new) that are new, or of another value than before."""
    return [entry for entry in changed(old, new) if entry[1] is None or entry[1] != entry[2]]


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


class Plain(NamedTuple):
    """A type without its annotations, and the limits that these or the defaults give it."""

    kind: Any
    between: Between
    most: int


def plain(hint: Any, text: AtMost = ANY_TEXT) -> Plain:
    """What a type of an int, a text, a list or a mapping says about its limits."""
    kind: Any = hint
    notes: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        kind, *rest = get_args(hint)
        notes = tuple(rest)
    between = next((note for note in notes if isinstance(note, Between)), ANY_INT)
    default = text if kind is str else ANY_SIZE
    most = next((note for note in notes if isinstance(note, AtMost)), default)
    return Plain(kind, between, most.size)


class Buckets:
    """A mapping of integers to integers, both within their ranges."""

    def __init__(self, keys: Between = ANY_INT, values: Between = ANY_INT) -> None:
        self.keys, self.values = keys, values

    def encode(self, new: Any, old: Any) -> Any:
        """Keys as differences, values as differences from the older mapping."""
        entries = (
            [(key, 0, value) for key, value in new.items()]
            if old is None
            else [(key, was or 0, value) for key, was, value in changed_entries(new, old)]
        )
        entries.sort()
        columns = [_steps([row[0] for row in entries]), [now - was for _, was, now in entries]]
        deleted = [] if old is None else sorted(gone(old, new))
        return [*columns, _steps(deleted)] if deleted else columns

    def decode(self, data: Any, old: Any) -> Any:
        """The mapping; raises CodecError."""
        keys, values, gone = columns_of(data)
        out: dict[int, int] = {} if old is None else dict(old)
        get, (first, last), (low, high) = out.get, self.keys, self.values
        key = 0
        for step in gone:
            if type(step) is not int:
                raise CodecError("not an integer")
            key += step
            out.pop(key, None)
        key = 0
        for step, more in zip(keys, values, strict=True):
            if type(step) is not int or type(more) is not int:
                raise CodecError("not an integer")
            key += step
            value = get(key, 0) + more
            if not (first <= key <= last and low <= value <= high):
                raise CodecError("a number out of range")
            out[key] = value
        return out


class Rows:
    """A mapping of pairs of an integer and a text to two counters each.

    `kind` is the counters' NamedTuple, `integer` the place of the integer in the pair; `key` is
    its range and `text` the most characters of the text.
    """

    def __init__(
        self, kind: Any, integer: int, key: Between = ANY_INT, text: int = ANY_TEXT.size
    ) -> None:
        self.kind = kind
        self.integer = integer
        self.key, self.text = key, text
        self.a, self.b = [plain(hint).between for hint in _types(kind)]

    def encode(self, new: Any, old: Any) -> Any:
        """Keys against those before them, counters as differences from the older mapping."""
        if old is None:
            keys = sorted(new)
            return [self._keys(keys), [list(new[key]) for key in keys]]
        rows = changed_entries(new, old)
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
        (low_a, high_a), (low_b, high_b) = self.a, self.b
        try:
            for key, (a, b) in zip(self._decoded_keys(keys), values, strict=True):
                if type(a) is not int or type(b) is not int:
                    raise CodecError("not an integer")
                was = get(key)
                if was is not None:
                    a, b = was[0] + a, was[1] + b
                if not (low_a <= a <= high_a and low_b <= b <= high_b):
                    raise CodecError("a number out of range")
                out[key] = new(kind, (a, b))
        except (TypeError, ValueError) as error:
            if isinstance(error, CodecError):
                raise
            raise CodecError("not a row") from error
        return out

    def _decoded_keys(self, data: list[Any]) -> list[Any]:
        out: list[Any] = []
        number = 0
        first, most, (low, high) = self.integer == 0, self.text, self.key
        for item in data:
            if type(item) is not list or len(item) != 2:
                raise CodecError("not a key")
            step, text = item if first else (item[1], item[0])
            if type(step) is not int or type(text) is not str:
                raise CodecError("not a key")
            number += step
            if not low <= number <= high or len(text) > most:
                raise CodecError("a key out of range")
            out.append((number, text) if first else (text, number))
        return out


def _steps(keys: list[int]) -> list[int]:
    """Sorted integers as the differences between neighbours, the first as it is."""
    return [key - before for key, before in zip(keys, [0, *keys], strict=False)]


def _types(kind: Any) -> list[Any]:
    """The types of a NamedTuple's fields, with their annotations."""
    return list(get_type_hints(kind, include_extras=True).values())


def written_out(key: Any, value: Any) -> Buckets | Rows | None:
    """The codec for a mapping of these types, None where there is none of its own."""
    number, counter = plain(key), plain(value)
    if number.kind is int and counter.kind is int:
        return Buckets(number.between, counter.between)
    parts = [plain(part) for part in get_args(key)] if get_origin(key) is tuple else []
    kinds = [part.kind for part in parts]
    fields = getattr(value, "_fields", ())
    if len(fields) == 2 and len(kinds) == 2 and set(kinds) == {int, str}:
        at = kinds.index(int)
        if all(plain(hint).kind is int for hint in _types(value)):
            return Rows(value, at, parts[at].between, parts[1 - at].most)
    return None
