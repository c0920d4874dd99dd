# SPDX-License-Identifier: Apache-2.0
"""Rows of a table that are made when somebody looks at them, the first in order first.

A busy machine has thousands of active processes, and a screen shows forty of them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, overload

R = TypeVar("R")
Rank = tuple[float, ...]
"""What rows are sorted by, rising; its last number tells them apart: the process id."""
FEW = 8
"""To sort all is not slower than to find the first, where these are this part of all."""


class Ranked(Sequence[R], Generic[R]):
    """Rows in the order of their ranks; `make` makes a row of the process with this id."""

    def __init__(self, ranks: list[Rank], make: Callable[[int], R]) -> None:
        self._ranks = ranks
        self._make = make
        self._sorted = False
        self._rows: dict[int, R] = {}

    def __len__(self) -> int:
        return len(self._ranks)

    @overload
    def __getitem__(self, index: int) -> R: ...

    @overload
    def __getitem__(self, index: slice) -> list[R]: ...

    def __getitem__(self, index: int | slice) -> R | list[R]:
        if isinstance(index, slice):
            ranks = self._first(index.stop) if index.start is None and index.step is None else None
            ranks = self._all()[index] if ranks is None else ranks
            return [self.row(int(rank[-1])) for rank in ranks]
        return self.row(int(self._all()[index][-1]))

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Ranked({list(self)!r})"

    def ids(self) -> list[int]:
        """The ids of all processes, in no order."""
        return [int(rank[-1]) for rank in self._ranks]

    def row(self, pid: int) -> R:
        """The row of a process that has one."""
        row = self._rows.get(pid)
        if row is None:
            row = self._rows[pid] = self._make(pid)
        return row

    def _all(self) -> list[Rank]:
        if not self._sorted:
            self._ranks.sort()
            self._sorted = True
        return self._ranks

    def _first(self, many: int | None) -> list[Rank] | None:
        """The first of the ranks without sorting all, None where that is no use."""
        if self._sorted or many is None or not 0 <= many < len(self._ranks) // FEW:
            return None
        return heapq.nsmallest(many, self._ranks)
