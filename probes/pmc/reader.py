# SPDX-License-Identifier: Apache-2.0
"""Reading the counter probe's maps into cumulative totals, by process and by CPU.

Layouts are those of `pmc.bpf.c`; `probes.bpf.row_table` knows which rows changed.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import add, sub
from typing import Any

from probes.bpf.control_page import Control
from probes.bpf.layouts import CPU, HANDOVER, ROW
from probes.bpf.maps import MappedArray, put_word
from probes.bpf.row_table import INDEX, MASK, RowTable, name_of_comm
from probes.core.packed_rows import WORD
from probes.core.process_keys import Processes
from probes.core.readings import Reading, Readings, Row
from probes.pmc.bursts import PmcBursts, Seen
from probes.pmc.process_rows import KEPT, MIGRATIONS, NO_READING, ProcessTable
from probes.pmc.sample import CpuTimes, PmcSample

RAN, MIGRATED = 0, 1
"""What a row is about."""
MOST_PROCESSES = 20_000
"""Most processes that are remembered; the newest stay."""
FORGET_EVERY, FORGET_SOON = 10.0, 2.0
"""Processes that are gone for one to two of these periods, in seconds, are forgotten."""
MANY_PROCESSES = 1000
"""Where there are more, it is soon: each costs in every Frame, in memory and in recordings."""

_COMM, _COMM_AT, _START_AT = 16, ROW.at("comm"), ROW.at("start")
_KEY_AT = ROW.at("key")
_OWNER = (1 << 8 * (_COMM_AT + _COMM)) - (1 << 8 * _START_AT)
"""The bits of a row that tell whose it is: start, key and name."""
_CPU_WORDS, _SHARED = CPU.size // 8, CPU.at("shared") // 8
"""Words of a CPU before its counters, and the one that says that they are shared."""
_OF_TASK = tuple([CPU.at(name) // 8 for name in ("tid", "delay", "had_faults", "had_major")])
"""The words that say whose task a CPU ran last, and what that had had before."""
_NEW = tuple.__new__
Added = tuple[int, int, int]
Known = tuple[int, int, int, str, int]
"""A row as it was read: its counters, its owner's bits, number and name, and what it is about."""
NO_CPU_TIMES = CpuTimes(0, 0, 0, 0)
NOT_SEEN: Known = (0, 0, 0, "", RAN)


