# SPDX-License-Identifier: Apache-2.0
"""Reading the system-call probe's maps: rows, errnos and histograms into cumulative totals.

Layouts are those of `syscalls.bpf.c`; `probes.bpf.row_table` reads what it shares with others.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping, Sequence, Set

from probes.bpf.control_page import Control
from probes.bpf.histograms import Histograms
from probes.bpf.layouts import OTHER
from probes.bpf.maps import MappedArray
from probes.bpf.peaks import Peaks
from probes.bpf.row_table import RowTable, name_of_comm
from probes.budget.burst_slowdown import CallerSlowdown
from probes.budget.burst_sums import BurstSums
from probes.core.copies import Copies
from probes.core.peak_values import with_peak
from probes.core.process_keys import Processes
from probes.core.sample import NO_HISTOGRAM, NONE_ESTIMATED, Cost, Counts, Histogram
from probes.core.syscall_names import BY_SIGSYS, errno_name, name_of
from probes.ipc.messages import BurstReport
from probes.syscalls.sample import SyscallSample

CALLS = 1024
COMPAT = CALLS // 2
UNKNOWN = 511
ERRNOS = 160
MOST_ROWS = 60_000
"""Most (process, call) pairs that are remembered; the newest stay."""
FORGET_EVERY, FORGET_SOON = 10.0, 2.0
"""Processes that are gone for one to two of these periods, in seconds, are forgotten."""
MANY_ROWS = 10_000
"""Where there are more, it is soon: each costs in every Frame, in memory and in recordings."""

_NEW = tuple.__new__


def slices_of_others(cpus: int) -> int:
    """In how many parts calls without a row are counted: a power of two, 256 at most."""
    return min(256, 1 << (cpus - 1).bit_length())


def call_name(index: int, arch: str) -> str:
    """The name of a call by its index in the maps."""
    compat, nr = divmod(index, COMPAT)
    if nr == UNKNOWN:
        return "compat:unknown" if compat else "unknown"
    return name_of(nr, bool(compat), arch)


def errno_of(index: int) -> int | None:
    """The errno that a cell of the shared error table counts; None for all the others."""
    if index < 134:
        return index
    if index == ERRNOS - 2:
        return BY_SIGSYS
    return index - 134 + 512 if index < 154 else None


class SyscallTotals:
    """The cumulative mappings behind a SyscallSample; they outlive a change of the programs."""

    def __init__(self, arch: str, generation: int = 0) -> None:
        self.generation = generation
        self.names = [call_name(index, arch) for index in range(CALLS)]
        self.calls: dict[str, Counts] = {}
        self.errnos: dict[tuple[str, str], int] = {}
        self.matrix: dict[tuple[int, str], Counts] = {}
        self.comms: dict[int, str] = {}
        self.unattributed = 0
        self.count = 0
        self.latency: dict[str, Histogram] | None = None
        self.sample_every = 1
        self.missed = 0
        self.active: set[int] = set()
        self.processes = Processes()
        self.bursts = BurstSums("calls", "errnos", "matrix", "processes", "total")
        self.slowdown = CallerSlowdown()
        self._gone: set[int] = set()
        self._next_forget = 0.0
        self._matrix_copies: Copies[tuple[int, str], Counts] = Copies()
        self._comms_told: Mapping[int, str] | None = None

    def close_bursts(self) -> None:
        """Make estimates of what bursts saw, if there are enough of them."""
        if self.bursts.is_enough():
            self.slowdown.close(self.bursts)

    def add_burst(self, report: BurstReport, seen: Seen) -> None:
        """Take in what a burst counted, and forget that in `seen`."""
        processes: dict[int, tuple[int, int]] = {}
        for (pid, _), (n, errors) in seen.matrix.items():
            old = processes.get(pid, (0, 0))
            processes[pid] = (old[0] + n, old[1] + errors)
        calls = seen.calls.values()
        self.slowdown.add(report, processes)
        self.bursts.add(
            report,
            {
                "calls": seen.calls,
                "errnos": {key: (n, 0) for key, n in seen.errnos.items()},
                "matrix": seen.matrix,
                "processes": processes,
                "total": {0: (sum([c.n for c in calls]), sum([c.errors for c in calls]))},
            },
        )
        seen.forget()

    def add_calls(self, name: str, count: int, errors: int) -> None:
        """Count calls of one name."""
        old = self.calls.get(name)
        self.calls[name] = (
            Counts(count, errors) if old is None else Counts(old.n + count, old.errors + errors)
        )
        self.count += count

    def add_errnos(self, name: str, added: Iterable[tuple[int, int]]) -> None:
        """Count errors of one name, of which (number, how many) were added."""
        for number, count in added:
            if count:
                self.add_errno(name, number, count)

    def add_errno(self, name: str, number: int | None, count: int) -> None:
        """Count errors of one name and number."""
        key = (name, "other" if number is None else errno_name(number))
        self.errnos[key] = self.errnos.get(key, 0) + count

    def add_active(self, keys: Sequence[tuple[int, str]]) -> None:
        """Note that these processes made these calls, which are in `matrix`."""
        if keys:
            self.active.update([pid for pid, _ in keys])
            self._matrix_copies.set(keys)

    def rename(self, pid: int, comm: str, noted: int) -> None:
        """A process's name, from a row that was `noted` then."""
        self.processes.name(self.comms, pid, comm, noted)
        self._comms_told = None

    def sample(self, now: float, lost: int, cost: Cost, notes: tuple[str, ...]) -> SyscallSample:
        """An immutable copy; unchanged entries are the same objects as in the last one."""
        self.close_bursts()
        if self._comms_told is None:
            self._comms_told = self.comms.copy()
        tables = {name: table.known for name, table in self.bursts.tables.items()}
        made = SyscallSample(
            state="on",
            generation=self.generation,
            lost=lost,
            cost=cost,
            notes=notes,
            calls=self.calls.copy(),
            errnos=self.errnos.copy(),
            matrix=self._matrix_copies.of(self.matrix),
            comms=self._comms_told,
            unattributed=self.unattributed,
            latency=None if self.latency is None else self.latency.copy(),
            sample_every=self.sample_every,
            missed=self.missed,
            duty=self.bursts.duty,
            estimated=tables["calls"].copy(),
            estimated_errnos=self.bursts.tables["errnos"].counts(),
            estimated_matrix=tables["matrix"].copy(),
            estimated_processes=tables["processes"].copy(),
            estimated_total=tables["total"].get(0, NONE_ESTIMATED),
        )
        # Afterwards: what is forgotten has been told with all that it counted.
        rows = len(self.matrix) + len(self.bursts.tables["matrix"].known)
        if now >= self._next_forget or rows > MOST_ROWS:
            self._forget(now, rows)
        return made

    def _forget(self, now: float, rows: int) -> None:
        """Drop processes that were gone the last time already, and what is too much.

        Then first what is gone: who calls again begins anew, and what was told does not fit.
        """
        self._next_forget = now + (FORGET_SOON if rows > MANY_ROWS else FORGET_EVERY)
        alive = self.processes.alive(int(name) for name in os.listdir("/proc") if name.isdigit())
        # Under hidepid /proc hides the living: who calls is not gone.
        gone = self.comms.keys() - alive - self.active
        self.active = set()
        forgotten = gone if rows > MOST_ROWS else gone & self._gone
        self._gone = gone - forgotten
        if forgotten or rows > MOST_ROWS:
            kept = [item for item in self.matrix.items() if item[0][0] not in forgotten]
            self.matrix = dict(kept[-(MOST_ROWS * 3 // 4) :])
            pids = {pid for pid, _ in self.matrix} | self._forget_estimates(forgotten)
            self.comms = {pid: comm for pid, comm in self.comms.items() if pid in pids}
            self._matrix_copies.replaced()
            self._comms_told = None
        self.processes.forget(self.comms)

    def _forget_estimates(self, gone: Set[int]) -> set[int]:
        """Drop what was estimated of these processes; returns those that stay."""
        matrix, processes = (self.bursts.tables[name] for name in ("matrix", "processes"))
        kept = [key for key in matrix.known if key[0] not in gone][-(MOST_ROWS * 3 // 4) :]
        matrix.keep(kept)
        pids = {pid for pid, _ in kept}
        processes.keep([pid for pid in processes.known if pid in pids])
        return pids


class Seen(SyscallTotals):
    """What one burst counted, until its end is known. Names of processes are those of `whole`."""

    def __init__(self, arch: str, whole: SyscallTotals) -> None:
        super().__init__(arch)
        self.names, self.processes = whole.names, whole.processes
        self.share(whole)

    def share(self, whole: SyscallTotals) -> None:
        """Name processes where `whole` has their names."""
        self.comms, self.active = whole.comms, whole.active
        self._whole = whole

    def rename(self, pid: int, comm: str, noted: int) -> None:
        """The name of a process of `whole` as well."""
        self._whole.rename(pid, comm, noted)

    def forget(self) -> None:
        """Begin another burst."""
        self.calls, self.errnos, self.matrix, self.unattributed = {}, {}, {}, 0


class RowReader:
    """Reads what is counted by process and call. Takes the maps' descriptors."""

    def __init__(self, maps: dict[str, int], cpus: int, rows: int) -> None:
        self.table = RowTable(maps, cpus, rows)
        self.slices = slices_of_others(cpus)
        self.others = MappedArray(maps.pop("others"), OTHER.size, self.slices * CALLS)
        self.errnos = MappedArray(maps.pop("errnos"), 8, CALLS * ERRNOS)
        self._others: dict[int, tuple[int, int]] = {}
        self._errnos: dict[int, tuple[int, ...]] = {}

    def read(self, control: Control, totals: SyscallTotals) -> set[int]:
        """Add what is new since the last read; returns the indexes of the calls made."""
        called: dict[int, list[int]] = {}
        self.table.renumber(totals.processes)
        for noted in self.table.lists(control):
            left = self._add_rows(noted, called, totals)
            left = self._add_rows(self.table.meet(left, totals.processes), called, totals)
            self.table.look_again(left)
        for part in {cpu % self.slices for cpu in self.table.others}:
            self._read_others(part, called, totals)
        for index, (count, errors) in called.items():
            totals.add_calls(totals.names[index], count, errors)
            if errors:
                self._shared_errnos(index, totals)
        return set(called)

    def close(self) -> None:
        """Unmap everything."""
        self.table.close()
        self.others.close()
        self.errnos.close()

    def _add_rows(
        self, noted: list[int], called: dict[int, list[int]], totals: SyscallTotals
    ) -> list[int]:
        """Add what these rows counted since the last read; returns those that were not added."""
        matrix, comms, names = totals.matrix, totals.comms, totals.names
        known, comm_of, sums_of = matrix.get, comms.get, called.get
        keys: list[tuple[int, str]] = []
        left: list[int] = []
        for entry, row, (count, failed, owner, extras) in self.table.read(noted):
            if row is None or owner != row.owner or count == row.count:
                left.append(entry)
                continue
            more, errors = count - row.count, failed - row.total
            row.count, row.total = count, failed
            if row.key is None:
                row.key = row.process, names[row.what]
                row.comm = name_of_comm(row.name)
            pid, key = row.process, row.key
            keys.append(key)
            if comm_of(pid) != row.comm:
                totals.rename(pid, row.comm, entry)
            sums = sums_of(row.what)
            if sums is None:
                sums = called[row.what] = [0, 0]
            sums[0] += more
            sums[1] += errors
            if extras != row.extras:
                totals.add_errnos(key[1], row.new_extras(extras))
            old = known(key)
            if old is not None:
                more, errors = old[0] + more, old[1] + errors
            matrix[key] = _NEW(Counts, (more, errors))
        totals.add_active(keys)
        return left

    def _read_others(self, part: int, called: dict[int, list[int]], totals: SyscallTotals) -> None:
        """Calls that found no row: counted by name, without a process."""
        start = part * CALLS
        data = self.others.memory[start * 16 : (start + CALLS) * 16]
        for call, (count, errors) in enumerate(OTHER.struct.iter_unpack(data)):
            if not count:
                continue
            old = self._others.get(start + call, (0, 0))
            self._others[start + call] = (count, errors)
            entry = called.setdefault(call, [0, 0])
            entry[0] += count - old[0]
            entry[1] += errors - old[1]
            totals.unattributed += count - old[0]

    def _shared_errnos(self, call: int, totals: SyscallTotals) -> None:
        """Errnos that did not fit into a row of their own."""
        at = call * ERRNOS * 8
        cells = struct.unpack_from(f"={ERRNOS}Q", self.errnos.memory, at)
        old = self._errnos.get(call)
        if old == cells or not any(cells):
            return
        self._errnos[call] = cells
        for index, count in enumerate(cells):
            more = count - (old[index] if old else 0)
            if more:
                totals.add_errno(totals.names[call], errno_of(index), more)


class LatencyReader:
    """Reads the histograms; the programs give one to each call when it is first timed."""

    def __init__(self, maps: dict[str, int], slices: int, hists: int, cpus: int) -> None:
        self.owners = MappedArray(maps.pop("owners"), 8, hists)
        peaks = Peaks(maps.pop("peaks"), cpus, hists)
        self.hists = Histograms(maps.pop("hists"), slices, hists, peaks)
        self._owners_seen = b""
        self._slots_of: dict[int, list[int]] = {}
        self._known: dict[int, Histogram] = {}

    def read(self, control: Control, called: Iterable[int], totals: SyscallTotals) -> None:
        """Add the durations of the calls that were made."""
        if totals.latency is None:
            totals.latency = {}
        self._read_owners()
        with self.hists.reading(control):
            for call in called:
                slots = self._slots_of.get(call, ())
                known = [self._known.get(slot, NO_HISTOGRAM) for slot in slots]
                found = [self.hists.read(*pair) for pair in zip(slots, known, strict=True)]
                if not found:
                    continue
                self._known.update(zip(slots, found, strict=True))
                name, one = totals.names[call], found[0]
                if len(found) > 1:
                    one = merged(totals.latency.get(name, NO_HISTOGRAM), known, found)
                totals.latency[name] = one
        # What has no slot counts in slot 0.
        totals.missed = sum(missed for _, missed, _ in self.hists.counters())

    def close(self) -> None:
        """Unmap everything."""
        self.owners.close()
        self.hists.close()

    def _read_owners(self) -> None:
        owners = self.owners.memory[: 8 * self.hists.per_slice]
        if owners == self._owners_seen:
            return
        self._owners_seen = owners
        self._slots_of.clear()
        for slot, owner in enumerate(struct.unpack(f"={self.hists.per_slice}Q", owners)):
            if owner:
                self._slots_of.setdefault(owner - 1, []).append(slot)


def merged(old: Histogram, known: Sequence[Histogram], parts: Sequence[Histogram]) -> Histogram:
    """One histogram of all durations: two CPUs may have given a call one each.

    It was `old`, made of the `known` ones, before these were read.
    """
    buckets: dict[int, int] = {}
    n = total = 0
    for part in parts:
        n, total = n + part.n, total + part.total
        for bucket, count in part.buckets.items():
            buckets[bucket] = buckets.get(bucket, 0) + count
    grown = [part for part, was in zip(parts, known, strict=True) if part is not was]
    found = [part.peaks.get(part.n, 0) for part in grown]
    longest = max(found, default=0) if all(found) else 0
    return Histogram(buckets, n, total, with_peak(old.peaks, n, longest))
