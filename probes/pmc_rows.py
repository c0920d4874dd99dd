# SPDX-License-Identifier: Apache-2.0
"""Reading the counter probe's maps into cumulative totals, by process and by CPU.

Layouts are those of `pmc.bpf.c`; `probes.rows` knows which rows changed.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from operator import add, sub
from typing import Any

from probes.control import Control
from probes.maps import MappedArray, put_word
from probes.pmc_events import FAULTS
from probes.processes import Processes
from probes.readings import Readings
from probes.rows import INDEX, ROW_SIZE, RowTable, name_of_comm
from probes.samples import CpuTimes, PmcSample, Reading, TaskTimes

RAN, MIGRATED = 0, 1
"""What a row is about."""
MOST_PROCESSES = 20_000
"""Most processes that are remembered; the newest stay."""
FORGET_EVERY, FORGET_SOON = 10.0, 2.0
"""Processes that are gone for one to two of these periods, in seconds, are forgotten."""
MANY_PROCESSES = 1000
"""Where there are more, it is soon: each costs in every Frame, in memory and in recordings."""

_COMM, _COMM_AT = 16, 32
_START = slice(28, 32)
"""Which process of its pid a row is of."""
_WIDE, _KEPT = 3, 3
"""Words that every row has (switches, ns, key), then this probe's (waited, faults, major)."""
_CPU_WORDS, _SHARED = 14, 8
"""Words of a CPU before its counters, and the one that says that they are shared."""
_OF_TASK = (10, 11, 12, 13)
"""The words that say whose task a CPU ran last, and what that had had before."""
_HANDOVER = 6
"""Words of a CPU's handover: time, what was seen here, and those of the task."""
_NEW = tuple.__new__
Added = tuple[int, int, int]
NO_TIMES = TaskTimes(0, 0, 0, 0)
NO_READING = Reading(0, 0, 0)


