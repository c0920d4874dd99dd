# SPDX-License-Identifier: Apache-2.0
"""Adding up what intervals counted, in place, by kind of number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from itertools import islice
from typing import Any, cast

from probes.core.changes import changed
from probes.core.peak_values import joined
from probes.core.readings import Reading
from probes.core.sample import Histogram


def keep_first(table: dict[Any, Any], most: int) -> None:
    """Forget the newest keys where there are more than `most`: only made-up data has as many."""
    if len(table) > most:
        for key in list(islice(table, most, None)):
            del table[key]


def only(names: Mapping[int, str], pids: Set[int]) -> dict[int, str]:
    """The names of these processes alone."""
    return {pid: name for pid, name in names.items() if pid in pids}


def add_to(total: dict[Any, int], more: Mapping[Any, int]) -> None:
    """Add counts up, key by key."""
    for key, n in more.items():
        total[key] = total.get(key, 0) + n


def add_pairs(total: dict[Any, Any], more: Mapping[Any, Any], kind: type) -> None:
    """As `add_to`, for named tuples of two numbers."""
    for key, (n, m) in more.items():
        old = total.get(key)
        total[key] = kind(n, m) if old is None else kind(old[0] + n, old[1] + m)


def add_histogram(total: Histogram | None, more: Histogram) -> Histogram:
    """The sum; its buckets are changed in place, for nobody else has them."""
    if total is None:
        return more._replace(buckets=dict(more.buckets))
    peaks = joined(total, more)
    add_to(cast("dict[int, int]", total.buckets), more.buckets)
    return Histogram(total.buckets, total.n + more.n, total.total + more.total, peaks)


def _less(new: Iterable[int | None], old: Iterable[int | None]) -> list[int | None]:
    return [None if a is None else max(0, a - (b or 0)) for a, b in zip(new, old, strict=True)]


def _plus(some: Iterable[int | None], more: Iterable[int | None]) -> list[int | None]:
    both = zip(some, more, strict=True)
    return [None if a is None or b is None else a + b for a, b in both]


def reading_delta(before: Reading | None, after: Reading) -> Reading:
    """What was counted between two readings; all of `after` where it began anew."""
    if before is None or after.enabled < before.enabled or after.value < before.value:
        return after
    return Reading(*[new - old for new, old in zip(after, before, strict=True)])


def add_times(total: dict[int, Any], old: Mapping[int, Any], new: Any, kind: Any) -> list[Any]:
    """Add up what tasks or CPUs did since `old`; returns that."""
    out = []
    for key, before, after in changed(old, new):
        if before == after:
            continue
        if before is None or any(
            (a or 0) < (b or 0) for a, b in zip(after[:2], before[:2], strict=True)
        ):
            delta = after
        else:
            delta = kind(*_less(after, before))
        total[key] = kind(*_plus(total[key], delta)) if key in total else delta
        out.append(delta)
    return out


def add_readings(
    total: dict[tuple[int, str], Reading],
    old: Mapping[tuple[int, str], Reading],
    new: Mapping[tuple[int, str], Reading],
) -> None:
    """Add up what events counted since `old`."""
    for key, before, after in changed(old, new):
        if before == after:
            continue
        delta, sum_ = reading_delta(before, after), total.get(key, Reading(0, 0, 0))
        total[key] = Reading(*[a + b for a, b in zip(sum_, delta, strict=True)])
