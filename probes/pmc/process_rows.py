# SPDX-License-Identifier: Apache-2.0
"""What processes counted, each as one integer: the words of its rows of `pmc.bpf.c`, added up."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from operator import add

from probes.bpf.row_table import ROW_SIZE
from probes.core.copies import Copies
from probes.core.packed_rows import Decoder, Packed
from probes.core.readings import Reading, Readings, Row
from probes.pmc.events import FAULTS
from probes.pmc.sample import TaskTimes

KEPT = 3
"""This probe's words of a row before its counters: waited, faults, major faults."""
NO_TIMES = TaskTimes(0, 0, 0, 0)
NO_READING = Reading(0, 0, 0)
MIGRATIONS = 128
"""The bit of an integer where migrations are: a row has its epoch and start there, no counter."""
_CLOCK = 64
_WORDS = 3 + KEPT
"""Words before a process's counters: switches, clock, migrations, and those that are KEPT."""
_NEW = tuple.__new__


class ProcessTable:
    """Counters of processes for one list of events, the software events of FAULTS at its end.

    `numbers` are added to by whoever reads rows, and says so by `added`; `mask` has the bits of a
    row that are counters. Without `wait` the kernel does not keep how long threads wait. What
    `before`, a table of other events, counted of these events is part of it.
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
        self._rows = Decoder(self._row, self._row_in_all, bits)
        self._tasks = Decoder(self._times, self._times_in_all, {"clock": _CLOCK, **bits})
        self._base: dict[int, tuple[TaskTimes, Row]] = {}
        self.numbers: dict[int, int] = {}
        self._copies: Copies[int, int] = Copies()
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

    def gained(self, number: int) -> tuple[TaskTimes, Row]:
        """What an integer of rows says by itself, whatever process it is of."""
        return self._times(number), self._row(number)

    def added(self, pids: Iterable[int]) -> None:
        """Something was added to the numbers of these processes."""
        self._copies.set(pids)

    def tables(self) -> tuple[Mapping[int, TaskTimes], Readings]:
        """What there is now, for somebody who keeps it."""
        numbers = self._copies.of(self.numbers)
        return Packed(numbers, self._tasks), Readings(self.events, Packed(numbers, self._rows))

    def keep_newest(self, kept: Iterable[int]) -> None:
        """Forget all other processes."""
        self.numbers = {pid: self.numbers[pid] for pid in kept}
        self._copies.replaced()
        self._base = {pid: base for pid, base in self._base.items() if pid in self.numbers}
        self._rows.forget(self.numbers)
        self._tasks.forget(self.numbers)

    def _unpacked(self, number: int) -> tuple[int, ...]:
        return self._words.unpack((number & self._all).to_bytes(self._words.size, "little"))

    def _times(self, number: int) -> TaskTimes:
        switches, clock, migrations, waited, *_ = self._unpacked(number)
        return _NEW(TaskTimes, (clock, switches, migrations, waited if self.wait else None))

    def _times_in_all(self, pid: int, times: TaskTimes) -> TaskTimes:
        base = self._base.get(pid)
        if base is None:
            return times
        clock, switches, migrations = map(add, base[0][:3], times[:3])
        wait = None if times.wait is None else (base[0].wait or 0) + times.wait
        return TaskTimes(clock, switches, migrations, wait)

    def _row(self, number: int) -> Row:
        words = self._unpacked(number)
        clock = words[1]
        if not clock:
            # What has only been moved to another CPU was not counted.
            return (None,) * len(self.events)
        pairs, (faults, major) = iter(words[_WORDS:]), words[_WORDS - 2 : _WORDS]
        row = [_NEW(Reading, (value, clock, ran)) for value, ran in zip(pairs, pairs, strict=True)]
        return (*row, Reading(faults, clock, clock), Reading(major, clock, clock))

    def _row_in_all(self, pid: int, row: Row) -> Row:
        base = self._base.get(pid)
        if base is None:
            return row
        return tuple([
            before if reading is None
            else Reading(*map(add, before or NO_READING, reading))
            for before, reading in zip(base[1], row, strict=True)
        ])  # fmt: skip
