# SPDX-License-Identifier: Apache-2.0
"""Tables of cumulative counters that records of changes are added to in place.

What they counted is the difference of their ends, but for what goes or begins anew in between:
that is added up when it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import add
from typing import Any

import msgspec
from msgspec import Raw

from probes.core import histogram
from probes.core.limits import MOST_ENTRIES as MOST_BUCKETS
from probes.core.sample import Histogram
from probes.sums.accumulators import MOST_TIMED
from probes.sums.record_fields import EncodedHistogram, entries

MOST_ENTRIES = 200_000
"""Entries of a table by number, with those that have gone."""
MOST_WAITING, WAITING = 8 << 20, 200
"""Bytes of changes that wait to be added to histograms, more than come between whole ones; and
bytes that each takes beside its text."""
_PARTS = msgspec.json.Decoder(list[Raw])
Vector = tuple[Any, ...]
"""Integers, or None for what this kernel does not keep."""


class Unusual(Exception):
    """A recording whose Frames have to be added up one by one."""


def only_rises(data: bytes) -> bool:
    """Whether the JSON of a mapping's changes says that nothing fell and no key went.

    A third part of it are the keys that went. Of what is no list the answer is no.
    """
    if b"-" in data or b"null" in data:
        return False
    try:
        return len(_PARTS.decode(data)) == 2
    except msgspec.DecodeError:
        return False


class Waiting:
    """Changes of one mapping, as JSON, that are not decoded yet: most never need to be."""

    __slots__ = ("_bytes", "_changes", "_take")

    def __init__(self, take: Callable[[bytes], None]) -> None:
        """`take` decodes one and adds it."""
        self._changes: list[bytes] = []
        self._bytes = 0
        self._take = take

    def add(self, data: bytes) -> None:
        """Let it wait if that can make no difference; take it in at once otherwise."""
        if not only_rises(data):
            self.catch_up()
            self._take(data)
            return
        self._changes.append(data)
        self._bytes += WAITING + len(data)
        if self._bytes >= MOST_WAITING:
            self.catch_up()

    def skip_to(self, nothing_goes: bool) -> None:
        """A whole record comes, which has what waits in its own, if `nothing_goes` with it."""
        if nothing_goes:
            self._changes, self._bytes = [], 0
        else:
            self.catch_up()

    def catch_up(self) -> None:
        """Take in what waits."""
        changes, self._changes, self._bytes = self._changes, [], 0
        for data in changes:
            self._take(data)


class Table:
    """Counters by key, each a tuple, and what they counted from where counting began.

    `real` is what the newest record says. A key that goes is added to `done`, and so is one that
    falls, for then it counts from zero; `base` is what was there where counting began. Only the
    first `falls` numbers of a tuple tell of that.
    """

    def __init__(self, falls: int, most: int = MOST_ENTRIES) -> None:
        """Of `most` entries and more, sums leave some out: Frames tell which."""
        self._most = most
        self.real: dict[Any, Vector] = {}
        self._base: dict[Any, Vector] = {}
        self._done: dict[Any, Vector] = {}
        self._falls = falls

    def change(self, keys: Sequence[Any], values: Sequence[Vector], gone: Sequence[Any]) -> None:
        """Take in a record of changes."""
        if gone:
            if not set(gone).isdisjoint(keys):
                raise Unusual("another order of keys")
            for key in gone:
                self._close(key)
        real = self.real
        for key, more in zip(keys, values, strict=True):
            old = real.get(key)
            if old is None:
                real[key] = more
                continue
            try:
                new: Vector = tuple(map(add, old, more))
                rose = min(more) >= 0
            except TypeError:  # a number that this kernel does not keep
                new, rose = _added(old, more), False
            if not rose:
                self._check(key, old, new)
            real[key] = new
        self._check_size()

    def _check_size(self) -> None:
        if len(self.real) + len(self._done) > 2 * self._most:
            raise Unusual("a table that is too large")

    def replace(self, keys: Sequence[Any], values: Sequence[Vector]) -> None:
        """Take in a whole record."""
        whole = dict(zip(keys, values, strict=True))
        for key, old in list(self.real.items()):
            new = whole.get(key)
            if new is None:
                self._close(key)
            else:
                self._check(key, old, new)
        self.real = whole
        self._check_size()

    def keys(self) -> set[Any]:
        """All that is there, or was."""
        return self.real.keys() | self._done.keys()

    def begin(self) -> None:
        """Counting begins here."""
        self._base = dict(self.real)

    def _check(self, key: Any, old: Vector, new: Vector) -> None:
        fell = [b is not None and a is not None and b < a for a, b in zip(old, new, strict=True)]
        if any(fell):
            if not any(fell[: self._falls]):
                raise Unusual("a counter that fell")
            self._close(key)

    def _close(self, key: Any) -> None:
        old, base = self.real.pop(key, None), self._base.pop(key, None)
        if old is not None and old != base:
            _add(self._done, key, old if base is None else _less(old, base))

    def sums(self) -> dict[Any, Vector]:
        """What was counted by key, without those that counted nothing."""
        out = dict(self._done)
        for key, value in self.real.items():
            base = self._base.get(key)
            if value != base:
                _add(out, key, value if base is None else _less(value, base))
        if len(out) > self._most:
            raise Unusual("a table that is too large")
        return out


def _added(some: Vector, more: Vector) -> Vector:
    pairs = zip(some, more, strict=True)
    return tuple([None if a is None or b is None else a + b for a, b in pairs])


def _less(new: Vector, old: Vector) -> Vector:
    pairs = zip(new, old, strict=True)
    return tuple([None if a is None else a - (b or 0) for a, b in pairs])


def _add(total: dict[Any, Vector], key: Any, more: Vector) -> None:
    known = total.get(key)
    total[key] = more if known is None else _added(known, more)


class _Durations:
    """One histogram, that is changed in place."""

    __slots__ = ("n", "table", "total")

    def __init__(self, table: dict[int, int], n: int, total: int) -> None:
        self.table, self.n, self.total = table, n, total

    def add(self, entries: Iterable[tuple[int, int]], n: int, total: int) -> None:
        """Add what entries of buckets gained."""
        get, table = self.table.get, self.table
        for bucket, more in entries:
            table[bucket] = get(bucket, 0) + more
        self.n += n
        self.total += total

    def gained(self, base: _Durations | None) -> _Durations:
        """What came since `base`; a copy."""
        if base is None:
            return _Durations(dict(self.table), self.n, self.total)
        old = base.table.get
        table = {key: n - old(key, 0) for key, n in self.table.items() if n != old(key, 0)}
        return _Durations(table, self.n - base.n, self.total - base.total)


class Histograms:
    """Histograms by name, and what they counted from where counting began, as in a Table.

    Changes wait until the histogram goes, or is asked for: a whole record has them in its own.
    """

    def __init__(self) -> None:
        self._real: dict[str, _Durations] = {}
        self._base: dict[str, _Durations] = {}
        self._done: dict[str, _Durations] = {}
        self._waiting: dict[str, list[EncodedHistogram]] = {}
        self._bytes = 0

    def change(self, name: str, more: EncodedHistogram) -> None:
        """Take in what a histogram gained; all of it if it is a new one."""
        if more.n < 0 or more.total < 0:
            raise Unusual("a histogram that fell")
        # What is not copied keeps the whole record.
        more.buckets = more.buckets.copy()
        self._waiting.setdefault(name, []).append(more)
        self._bytes += WAITING + len(bytes(more.buckets))
        if self._bytes >= MOST_WAITING:
            self._catch_up_all()
            self._check_size()

    def replace(self, whole: Mapping[str, EncodedHistogram]) -> None:
        """Take in a whole record."""
        for name in (self._real.keys() | self._waiting.keys()) - whole.keys():
            self.close(name)
        self._waiting, self._bytes = {}, 0
        for name, one in whole.items():
            old = self._real.get(name)
            if old is not None and one.n < old.n:
                raise Unusual("a histogram that fell")
            self._real[name] = _Durations(dict(entries(one)), one.n, one.total)
        self._check_size()

    def _check_size(self) -> None:
        if len(self._real.keys() | self._done.keys()) > MOST_TIMED:
            raise Unusual("too many histograms")
        tables = (*self._real.values(), *self._done.values())
        if sum([len(one.table) for one in tables]) > 2 * MOST_BUCKETS:
            raise Unusual("too many buckets")

    def _catch_up_all(self) -> None:
        for name in list(self._waiting):
            self._catch_up(name)
        self._bytes = 0

    def _catch_up(self, name: str) -> None:
        for more in self._waiting.pop(name, ()):
            known = self._real.setdefault(name, _Durations({}, 0, 0))
            known.add(entries(more), more.n, more.total)

    def names(self) -> set[str]:
        """All that are there."""
        return self._real.keys() | self._waiting.keys()

    def close(self, name: str) -> None:
        """A histogram goes, if it is there."""
        self._catch_up(name)
        old, base = self._real.pop(name, None), self._base.pop(name, None)
        if old is not None:
            self._add(self._done, name, old.gained(base))

    def begin(self) -> None:
        """Counting begins here."""
        self._base = {name: one.gained(None) for name, one in self._real.items()}

    def sums(self) -> dict[str, Histogram]:
        """What was counted, by name."""
        self._catch_up_all()
        out = {name: one.gained(None) for name, one in self._done.items()}
        for name, one in self._real.items():
            self._add(out, name, one.gained(self._base.get(name)))
        if len(out) > MOST_TIMED:
            raise Unusual("too many histograms")
        for one in out.values():
            if one.table and not 0 <= min(one.table) <= max(one.table) < histogram.BUCKETS:
                raise Unusual("a bucket out of range")
        return {name: Histogram(one.table, one.n, one.total) for name, one in out.items()}

    @staticmethod
    def _add(total: dict[str, _Durations], name: str, more: _Durations) -> None:
        if name in total:
            total[name].add(more.table.items(), more.n, more.total)
        else:
            total[name] = more