class CounterTotals:
    """The cumulative mappings behind a PmcSample; they outlive a change of the programs."""

    def __init__(self, generation: int = 0) -> None:
        self.generation = generation
        self.table = ProcessTable()
        self.cpus: dict[int, CpuTimes] = {}
        self.cpu_readings: dict[int, Row] = {}
        self.comms: dict[int, str] = {}
        self.renamed = False
        self._comms_told: Mapping[int, str] = {}
        self.unattributed = 0
        self.switches = 0
        self.processes = Processes()
        self.bursts = PmcBursts()
        self._gone: set[int] = set()
        self._told: dict[int, int] = {}
        self._next_forget = 0.0

    def keep(self, events: Sequence[str], cpus: Iterable[int], wait: bool) -> None:
        """Let go of the counts of all other events and CPUs; `wait` is that of ProcessTable."""
        there, old = set(cpus), self.table.events
        self.cpus = {cpu: times for cpu, times in self.cpus.items() if cpu in there}
        readings = Readings(old, self.cpu_readings).of_processes(there).of_events(events)
        self.cpu_readings = dict(readings.rows)
        if old != tuple(events) or self.table.wait != wait:
            self.table = ProcessTable(events, wait, before=self.table)

    def sample(self, now: float, **fields: Any) -> PmcSample:
        """An immutable copy; unchanged entries are the same objects as in the last one."""
        self.bursts.estimate()
        tasks, readings = self.table.tables()
        if self.renamed:
            self._comms_told, self.renamed = self.comms.copy(), False
        made = PmcSample(
            state="on",
            generation=self.generation,
            tasks=tasks,
            readings=readings,
            cpus=self.cpus.copy(),
            cpu_readings=Readings(self.table.events, self.cpu_readings.copy()),
            comms=self._comms_told,
            unattributed=self.unattributed,
            duty=self.bursts.duty,
            estimated=self.bursts.estimated,
            estimated_cpus=self.bursts.estimated_cpus,
            estimated_machine=self.bursts.estimated_machine,
            **fields,
        )
        # Afterwards: what is forgotten has been told with all that it counted.
        if now >= self._next_forget or len(tasks) > MOST_PROCESSES:
            self._forget(now)
        return made

    def _forget(self, now: float) -> None:
        """Drop processes that were gone the last time already, and what is too much."""
        numbers, told = self.table.numbers, self._told.get
        self._next_forget = now + (FORGET_SOON if len(numbers) > MANY_PROCESSES else FORGET_EVERY)
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        alive = self.processes.alive([0, *pids])
        # Under hidepid /proc hides the living: who counted something is not gone.
        estimated = self.bursts.pids()
        there = numbers.keys() | estimated
        gone = {pid for pid in there - alive if told(pid) is numbers.get(pid)}
        forgotten = gone & self._gone
        self._gone = gone - forgotten
        self.bursts.forget(forgotten & estimated)
        if forgotten or len(numbers) > MOST_PROCESSES:
            kept = [pid for pid in numbers if pid not in forgotten]
            self.table.keep_newest(kept[-(MOST_PROCESSES * 3 // 4) :])
            numbers = self.table.numbers
            there = numbers.keys() | (estimated - forgotten)
            self.comms = {pid: comm for pid, comm in self.comms.items() if pid in there}
            self.renamed = True
        self.processes.forget(numbers.keys() | self.bursts.pids())
        self._told = numbers.copy()


class CounterReader:
    """Reads what one load of the programs counted. Takes the maps' descriptors.

    `sizes` are CPUs, rows of a CPU's table, and counters of a CPU; without `wait` the kernel does
    not keep how long threads wait.
    """

    def __init__(self, maps: dict[str, int], sizes: tuple[int, int, int], wait: bool) -> None:
        self.wait = wait
        self.cpus, rows, slots = sizes
        wide = KEPT + 2 * slots
        self._cpu = struct.Struct(f"={_CPU_WORDS + 3 * slots}Q")
        self.table = RowTable(maps, self.cpus, rows, wide=wide)
        self.states = MappedArray(maps.pop("cpus"), self._cpu.size, self.cpus)
        handover = maps.pop("handover")
        self._handover = MappedArray(handover, HANDOVER.size, self.cpus, writable=True)
        self._rows_seen: dict[int, Known] = {}
        self._cpus_seen: dict[int, tuple[int, ...]] = {}

    def start(self) -> None:
        """From here on what CPUs do counts: what their counters had before does not."""
        for cpu in range(self.cpus):
            self._cpus_seen[cpu] = self._state(cpu)

    def take_over(self, other: CounterReader) -> None:
        """Charge who has a CPU now from when the other programs charged it last.

        Both note that at each switch, but each has a timer of its own: a process that keeps
        its CPU would lose, or get twice, what lies between the two. The programs take it over
        when they begin to charge, on CPUs that have not switched tasks since.
        """
        memory = self._handover.memory
        for cpu in range(min(self.cpus, other.cpus)):
            words, at = other._state(cpu), cpu * self._handover.stride
            values = (self._state(cpu)[0], *(words[word] for word in _OF_TASK))
            for place, value in enumerate(values, 1):
                put_word(memory, at + 8 * place, value)
            # The time comes last: it is what makes the others count.
            put_word(memory, at, words[0])

    def read(self, control: Control, totals: CounterTotals, burst: Seen | None = None) -> None:
        """Add what is new since the last read; what was charged within a `burst` is added to it."""
        numbers = totals.table.numbers if burst is None else burst.numbers
        for noted in self.table.lists(control):
            # Processes are numbered in the order in which they began.
            self.table.look_again(self._read_rows(sorted(noted), totals, numbers))
        for cpu in range(self.cpus):
            self._read_cpu(cpu, totals, burst)

    def close(self) -> None:
        """Unmap everything."""
        self.table.close()
        self.states.close()
        self._handover.close()

    def _read_rows(
        self, noted: Iterable[int], totals: CounterTotals, numbers: dict[int, int]
    ) -> list[int]:
        """Add what these rows counted since the last read; returns those that counted nothing."""
        memory, stride, seen = self.table.rows.memory, self.table.rows.stride, self._rows_seen
        table, comms, from_bytes = totals.table, totals.comms, int.from_bytes
        mask, size = table.mask, table.size
        left: list[int] = []
        pids: list[int] = []
        for entry in noted:
            index = entry & INDEX
            at = index * stride
            # One number of all words: each counter only grows, so none borrows from the next.
            words = from_bytes(memory[at : at + size], "little")
            before, owner, pid, name, what = last = seen.get(index, NOT_SEEN)
            counted = words & mask
            if counted == before:
                left.append(entry)
                continue
            if words & _OWNER != owner:
                last = self._owner(words, totals)
                owner, pid, name, what = last[1:]
                if not owner:
                    continue
            seen[index] = (counted, owner, pid, name, what)
            gained = counted - before
            if what == MIGRATED:
                gained = (gained & WORD) << MIGRATIONS
            numbers[pid] = numbers.get(pid, 0) + gained
            pids.append(pid)
            # Without a start it may be a name of another process.
            if comms.get(pid) != name and (pid not in comms or owner >> 8 * _START_AT & MASK):
                totals.processes.name(comms, pid, name, entry)
                totals.renamed = True
        if numbers is table.numbers:
            table.added(pids)
        return left

    @staticmethod
    def _owner(words: int, totals: CounterTotals) -> Known:
        """Whose a row is; its owner's bits are 0 for one that is nobody's."""
        key = words >> 8 * _KEY_AT & WORD
        if not key:
            return NOT_SEEN
        pid = totals.processes.number(key >> 32, words >> 8 * _START_AT & MASK)
        comm = (words >> 8 * _COMM_AT & (1 << 8 * _COMM) - 1).to_bytes(_COMM, "little")
        name = name_of_comm(comm) if pid else "idle"
        return 0, words & _OWNER, pid, name, (key & MASK) - 1

    def _state(self, cpu: int) -> tuple[int, ...]:
        return self._cpu.unpack_from(self.states.memory, cpu * self.states.stride)

    def _read_cpu(self, cpu: int, totals: CounterTotals, burst: Seen | None) -> None:
        new = self._state(cpu)
        old = self._cpus_seen[cpu]
        if new == old:
            return
        self._cpus_seen[cpu] = new
        words = list(map(sub, new, old))
        passed, busy, idle, switches, wait, faults, major, unattributed = words[:_SHARED]
        if burst is not None:
            burst.add_cpu(cpu, [busy, idle, switches, wait, faults, major])
            burst.unattributed += unattributed
            # The timer reads its counters all the time, whoever is charged.
            counters = _of_counters(new, words, passed if old[0] else 0)
            gained = [*counters, NO_READING, NO_READING]
            totals.cpu_readings[cpu] = _sum(totals.cpu_readings.get(cpu), gained)
            return
        known = totals.cpus.get(cpu, NO_CPU_TIMES)
        waited = (known[3] or 0) + wait if self.wait else None
        times = (known[0] + busy, known[1] + idle, known[2] + switches, waited)
        totals.cpus[cpu] = _NEW(CpuTimes, times)
        totals.unattributed += unattributed
        totals.switches += switches
        clock = busy + idle
        row = totals.cpu_readings.get(cpu)
        if new[_SHARED] or 0 in new[_CPU_WORDS + 1 :: 3] or row is None or None in row:
            added = [
                *_of_counters(new, words, clock),
                (faults, clock, clock),
                (major, clock, clock),
            ]
            totals.cpu_readings[cpu] = _sum(row, added)
            return
        totals.cpu_readings[cpu] = tuple([
            _NEW(Reading, (was[0] + value, was[1] + clock, was[2] + clock))  # type: ignore[index]
            for was, value in zip(row, (*words[_CPU_WORDS::3], faults, major), strict=True)
        ])  # fmt: skip


def _of_counters(new: Sequence[int], words: Sequence[int], clock: int) -> Iterator[Added | None]:
    """What each counter of a CPU gained, None for one that this CPU does not have.

    `words` are what those of the CPU gained, `clock` is for how long.
    """
    for at in range(_CPU_WORDS, len(words), 3):
        value, enabled, running = words[at : at + 3]
        if not new[at + 1]:
            yield None
        elif not new[_SHARED] or running == enabled > 0:
            # The times are asked for less often than the values while nobody shares.
            yield value, clock, clock
        else:
            yield value, enabled, running


def _sum(row: Row | None, added: Sequence[Added | None]) -> Row:
    """The Readings of a CPU with what they gained, None for an event that it does not have."""
    return tuple([
        was if more is None
        else Reading(*map(add, was or NO_READING, more))
        for was, more in zip(row or (None,) * len(added), added, strict=True)
    ])  # fmt: skip
