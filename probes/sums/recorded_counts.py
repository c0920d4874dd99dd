# SPDX-License-Identifier: Apache-2.0
"""One probe of a recording: its tables as the records change them.

See `probes.report.recording_totals`.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module

from msgspec import UNSET, Raw

from probes.core.sample import Sample
from probes.sums.accumulators import SampleSum
from probes.sums.counter_tables import Table, Unusual, Waiting
from probes.sums.record_fields import TABLES, Fields


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


def counted_of(kind: type[Sample]) -> Counted | None:
    """What adds up records of Samples of this class, as their schema has it; None: nothing."""
    if not kind.schema.records_path:
        return None
    # Large recordings are compared seldom: all else does without.
    module, _, name = kind.schema.records_path.partition(":")
    made: type[Counted] = getattr(import_module(module), name)
    return made()