class Totals:
    """The cumulative mappings behind a PmcSample; they outlive a change of the programs."""

    def __init__(self, generation: int = 0) -> None:
        self.generation = generation
        self.tasks: dict[int, TaskTimes] = {}
        self.readings = Readings()
        self.cpus: dict[int, CpuTimes] = {}
        self.cpu_readings: dict[tuple[int, str], Reading] = {}
        self.comms: dict[int, str] = {}
        self.unattributed = 0
        self.switches = 0
        self.active: set[int] = set()
        self.processes = Processes()
        self._gone: set[int] = set()
        self._next_forget = 0.0

    def keep(self, events: Sequence[str], cpus: Iterable[int]) -> None:
        """Let go of the counts of all other events and CPUs."""
        kept, there = set(events), set(cpus)
        self.cpus = {cpu: times for cpu, times in self.cpus.items() if cpu in there}
        self.readings = self.readings.of_events(events)
        self.cpu_readings = {
            key: r for key, r in self.cpu_readings.items() if key[0] in there and key[1] in kept
        }

    def sample(self, now: float, **fields: Any) -> PmcSample:
        """An immutable copy; unchanged entries are the same objects as in the last one."""
        made = PmcSample(
            state="on",
            generation=self.generation,
            tasks=self.tasks.copy(),
            readings=self.readings.copy(),
            cpus=self.cpus.copy(),
            cpu_readings=self.cpu_readings.copy(),
            comms=self.comms.copy(),
            unattributed=self.unattributed,
            **fields,
        )
        # Afterwards: what is forgotten has been told with all that it counted.
        if now >= self._next_forget or len(self.tasks) > MOST_PROCESSES:
            self._forget(now)
        return made

    def _forget(self, now: float) -> None:
        """Drop processes that were gone the last time already, and what is too much."""
        self._next_forget = now + (
            FORGET_SOON if len(self.tasks) > MANY_PROCESSES else FORGET_EVERY
        )
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        alive = self.processes.alive([0, *pids])
        # Under hidepid /proc hides the living: who runs is not gone.
        gone = self.tasks.keys() - alive - self.active
        self.active = set()
        forgotten = gone & self._gone
        self._gone = gone - forgotten
        self.processes.forget(self.tasks)
        if not forgotten and len(self.tasks) <= MOST_PROCESSES:
            return
        kept = [item for item in self.tasks.items() if item[0] not in forgotten]
        self.tasks = dict(kept[-(MOST_PROCESSES * 3 // 4) :])
        self.comms = {pid: comm for pid, comm in self.comms.items() if pid in self.tasks}
        self.readings = self.readings.of_processes(self.tasks)


class CounterReader:
    """Reads what one load of the programs counted. Takes the maps' descriptors.

    `events` are the names of the counters by their slots; without `wait` the kernel does not
    keep how long threads wait.
    """

    def __init__(
        self, maps: dict[str, int], sizes: Mapping[str, int], events: Sequence[str], wait: bool
    ) -> None:
        self.shown, self.wait = (*events, *FAULTS), wait
        self._no_readings = (NO_READING,) * len(self.shown)
        slots, self.cpus = sizes["PT_SLOTS"], sizes["PT_CPUS"]
        wide = _KEPT + 2 * slots
        self._row = struct.Struct(f"=QQQ{ROW_SIZE - 24}x{wide}Q")
        self._cpu = struct.Struct(f"={_CPU_WORDS + 3 * slots}Q")
        self.table = RowTable(maps, self.cpus, sizes["PT_ROWS"], wide=wide)
        self.states = MappedArray(maps.pop("cpus"), self._cpu.size, self.cpus)
        handover = maps.pop("handover")
        self._handover = MappedArray(handover, 8 * _HANDOVER, self.cpus, writable=True)
        self._rows_seen: dict[int, bytes] = {}
        self._cpus_seen: dict[int, tuple[int, ...]] = {}
        self._nothing = bytes(self._row.size)

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

    def read(self, control: Control, totals: Totals) -> None:
        """Add what is new since the last read."""
        fresh: dict[int, list[int]] = {}
        moved: dict[int, int] = {}
        for noted in self.table.lists(control):
            self._read_rows(noted, fresh, moved, totals)
        self._charge(fresh, totals)
        for pid, count in moved.items():
            old = totals.tasks.get(pid, NO_TIMES)
            totals.tasks[pid] = old._replace(migrations=old.migrations + count)
        totals.active |= fresh.keys() | moved.keys()
        for cpu in range(self.cpus):
            self._read_cpu(cpu, totals)

    def close(self) -> None:
        """Unmap everything."""
        self.table.close()
        self.states.close()
        self._handover.close()

    def _read_rows(
        self,
        noted: Iterable[int],
        fresh: dict[int, list[int]],
        moved: dict[int, int],
        totals: Totals,
    ) -> None:
        memory, stride, seen = self.table.rows.memory, self.table.rows.stride, self._rows_seen
        unpack, size, nothing = self._row.unpack, self._row.size, self._nothing
        comms, number = totals.comms, totals.processes.number
        for entry in noted:
            index = entry & INDEX
            # As bytes: each number of a tuple would lie elsewhere in memory.
            data = memory[index * stride : index * stride + size]
            before = seen.get(index, nothing)
            if data == before:
                continue
            new, old = unpack(data), unpack(before)
            key = new[2]
            if new == old or not key:
                continue
            seen[index] = data
            start = int.from_bytes(data[_START], sys.byteorder)
            pid, what = number(key >> 32, start), (key & 0xFFFFFFFF) - 1
            text = name_of_comm(data[_COMM_AT : _COMM_AT + _COMM]) if pid else "idle"
            # Without a start it may be a name of another process.
            if comms.get(pid) != text and (start or pid not in comms):
                totals.processes.name(comms, pid, text, entry)
            if what == MIGRATED:
                moved[pid] = moved.get(pid, 0) + new[0] - old[0]
                continue
            added = map(sub, new, old)
            if pid in fresh:
                fresh[pid] = list(map(add, fresh[pid], added))
                continue
            fresh[pid] = list(added)

    def _charge(self, fresh: Mapping[int, Sequence[int]], totals: Totals) -> None:
        """Add what processes gained."""
        if totals.readings.events != self.shown:
            totals.readings = totals.readings.of_events(self.shown)
        tasks, rows = totals.tasks, totals.readings.rows
        known, counted, nothing = tasks.get, rows.get, self._no_readings
        for pid, gained in fresh.items():
            switches, clock, _, wait, faults, major = gained[: _WIDE + _KEPT]
            old = known(pid, NO_TIMES)
            waited = (old[3] or 0) + wait if self.wait else None
            tasks[pid] = _NEW(TaskTimes, (old[0] + clock, old[1] + switches, old[2], waited))
            values = (*gained[_WIDE + _KEPT :: 2], faults, major)
            running = (*gained[_WIDE + _KEPT + 1 :: 2], clock, clock)
            row = [reading or NO_READING for reading in counted(pid, nothing)]
            rows[pid] = tuple([
                _NEW(Reading, (was[0] + value, was[1] + clock, was[2] + ran))
                for was, value, ran in zip(row, values, running, strict=True)
            ])  # fmt: skip

    def _state(self, cpu: int) -> tuple[int, ...]:
        return self._cpu.unpack_from(self.states.memory, cpu * self.states.stride)

    def _read_cpu(self, cpu: int, totals: Totals) -> None:
        new = self._state(cpu)
        old = self._cpus_seen[cpu]
        if new == old:
            return
        self._cpus_seen[cpu] = new
        words = list(map(sub, new, old))
        _, busy, idle, switches, wait, faults, major, unattributed = words[:_SHARED]
        known = totals.cpus.get(cpu, CpuTimes(0, 0, 0, 0))
        totals.cpus[cpu] = CpuTimes(
            known.busy + busy,
            known.idle + idle,
            known.switches + switches,
            (known.wait or 0) + wait if self.wait else None,
        )
        totals.unattributed += unattributed
        totals.switches += switches
        clock = busy + idle
        added: list[Added | None] = []
        for at in range(_CPU_WORDS, len(words), 3):
            value, enabled, running = words[at : at + 3]
            if not new[at + 1]:
                added.append(None)  # this CPU has it not
            elif not new[_SHARED] or running == enabled > 0:
                # The times are asked for less often than the values while nobody shares.
                added.append((value, clock, clock))
            else:
                added.append((value, enabled, running))
        added += [(faults, clock, clock), (major, clock, clock)]
        _add(totals.cpu_readings, cpu, self.shown, added)


def _add(
    readings: dict[tuple[int, str], Reading],
    owner: int,
    events: Sequence[str],
    added: Sequence[Added | None],
) -> None:
    """Add to the Readings of a process or CPU."""
    get = readings.get
    for event, more in zip(events, added, strict=True):
        if more is None:
            continue
        key = (owner, event)
        old = get(key)
        if old is not None:
            more = (old[0] + more[0], old[1] + more[1], old[2] + more[2])
        readings[key] = _NEW(Reading, more)
