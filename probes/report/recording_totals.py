# SPDX-License-Identifier: Apache-2.0
"""What the probes counted over a whole recording, without making its Frames.

Records hold what changed, and counters are cumulative: changes are added to one table in place,
and a table is looked at where counting began, where an entry goes, and at the end. So the cost
follows what changed, not how large the tables are. Only what `diff` compares is taken in.

The sums are those of `probes.sums.accumulators`. Whatever a recording of a run does not have
(damage, times that go back, a counter that falls by itself) raises Unusual: then the Frames are to
be added up one after the other, which is exact for any file.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import cast

from msgspec import UNSET

from probes.core.delta import SHORTEST
from probes.core.elapsed import counted_part
from probes.core.frame import Filters, Host
from probes.core.limits import MOST_WEIGHT
from probes.core.sample import Sample, State
from probes.recording import bounded_json
from probes.recording.file import Reader
from probes.sums.accumulators import SampleSum
from probes.sums.counter_tables import Unusual
from probes.sums.record_fields import FILTERS, HOST, RECORD, Fields
from probes.sums.recorded_counts import Counted, counted_of

_ERRORS = (ValueError, TypeError, LookupError, RecursionError, OverflowError)


class RecordingTotals:
    """What a recording counted; see `totals`."""

    def __init__(self, kinds: Mapping[str, type[Sample]]) -> None:
        """`kinds` are the Sample classes of the probes, by name."""
        takers = {name: counted_of(kind) for name, kind in kinds.items()}
        self.probes = {name: taker for name, taker in takers.items() if taker is not None}
        self._unread = takers.keys() - self.probes.keys()
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
        if any(given[name][1].state == "on" for name in self._unread & given.keys()):
            raise Unusual("a probe whose counters are added up from Frames")
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


def totals(path: str, kinds: Mapping[str, type[Sample]]) -> RecordingTotals:
    """What a recording counted; raises Unusual where that takes its Frames, and ProbeError.

    `kinds` are the Sample classes of the probes, by name.
    """
    found = RecordingTotals(kinds)
    try:
        with closing(Reader(path)) as reader:
            for record, payload in reader.records():
                found.take(bounded_json.inflate(payload), record.whole)
            if reader.damage is not None or found.frames < 2:
                raise Unusual(reader.damage or "no interval")
    except _ERRORS as error:
        raise Unusual(str(error)) from error
    return found
