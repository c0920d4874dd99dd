# SPDX-License-Identifier: Apache-2.0
"""What processes counted, each as one integer: the words of its rows of `pmc.bpf.c`, added up."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from operator import add

from probes.packed import Decoder, Packed
from probes.pmc_events import FAULTS
from probes.readings import Readings, Row
from probes.rows import ROW_SIZE
from probes.samples import Reading, TaskTimes

KEPT = 3
"""This probe's words of a row before its counters: waited, faults, major faults."""
NO_TIMES = TaskTimes(0, 0, 0, 0)
NO_READING = Reading(0, 0, 0)
MIGRATIONS = 128
"""The bit of an integer where migrations are: a row has its key there, which is no counter."""
_CLOCK = 64


class ProcessTable:
    """Counters of processes for one list of events, the software events of FAULTS at its end.

    `numbers` are added to by whoever reads rows: `mask` has the bits of a row that are counters.
    Without `wait` the kernel does not keep how long threads wait. What `before`, a table of other
    events, counted of these events is part of it.
    """

    def __init__(
        self, events: Iterable[str] = FAULTS, wait: bool = True, before: ProcessTable | None = None
    ) -> None:
        self.events, self.wait = tuple(events), wait
        slots = len(self.events) - len(FAULTS)
        self._words = struct.Struct(f"=QQQ{ROW_SIZE - 24}x{KEPT + 2 * slots}Q")
        self._all = (1 << 8 * self._words.size) - 1
        self.mask = self._all & ~((1 << 8 * ROW_SIZE) - (1 << MIGRATIONS))
        first = 8 * (ROW_SIZE + 8 * KEPT)
        bits = {event: first + 128 * slot for slot, event in enumerate(self.events[:slots])}
        self._rows = Decoder(self._row, bits)
        self._tasks = Decoder(self._times, {"clock": _CLOCK, **bits})
        self._base: dict[int, tuple[TaskTimes, Row]] = {}
        self.numbers: dict[int, int] = {}
        if before is not None:
            tasks, readings = before.tables()
            rows = readings.of_events(self.events).rows
            nothing = (None,) * len(self.events)
            self._base = {pid: (tasks[pid], rows.get(pid, nothing)) for pid in tasks}
            self.numbers = dict.fromkeys(tasks, 0)

    @property
    def size(self) -> int:
        """Bytes of a row that hold counters, from its begin."""
        return self._words.size

    def tables(self) -> tuple[Mapping[int, TaskTimes], Readings]:
        """What there is now, for somebody who keeps it."""
        numbers = self.numbers.copy()
        return Packed(numbers, self._tasks), Readings(self.events, Packed(numbers, self._rows))

    def keep_newest(self, kept: Iterable[int]) -> None:
        """Forget all other processes."""
        self.numbers = {pid: self.numbers[pid] for pid in kept}
        self._base = {pid: base for pid, base in self._base.items() if pid in self.numbers}
        self._rows.forget(self.numbers)
        self._tasks.forget(self.numbers)

    def _unpacked(self, number: int) -> tuple[int, ...]:
        return self._words.unpack((number & self._all).to_bytes(self._words.size, "little"))

    def _times(self, pid: int, number: int) -> TaskTimes:
        switches, clock, migrations, waited, *_ = self._unpacked(number)
        old, _ = self._base.get(pid, (NO_TIMES, ()))
        wait = (old.wait or 0) + waited if self.wait else None
        return TaskTimes(
            old.clock + clock, old.switches + switches, old.migrations + migrations, wait
        )

    def _row(self, pid: int, number: int) -> Row:
        _, clock, _, _, faults, major, *pairs = self._unpacked(number)
        values = (*pairs[::2], faults, major)
        running = (*pairs[1::2], clock, clock)
        row = tuple([Reading(v, clock, ran) for v, ran in zip(values, running, strict=True)])
        base = self._base.get(pid)
        if base is None:
            # What has only been moved to another CPU was not counted.
            return row if clock else (None,) * len(row)
        if not number:
            return base[1]
        olds = [old or NO_READING for old in base[1]]
        return tuple([Reading(*map(add, old, new)) for old, new in zip(olds, row, strict=True)])
