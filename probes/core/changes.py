# SPDX-License-Identifier: Apache-2.0
"""Which entries of a Sample's mapping are other ones than in an earlier Sample's.

Mappings of a large machine have tens of thousands of entries, of which few change at a time:
to look each up in the other mapping took most of the time of a view.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from operator import is_
from typing import Any, TypeVar

from probes.core.copies import keys_set_between
from probes.core.packed_rows import Packed
from probes.core.readings import Key, Reading, Readings, Row

K = TypeVar("K")
V = TypeVar("V")


def changed(before: Mapping[K, V], after: Mapping[K, V]) -> list[tuple[K, V | None, V]]:
    """Entries (key, old, new) of `after` that are not the same objects, in its order.

    Of copies that know what was set, in the order in which it was.
    Old is None for one that is new. They may be equal all the same, as in decoded Frames.
    """
    if before is after:
        return []
    if _by_process(before, after):
        return _changed_readings(before, after)
    if isinstance(after, Packed) and after.is_like(before):
        return _changed_rows(before, after)
    keys = keys_set_between(before, after)
    if keys is not None:
        # What was set and is gone again is no entry of `after`.
        known = before.get
        return [
            (key, old, new)
            for key in keys
            if key in after and (old := known(key)) is not (new := after[key])
        ]
    if _grown(before, after):
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


def gone(before: Mapping[K, V], after: Mapping[K, V]) -> list[K]:
    """Keys of `before` that are not in `after`, in its order."""
    if before is after:
        return []
    if _by_process(before, after):
        return _gone_readings(before, after)
    if _grown(before, after):
        return []
    return [key for key in before if key not in after]


def loses(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> bool:
    """Whether any key of `before` is not in `after`."""
    return not (before is after or _grown(before, after) or before.keys() <= after.keys())


def _grown(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> bool:
    """Whether the keys of `before` are the first ones of `after`.

    So they are live, where both are copies of one mapping: the keys are the same objects.
    """
    if keys_set_between(before, after) is not None:
        return True
    return len(before) <= len(after) and all(map(is_, before, after))


def _by_process(before: object, after: object) -> bool:
    known = isinstance(before, Readings) and isinstance(after, Readings)
    return known and before.events == after.events  # type: ignore[attr-defined]


def _changed_rows(before: Any, after: Any) -> list[Any]:
    value = after.decoder.value
    return [
        (key, None if old is None else value(key, old), value(key, new))
        for key, old, new in changed(before.numbers, after.numbers)
    ]


def _changed_readings(before: Any, after: Any) -> list[Any]:
    nothing: Row = (None,) * len(after.events)
    found: list[tuple[Key, Reading | None, Reading]] = []
    for pid, old, new in changed(before.rows, after.rows):
        for event, was, reading in zip(after.events, old or nothing, new, strict=True):
            if was is not reading and reading is not None:
                found.append(((pid, event), was, reading))
    return found


def _gone_readings(before: Any, after: Any) -> list[Any]:
    nothing: Row = (None,) * len(after.events)
    found: list[Key] = []
    for pid, old in before.rows.items():
        new = after.rows.get(pid, nothing)
        if new is not old:
            pairs = zip(before.events, old, new, strict=True)
            found += [(pid, event) for event, was, r in pairs if was is not None and r is None]
    return found
