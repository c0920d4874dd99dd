# SPDX-License-Identifier: Apache-2.0
"""Tables of counters in which each row is one integer, and is decoded when somebody asks for it.

An integer holds a row's 64-bit counters side by side, as its memory does: what a row gained is
one subtraction, and adding it to a process's total is one addition, however many counters it has.
A machine with 16,384 active processes has as many rows to add up, and a screen shows forty.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any, Generic, TypeVar

V = TypeVar("V")
WORD = (1 << 64) - 1
"""A counter, once its lowest bit is the integer's."""


class Decoder(Generic[V]):
    """Decodes rows, and keeps the newest value of each key: unchanged rows are the same object.

    `decode` makes the value of an integer, also of the difference of two; `complete` adds what is
    not in the integer to the value of a key. `bits` has, by name, the lowest bit of counters that
    are asked for one by one.
    """

    __slots__ = ("_complete", "_known", "bits", "decode")

    def __init__(
        self,
        decode: Callable[[int], V],
        complete: Callable[[int, V], V],
        bits: Mapping[str, int],
    ) -> None:
        self.decode, self._complete, self.bits = decode, complete, bits
        self._known: dict[int, tuple[int, V]] = {}

    def value(self, key: int, number: int) -> V:
        """The value of a row."""
        known = self._known.get(key)
        if known is not None and known[0] is number:
            return known[1]
        value = self._complete(key, self.decode(number))
        self._known[key] = number, value
        return value

    def forget(self, kept: Container[int]) -> None:
        """Forget the values of all other keys."""
        self._known = {key: known for key, known in self._known.items() if key in kept}


class Packed(Mapping[int, V]):
    """A mapping of `numbers`, whose values `decoder` makes. Nobody changes the numbers."""

    __slots__ = ("decoder", "numbers")

    def __init__(self, numbers: dict[int, int], decoder: Decoder[V]) -> None:
        self.numbers, self.decoder = numbers, decoder

    def get(self, key: int, default: Any = None) -> Any:
        """The value, or the default."""
        number = self.numbers.get(key)
        return default if number is None else self.decoder.value(key, number)

    def __getitem__(self, key: int) -> V:
        return self.decoder.value(key, self.numbers[key])

    def __contains__(self, key: object) -> bool:
        return key in self.numbers

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def is_like(self, other: object) -> bool:
        """Whether equal numbers of both are equal values."""
        return isinstance(other, Packed) and other.decoder is self.decoder

    def __repr__(self) -> str:
        return f"Packed({dict(self)!r})"
