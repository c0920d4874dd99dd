# SPDX-License-Identifier: Apache-2.0
"""Copies of a mapping that know in which entries they differ from the copy before.

A busy machine has tens of thousands of rows, of which few change between two polls. Whoever
compares two Samples would else look at all of them, several times for each Frame.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Copy(dict[K, V]):
    """A copy that nobody changes. `keys_set` are those set since the copy before, None: any."""

    __slots__ = ("keys_set", "maker", "number")

    keys_set: list[K] | None
    maker: object
    number: int


class Copies(Generic[K, V]):
    """Makes copies of one mapping, each of which knows what changed since the one before."""

    def __init__(self) -> None:
        self._set: list[K] | None = None
        self._newest: Copy[K, V] | None = None
        self._number = 0

    def set(self, keys: Iterable[K]) -> None:
        """These entries were set, or set again, since the last copy."""
        if self._set is not None:
            self._set += keys
        if self._set is None or self._set:
            self._newest = None

    def replaced(self) -> None:
        """The mapping is another one, or has lost entries, since the last copy."""
        self._set = self._newest = None

    def of(self, mapping: Mapping[K, V]) -> Copy[K, V]:
        """A copy; the same as the last one where nothing was set since."""
        if self._newest is None:
            made = self._newest = Copy(mapping)
            self._number += 1
            made.maker, made.number = self, self._number
            made.keys_set = None if self._set is None else list(dict.fromkeys(self._set))
            self._set = []
        return self._newest


def keys_set_between(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> list[Any] | None:
    """The keys whose values differ, where that is known; none of `before` is missing then."""
    if type(after) is not Copy or type(before) is not Copy or after.maker is not before.maker:
        return None
    return after.keys_set if after.number == before.number + 1 else None
