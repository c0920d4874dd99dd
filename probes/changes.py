# SPDX-License-Identifier: Apache-2.0
"""Which entries of a Sample's mapping are other ones than in an earlier Sample's.

Mappings of a large machine have tens of thousands of entries, of which few change at a time:
to look each up in the other mapping took most of the time of a view.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from operator import is_
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def changed(before: Mapping[K, V], after: Mapping[K, V]) -> list[tuple[K, V | None, V]]:
    """Entries (key, old, new) of `after` that are not the same objects, in its order.

    Old is None for one that is new. They may be equal all the same, as in decoded Frames.
    """
    # Live, `after` is a copy of what `before` was a copy of: the same keys, new ones behind them.
    if len(before) <= len(after) and all(map(is_, before, after)):
        found: list[tuple[K, V | None, V]] = [
            (key, old, new)
            for key, old, new in zip(after, before.values(), after.values(), strict=False)
            if old is not new
        ]
        if len(before) < len(after):
            found += [(key, None, new) for key, new in islice(after.items(), len(before), None)]
        return found
    known = before.get
    return [(key, old, new) for key, new in after.items() if (old := known(key)) is not new]
