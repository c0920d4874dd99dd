# SPDX-License-Identifier: Apache-2.0
"""What the probes counted over a whole recording, without making its Frames.

Records hold what changed, and counters are cumulative: changes are added to one table in place,
and a table is looked at where counting began, where an entry goes, and at the end. So the cost
follows what changed, not how large the tables are. Only what `diff` compares is taken in.

The sums are those of `probes.sums`. Whatever a recording of a run does not have (damage, times that
go back, a counter that falls by itself) raises Unusual: then the Frames are to be added up one
after the other, which is exact for any file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import accumulate
from operator import add
from typing import Annotated, Any, cast

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from probes import bounded_json, hdr
from probes.codec import codec_for
from probes.model import SHORTEST
from probes.recording import Reader
from probes.samples import (
    Counts,
    CpuTimes,
    ExecEvent,
    ExecSample,
    ExitEvent,
    NO_HISTOGRAM,
    Filters,
    Histogram,
    Host,
    LatencySample,
    PmcSample,
    Reading,
    Sample,
    State,
    SyscallSample,
    Target,
    TaskTimes,
)
from probes.sums import MOST_TIMED, ExecSum, LatencySum, PmcSum, SampleSum, SyscallSum

MOST_ENTRIES = 200_000
"""Entries of a table, with those that have gone; of more, sums leave some out."""
MOST_EVENT = 100_000
"""Bytes of an execution: its arguments are 4096 bytes, each of them escaped at worst."""
MOST_WAITING = 1000
"""Changes of a histogram that wait to be added to it: more than come between two whole ones.
"""
Vector = tuple[int | None, ...]


class Unusual(Exception):
    """A recording whose Frames have to be added up one by one."""


class Table:
    """Counters by key, each a tuple, and what they counted from where counting began.

    `real` is what the newest record says. A key that goes is added to `done`, and so is one that
    falls, for then it counts from zero; `base` is what was there where counting began. Only the
    first `falls` numbers of a tuple tell of that.
    """

    def __init__(self, falls: int) -> None:
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
                rose = min(more) >= 0  # type: ignore[type-var, operator]
            except TypeError:  # a number that this kernel does not keep
                new, rose = _added(old, more), False
            if not rose:
                self._check(key, old, new)
            real[key] = new

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
        if len(out) > MOST_ENTRIES:
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
        self._waiting: dict[str, list[_Histogram]] = {}

    def change(self, name: str, more: _Histogram) -> None:
        """Take in what a histogram gained; all of it if it is a new one."""
        if more.n < 0 or more.total < 0:
            raise Unusual("a histogram that fell")
        waiting = self._waiting.setdefault(name, [])
        waiting.append(more)
        if len(waiting) >= MOST_WAITING:
            self._catch_up(name)

    def replace(self, whole: Mapping[str, _Histogram]) -> None:
        """Take in a whole record."""
        for name in (self._real.keys() | self._waiting.keys()) - whole.keys():
            self.close(name)
        self._waiting = {}
        for name, one in whole.items():
            old = self._real.get(name)
            if old is not None and one.n < old.n:
                raise Unusual("a histogram that fell")
            self._real[name] = _Durations(dict(_entries(one)), one.n, one.total)

    def _catch_up(self, name: str) -> None:
        for more in self._waiting.pop(name, ()):
            known = self._real.setdefault(name, _Durations({}, 0, 0))
            known.add(_entries(more), more.n, more.total)

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
        for name in list(self._waiting):
            self._catch_up(name)
        out = {name: one.gained(None) for name, one in self._done.items()}
        for name, one in self._real.items():
            self._add(out, name, one.gained(self._base.get(name)))
        if len(out) > MOST_TIMED:
            raise Unusual("too many histograms")
        for one in out.values():
            if one.table and not 0 <= min(one.table) <= max(one.table) < hdr.BUCKETS:
                raise Unusual("a bucket out of range")
        return {name: Histogram(one.table, one.n, one.total) for name, one in out.items()}

    @staticmethod
    def _add(total: dict[str, _Durations], name: str, more: _Durations) -> None:
        if name in total:
            total[name].add(more.table.items(), more.n, more.total)
        else:
            total[name] = more


def _entries(histogram: _Histogram) -> Iterable[tuple[int, int]]:
    """Buckets, and what is in each."""
    buckets = _BUCKETS.decode(histogram.buckets)
    if buckets.gone:
        raise Unusual("a bucket that went")
    return zip(accumulate(buckets.steps), buckets.values, strict=True)


# -- records, as `probes.codec` writes them ---------------------------------------------------

Name = Annotated[str, Meta(max_length=1024)]


class _Buckets(Struct, array_like=True):
    steps: list[int]
    values: list[int]
    gone: list[int] = []


class _Histogram(Struct, array_like=True):
    buckets: Raw
    n: int
    total: int


class _Timed(Struct, array_like=True):
    keys: list[Name]
    values: list[_Histogram]
    gone: list[Name] = []


class _Named(Struct, array_like=True):
    keys: list[Name]
    values: list[tuple[int, int]]
    gone: list[Name] = []


class _ById(Struct, array_like=True):
    keys: list[int]
    values: list[tuple[int, int, int, int | None]]
    gone: list[int] = []


class _ByEvent(Struct, array_like=True):
    keys: list[tuple[int, Name]]
    values: list[tuple[int, int, int]]
    gone: list[tuple[int, Name]] = []


class _Comms(Struct, array_like=True):
    keys: list[int]
    values: list[Name]
    gone: list[int] = []


class _Targets(Struct, array_like=True):
    keys: list[str]
    values: list[dict[str, Raw]]
    gone: list[str] = []


class _Fields(Struct):
    """Of all Samples, what is compared; the rest is skipped over."""

    state: str | UnsetType = UNSET
    generation: int | UnsetType = UNSET
    calls: Raw = Raw()
    latency: Raw = Raw()
    events: Raw = Raw()
    targets: Raw = Raw()
    tasks: Raw = Raw()
    readings: Raw = Raw()
    cpus: Raw = Raw()
    cpu_readings: Raw = Raw()
    comms: Raw = Raw()


class _Record(Struct):
    time: float | UnsetType = UNSET
    mono: float | UnsetType = UNSET
    host: Raw = Raw()
    filters: Raw = Raw()
    samples: tuple[list[str], list[tuple[str, _Fields]]] | UnsetType = UNSET


_RECORD, _TIMED, _TARGETS, _COMMS, _TEXTS = [
    msgspec.json.Decoder(kind) for kind in (_Record, _Timed, _Targets, _Comms, list[Name])
]
_NAMED, _BY_ID, _BY_EVENT = [msgspec.json.Decoder(kind) for kind in (_Named, _ById, _ByEvent)]
_HISTOGRAM, _BUCKETS = msgspec.json.Decoder(_Histogram), msgspec.json.Decoder(_Buckets)
_EVENTS = msgspec.json.Decoder(list[tuple[str, Raw]])
_EVENT = {kind.__name__: msgspec.json.Decoder(kind) for kind in (ExecEvent, ExitEvent)}
_TARGET, _HOST, _FILTERS = codec_for(Target), codec_for(Host), codec_for(Filters)


# -- one probe each ---------------------------------------------------------------------------


class Counted:
    """A probe of a recording: for how long it ran, and what it counted."""

    kind: type[Sample]

    def __init__(self) -> None:
        self.state, self.generation, self.seconds = "off", 0, 0.0
        self.tables: dict[str, Table] = {}

    def take(self, fields: _Fields, whole: bool) -> None:
        """Take in what a record says of it; all that there is if it is `whole`."""
        was_on, generation = self.state == "on", self.generation
        if whole:
            self.state, self.generation = "off", 0
        if fields.state is not UNSET:
            self.state = fields.state
        if fields.generation is not UNSET:
            self.generation = fields.generation + (0 if whole else generation)
        if was_on and self.state == "on" and generation != self.generation:
            raise Unusual("counters that began anew within an interval")
        for name, table in self.tables.items():
            self._change(table, name, getattr(fields, name), whole)
        self._take(fields, whole)
        if self.state != "on" and any(table.real for table in self.tables.values()):
            raise Unusual("counters of a probe that does not run")

    def _change(self, table: Table, name: str, data: Raw, whole: bool) -> None:
        if not len(bytes(data)):
            if whole:
                table.replace((), ())
            return
        keys, values, gone = _DECODE[name](data)
        if whole:
            table.replace(keys, values)
        else:
            table.change(keys, values, gone)

    def begin(self) -> None:
        """Counting begins here."""
        for table in self.tables.values():
            table.begin()

    def counted(self) -> None:
        """It ran in the interval that ends with the newest record, or in a part of it."""

    def _take(self, fields: _Fields, whole: bool) -> None:
        """What is in no Table."""

    def sum(self) -> SampleSum:
        """What it counted, as if each Frame had been added up."""
        raise NotImplementedError


def _columns(columns: Any) -> tuple[Sequence[Any], Sequence[Vector], Sequence[Any]]:
    return columns.keys, columns.values, columns.gone


def _by_id(data: Raw) -> tuple[Sequence[Any], Sequence[Vector], Sequence[Any]]:
    columns = _BY_ID.decode(data)
    return list(accumulate(columns.keys)), columns.values, list(accumulate(columns.gone))


def _by_event(data: Raw) -> tuple[Sequence[Any], Sequence[Vector], Sequence[Any]]:
    columns = _BY_EVENT.decode(data)
    return _pairs(columns.keys), columns.values, _pairs(columns.gone)


def _pairs(keys: Sequence[tuple[int, str]]) -> Sequence[tuple[int, str]]:
    return list(zip(accumulate([n for n, _ in keys]), [text for _, text in keys], strict=True))


_DECODE = {
    "calls": lambda data: _columns(_NAMED.decode(data)),
    "tasks": _by_id,
    "cpus": _by_id,
    "readings": _by_event,
    "cpu_readings": _by_event,
}


class Syscalls(Counted):
    """System calls: counts, errors and durations by call."""

    kind = SyscallSample

    def __init__(self) -> None:
        super().__init__()
        self.tables = {"calls": Table(1)}
        self._latency = Histograms()

    def _take(self, fields: _Fields, whole: bool) -> None:
        data = bytes(fields.latency)
        if data == b"null" or (whole and not data):
            self._latency.replace({})
            return
        if not data:
            return
        timed = _TIMED.decode(data)
        if whole:
            self._latency.replace(dict(zip(timed.keys, timed.values, strict=True)))
            return
        if timed.gone and not set(timed.gone).isdisjoint(timed.keys):
            raise Unusual("another order of keys")
        for name in timed.gone:
            self._latency.close(name)
        for name, histogram in zip(timed.keys, timed.values, strict=True):
            self._latency.change(name, histogram)

    def begin(self) -> None:
        super().begin()
        self._latency.begin()

    def sum(self) -> SampleSum:
        total = SyscallSum()
        total._calls = {key: Counts(*n) for key, n in self.tables["calls"].sums().items()}
        total._latency = {name: h for name, h in self._latency.sums().items() if h.n}
        return total


class Execs(Counted):
    """Program executions: their rows and programs, which `probes.sums` counts."""

    kind = ExecSample

    def __init__(self) -> None:
        super().__init__()
        self._events: list[ExecEvent | ExitEvent] = []
        self._sum = ExecSum()

    def _take(self, fields: _Fields, whole: bool) -> None:
        data = bytes(fields.events)
        if data or whole:
            events = _EVENTS.decode(data) if data else ()
            if any(len(bytes(event)) > MOST_EVENT for _, event in events):
                raise Unusual("an event that is too large")
            self._events = [_EVENT[kind].decode(event) for kind, event in events]

    def counted(self) -> None:
        if self._events:
            now = max([event.time for event in self._events])
            self._sum.log.add(self._events, now or None)
            self._sum.programs.take(self._sum.log, now)

    def sum(self) -> SampleSum:
        return self._sum


class Latency(Counted):
    """Latency targets: calls and durations."""

    kind = LatencySample

    def __init__(self) -> None:
        super().__init__()
        self._real: dict[str, Target] = {}
        self._seen: dict[str, Target] = {}
        self._spent = Histograms()

    def _take(self, fields: _Fields, whole: bool) -> None:
        data = bytes(fields.targets)
        if not data and not whole:
            return
        targets = _TARGETS.decode(data) if data else _Targets([], [])
        histograms = {
            spec: _HISTOGRAM.decode(target.pop("histogram"))
            for spec, target in zip(targets.keys, targets.values, strict=True)
            if "histogram" in target
        }
        if whole:
            self._real = {}
            self._spent.replace(histograms)
        else:
            if targets.gone and not set(targets.gone).isdisjoint(targets.keys):
                raise Unusual("another order of keys")
            for spec in targets.gone:
                self._real.pop(spec, None)
                self._spent.close(spec)
            for spec, histogram in histograms.items():
                self._spent.change(spec, histogram)
        for spec, target in zip(targets.keys, targets.values, strict=True):
            changes = {name: bounded_json.decode(bytes(data)) for name, data in target.items()}
            self._real[spec] = _TARGET.decode(changes, self._real.get(spec))

    def begin(self) -> None:
        self._spent.begin()

    def counted(self) -> None:
        self._seen.update(self._real)

    def sum(self) -> SampleSum:
        total, spent = LatencySum(), self._spent.sums()
        if len(self._seen) > MOST_TIMED:
            raise Unusual("too many targets")
        total._targets = {
            spec: replace(target, histogram=spent.get(spec, NO_HISTOGRAM))
            for spec, target in self._seen.items()
        }
        return total


class Pmc(Counted):
    """Counters and CPU time, by process and by CPU."""

    kind = PmcSample

    def __init__(self) -> None:
        super().__init__()
        self.tables = {
            "tasks": Table(2), "cpus": Table(2), "readings": Table(2), "cpu_readings": Table(2),
        }  # fmt: skip
        self._events: tuple[str, ...] = ()
        self._all: tuple[str, ...] | None = None
        self._comms: dict[int, str] = {}

    def _take(self, fields: _Fields, whole: bool) -> None:
        events, comms = bytes(fields.events), bytes(fields.comms)
        if events or whole:
            self._events = tuple(_TEXTS.decode(events)) if events else ()
        if comms:
            columns = _COMMS.decode(comms)
            self._comms.update(zip(accumulate(columns.keys), columns.values, strict=True))

    def counted(self) -> None:
        if self.state == "on" and self._all != self._events:
            before = self._events if self._all is None else self._all
            self._all = tuple([event for event in self._events if event in before])

    def sum(self) -> SampleSum:
        total, tables = PmcSum(), {name: table.sums() for name, table in self.tables.items()}
        total._events, total._comms = self._all, self._comms
        total._tasks = {key: TaskTimes(*v) for key, v in tables["tasks"].items()}
        total._cpus = {key: CpuTimes(*v) for key, v in tables["cpus"].items()}
        total._readings = {key: Reading(*v) for key, v in tables["readings"].items()}
        total._cpu_readings = {key: Reading(*v) for key, v in tables["cpu_readings"].items()}
        return total


# -- all of them ------------------------------------------------------------------------------


class Totals:
    """What a recording counted; see `totals`."""

    def __init__(self) -> None:
        self.probes: dict[str, Counted] = {
            "syscalls": Syscalls(), "execs": Execs(), "latency": Latency(), "pmc": Pmc(),
        }  # fmt: skip
        self.frames = 0
        self.begin = self.end = self.seconds = 0.0
        self.host, self.filters = Host(), Filters()
        self._mono = 0.0

    def take(self, text: bytes, whole: bool) -> None:
        """Take in the JSON of a record."""
        record = _RECORD.decode(text)
        if record.mono is UNSET or (whole and UNSET in (record.time, record.samples)):
            raise Unusual("a record without a moment")
        passed, self._mono = record.mono - self._mono, record.mono
        if self.frames and passed < SHORTEST:
            raise Unusual("a record that is not later than the one before")
        self.end = self.end if record.time is UNSET else record.time
        self._describe(bytes(record.host), bytes(record.filters), whole)
        given = {}
        if record.samples is not UNSET:
            names, samples = record.samples
            given = dict(zip(names, samples, strict=True))
        for name, probe in self.probes.items():
            was_on = probe.state == "on"
            if name in given:
                self._change(probe, *given[name], whole)
            elif whole and was_on:
                raise Unusual("a probe that is missing")
            if self.frames and (was_on or probe.state == "on"):
                probe.seconds += passed
                probe.counted()
        if self.frames:
            self.seconds += passed
        else:
            self.begin = self.end
            for probe in self.probes.values():
                probe.begin()
        self.frames += 1

    @staticmethod
    def _change(probe: Counted, tag: str, fields: _Fields, whole: bool) -> None:
        if tag != probe.kind.__name__:
            raise Unusual("a sample of another probe")
        probe.take(fields, whole)

    def _describe(self, host: bytes, filters: bytes, whole: bool) -> None:
        if host:
            data = bounded_json.decode(host)
            self.host = _HOST.decode(data, None if whole else self.host)
        if whole and not filters:
            self.filters = Filters()
        elif filters:
            data = bounded_json.decode(filters)
            self.filters = _FILTERS.decode(data, None if whole else self.filters)

    def sums(self) -> dict[str, SampleSum]:
        """What each probe counted."""
        out = {}
        for name, probe in self.probes.items():
            total = out[name] = probe.sum()
            total.seconds = probe.seconds
            total.last = probe.kind(state=cast(State, probe.state))
        return out


def totals(path: str) -> Totals:
    """What a recording counted; raises Unusual where that takes its Frames, and ProbeError."""
    found = Totals()
    try:
        with closing(Reader(path)) as reader:
            for record, payload in reader.records():
                found.take(bounded_json.inflate(payload), record.whole)
            if reader.damage is not None or found.frames < 2:
                raise Unusual(reader.damage or "no interval")
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise Unusual(str(error)) from error
    return found
