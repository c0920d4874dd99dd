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

from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import cast

from msgspec import UNSET, Raw

from probes import bounded_json
from probes.counter_tables import Histograms, Table, Unusual, Waiting
from probes.elapsed import counted_part, target_part
from probes.limits import MOST_WEIGHT
from probes.model import SHORTEST
from probes.record_fields import (
    COMMS,
    EVENT,
    EVENTS,
    FILTERS,
    HISTOGRAM,
    HOST,
    RECORD,
    TABLES,
    TARGET,
    TARGETS,
    TEXTS,
    TIMED,
    EncodedTargets,
    Fields,
)
from probes.recording import Reader
from probes.samples import (
    MAX_EVENTS,
    NO_HISTOGRAM,
    Counts,
    CpuTimes,
    ExecEvent,
    ExecSample,
    ExitEvent,
    Filters,
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
from probes.sums import MOST_KEYS, MOST_TIMED, ExecSum, LatencySum, PmcSum, SampleSum, SyscallSum

MOST_EVENT = 100_000
"""Bytes of an execution: its arguments are 4096 bytes, each of them escaped at worst."""

MOST_NAMES = 400_000
"""Names of processes; half of them are of such as still live, or counted something."""

_ERRORS = (ValueError, TypeError, LookupError, RecursionError, OverflowError)

# -- one probe each ---------------------------------------------------------------------------


class Counted:
    """A probe of a recording: for how long it ran, and what it counted.

    `since` are the seconds since its counters began, None where a record does not tell them.
    """

    kind: type[Sample]

    def __init__(self) -> None:
        self.state, self.generation, self.seconds = "off", 0, 0.0
        self.since: float | None = None
        self.tables: dict[str, Table] = {}
        self.waiting: dict[str, Waiting] = {}

    def later(self, *names: str) -> None:
        """Let changes of these tables wait: those whose keys do not go while the probe runs."""
        for name in names:
            self.waiting[name] = Waiting(partial(self._decode, name))

    def _decode(self, name: str, data: bytes) -> None:
        self.tables[name].change(*TABLES[name](data))

    def take(self, fields: Fields, whole: bool) -> None:
        """Take in what a record says of it; all that there is if it is `whole`."""
        was_on, generation = self.state == "on", self.generation
        if whole:
            self.state, self.generation, self.since = "off", 0, None
        if bytes(fields.duty):
            raise Unusual("estimates from bursts")
        if fields.counted is not UNSET:
            self.since = fields.counted
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
        text, waiting = bytes(data), self.waiting.get(name)
        if not text and not whole:
            return
        if not whole:
            if waiting is None:
                self._decode(name, text)
            else:
                waiting.add(text)
            return
        keys, values, _ = TABLES[name](text) if text else ((), (), ())
        if waiting is not None:
            waiting.skip_to(table.real.keys() <= set(keys))
        table.replace(keys, values)

    def begin(self) -> None:
        """Counting begins here."""
        for table in self.tables.values():
            table.begin()

    def counted(self, seconds: float) -> None:
        """It ran for so long in the interval that ends with the newest record."""

    def _take(self, fields: Fields, whole: bool) -> None:
        """What is in no Table."""

    def sum(self) -> SampleSum:
        """What it counted, as if each Frame had been added up."""
        raise NotImplementedError


class Syscalls(Counted):
    """System calls: counts, errors and durations by call."""

    kind = SyscallSample

    def __init__(self) -> None:
        super().__init__()
        self.tables = {"calls": Table(1, MOST_KEYS // 2)}
        self.later("calls")
        self._latency = Histograms()
        self._timed = Waiting(self._take_timed)

    def _take(self, fields: Fields, whole: bool) -> None:
        data = bytes(fields.latency)
        if data == b"null" or (whole and not data):
            self._timed.catch_up()
            self._latency.replace({})
        elif whole:
            timed = TIMED.decode(data)
            self._timed.skip_to(self._latency.names() <= set(timed.keys))
            self._latency.replace(dict(zip(timed.keys, timed.values, strict=True)))
        elif data:
            self._timed.add(data)

    def _take_timed(self, data: bytes) -> None:
        timed = TIMED.decode(data)
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
        self._timed.catch_up()
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

    def _take(self, fields: Fields, whole: bool) -> None:
        if bytes(fields.failed_duty):
            raise Unusual("estimates from bursts")
        data = bytes(fields.events)
        if data or whole:
            events = EVENTS.decode(data) if data else ()
            if len(events) > MAX_EVENTS:
                raise Unusual("more events than a Frame may have")
            if any(len(bytes(event)) > MOST_EVENT for _, event in events):
                raise Unusual("an event that is too large")
            self._events = [EVENT[kind].decode(event) for kind, event in events]

    def counted(self, seconds: float) -> None:
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
        self._counting: dict[str, float] = {}
        self._spent = Histograms()

    def _take(self, fields: Fields, whole: bool) -> None:
        data = bytes(fields.targets)
        if not data and not whole:
            return
        targets = TARGETS.decode(data) if data else EncodedTargets([], [])
        histograms = {
            spec: HISTOGRAM.decode(target.pop("histogram"))
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
        if len(self._seen.keys() | self._real.keys() | set(targets.keys)) > MOST_TIMED:
            raise Unusual("too many targets")
        for spec, target in zip(targets.keys, targets.values, strict=True):
            changes = {name: bounded_json.decode(bytes(data)) for name, data in target.items()}
            self._real[spec] = TARGET.decode(changes, self._real.get(spec))
            if self._real[spec].duty is not None:
                raise Unusual("estimates from bursts")

    def begin(self) -> None:
        self._spent.begin()

    def counted(self, seconds: float) -> None:
        self._seen.update(self._real)
        for spec, target in self._real.items():
            if target.state == "on":
                own = target_part(target.began, self.since, seconds)
                self._counting[spec] = self._counting.get(spec, 0.0) + own

    def sum(self) -> SampleSum:
        total, spent = LatencySum(), self._spent.sums()
        total._targets = {
            spec: replace(
                target,
                histogram=spent.get(spec, NO_HISTOGRAM),
                began=max(0.0, self.seconds - self._counting.get(spec, 0.0)),
            )
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
        self.later("cpus", "cpu_readings")
        self._events: tuple[str, ...] = ()
        self._all: tuple[str, ...] | None = None
        self._comms: dict[int, str] = {}
        self._named: set[int] = set()

    def _take(self, fields: Fields, whole: bool) -> None:
        events, comms = bytes(fields.events), bytes(fields.comms)
        if events or whole:
            self._events = tuple(TEXTS.decode(events)) if events else ()
        if whole:
            self._named = set()
        if comms:
            columns = COMMS.decode(comms)
            names = dict(zip(accumulate(columns.keys), columns.values, strict=True))
            self._named.difference_update(accumulate(columns.gone))
            self._named |= names.keys()
            self._comms |= names
        if len(self._comms) > MOST_NAMES:
            self._forget()

    def _forget(self) -> None:
        """Leave out the names of processes that neither live nor counted anything."""
        known = self.tables["readings"].keys()
        pids = self._named | self.tables["tasks"].keys()
        pids |= {pid for pid, _ in known}
        self._comms = {pid: comm for pid, comm in self._comms.items() if pid in pids}
        if len(self._comms) > MOST_NAMES // 2:
            raise Unusual("too many names")

    def counted(self, seconds: float) -> None:
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
        if len(text) > bounded_json.HARMLESS and bounded_json.weight(text) > MOST_WEIGHT:
            raise Unusual("a record whose values take too much memory")
        record = RECORD.decode(text)
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
            was_on, generation, since = probe.state == "on", probe.generation, probe.since
            if name in given:
                self._change(probe, *given[name], whole)
            elif whole and was_on:
                raise Unusual("a probe that is missing")
            if self.frames and probe.state == "on":
                went_on = was_on and generation == probe.generation
                seconds = counted_part(since if went_on else 0.0, probe.since, passed)
                probe.seconds += seconds
                probe.counted(seconds)
        if self.frames:
            self.seconds += passed
        else:
            self.begin = self.end
            for probe in self.probes.values():
                probe.begin()
        self.frames += 1

    @staticmethod
    def _change(probe: Counted, tag: str, fields: Fields, whole: bool) -> None:
        if tag != probe.kind.__name__:
            raise Unusual("a sample of another probe")
        probe.take(fields, whole)

    def _describe(self, host: bytes, filters: bytes, whole: bool) -> None:
        if host:
            data = bounded_json.decode(host)
            self.host = HOST.decode(data, None if whole else self.host)
        if whole and not filters:
            self.filters = Filters()
        elif filters:
            data = bounded_json.decode(filters)
            self.filters = FILTERS.decode(data, None if whole else self.filters)

    def sums(self) -> dict[str, SampleSum]:
        """What each probe counted; raises Unusual as `totals` does."""
        out = {}
        for name, probe in self.probes.items():
            try:
                for waiting in probe.waiting.values():
                    waiting.catch_up()
                total = out[name] = probe.sum()
            except _ERRORS as error:
                raise Unusual(str(error)) from error
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
    except _ERRORS as error:
        raise Unusual(str(error)) from error
    return found
