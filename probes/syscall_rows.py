# SPDX-License-Identifier: Apache-2.0
"""Reading the system-call probe's maps: rows, errnos and histograms into cumulative totals.

Layouts are those of `syscalls.bpf.c`; `probes.rows` reads what it shares with others.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable

from probes.control import Control
from probes.maps import MappedArray
from probes.processes import Processes
from probes.rows import Histograms, RowTable, name_of_comm
from probes.samples import NO_HISTOGRAM, Cost, Counts, Histogram, SyscallSample
from probes.syscall_names import errno_name, name_of

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

_COMMON = (
    "read write readv writev pread64 pwrite64 openat openat2 close fstat newfstatat statx "
    "lseek fsync fdatasync mmap munmap mprotect madvise brk mremap futex nanosleep "
    "clock_nanosleep clock_gettime epoll_wait epoll_pwait epoll_pwait2 epoll_ctl poll ppoll "
    "select pselect6 eventfd2 timerfd_settime socket connect bind listen accept accept4 "
    "sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg shutdown getsockopt setsockopt "
    "getsockname getpeername socketpair sendfile splice copy_file_range clone clone3 fork "
    "vfork execve execveat wait4 waitid exit_group kill tgkill rt_sigaction rt_sigprocmask "
    "rt_sigreturn rt_sigtimedwait getpid getppid gettid getuid geteuid getrandom access "
    "faccessat faccessat2 readlink readlinkat getdents64 getcwd chdir unlink unlinkat rename "
    "renameat2 mkdir mkdirat fcntl flock ioctl dup dup2 dup3 pipe2 ftruncate fallocate "
    "utimensat io_uring_enter io_submit io_getevents bpf perf_event_open prctl sched_yield "
    "open stat lstat "
)
COMMON = tuple(_COMMON.split())
"""Calls that have a histogram from the start; any other gets one when it is first seen."""

_OTHER = struct.Struct("=QQ")
_NEW = tuple.__new__


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
    return index - 134 + 512 if index < 154 else None


class Totals:
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
        self._gone: set[int] = set()
        self._next_forget = 0.0

    def seen(self) -> list[int]:
        """The indexes of the calls that were counted so far, then of the common ones."""
        native = {name: index for index, name in enumerate(self.names[:COMPAT])}
        seen = [index for index, name in enumerate(self.names) if name in self.calls]
        return seen + [native[name] for name in COMMON if name in native]

    def add_calls(self, name: str, count: int, errors: int) -> None:
        """Count calls of one name."""
        old = self.calls.get(name)
        self.calls[name] = (
            Counts(count, errors) if old is None else Counts(old.n + count, old.errors + errors)
        )
        self.count += count

    def add_errno(self, name: str, number: int | None, count: int) -> None:
        """Count errors of one name and number."""
        key = (name, "other" if number is None else errno_name(number))
        self.errnos[key] = self.errnos.get(key, 0) + count

    def sample(self, now: float, lost: int, cost: Cost, notes: tuple[str, ...]) -> SyscallSample:
        """An immutable copy; unchanged entries are the same objects as in the last one."""
        made = SyscallSample(
            state="on",
            generation=self.generation,
            lost=lost,
            cost=cost,
            notes=notes,
            calls=self.calls.copy(),
            errnos=self.errnos.copy(),
            matrix=self.matrix.copy(),
            comms=self.comms.copy(),
            unattributed=self.unattributed,
            latency=None if self.latency is None else self.latency.copy(),
            sample_every=self.sample_every,
            missed=self.missed,
        )
        # Afterwards: what is forgotten has been told with all that it counted.
        if now >= self._next_forget or len(self.matrix) > MOST_ROWS:
            self._forget(now)
        return made

    def _forget(self, now: float) -> None:
        """Drop processes that were gone the last time already, and what is too much.

        Then first what is gone: who calls again begins anew, and what was told does not fit.
        """
        self._next_forget = now + (FORGET_SOON if len(self.matrix) > MANY_ROWS else FORGET_EVERY)
        alive = self.processes.alive(int(name) for name in os.listdir("/proc") if name.isdigit())
        # Under hidepid /proc hides the living: who calls is not gone.
        gone = self.comms.keys() - alive - self.active
        self.active = set()
        forgotten = gone if len(self.matrix) > MOST_ROWS else gone & self._gone
        self._gone = gone - forgotten
        if forgotten or len(self.matrix) > MOST_ROWS:
            kept = [item for item in self.matrix.items() if item[0][0] not in forgotten]
            self.matrix = dict(kept[-(MOST_ROWS * 3 // 4) :])
            pids = {pid for pid, _ in self.matrix}
            self.comms = {pid: comm for pid, comm in self.comms.items() if pid in pids}
        self.processes.forget(self.comms)


class RowReader:
    """Reads what is counted by process and call. Takes the maps' descriptors."""

    def __init__(self, maps: dict[str, int], cpus: int, rows: int) -> None:
        self.table = RowTable(maps, cpus, rows)
        self.others = MappedArray(maps.pop("others"), _OTHER.size, cpus * CALLS)
        self.errnos = MappedArray(maps.pop("errnos"), 8, CALLS * ERRNOS)
        self._others: dict[int, tuple[int, int]] = {}
        self._errnos: dict[int, tuple[int, ...]] = {}

    def read(self, control: Control, totals: Totals) -> set[int]:
        """Add what is new since the last read; returns the indexes of the calls made."""
        called: dict[int, list[int]] = {}
        self._read_rows(control, called, totals)
        for cpu in self.table.others:
            self._read_others(cpu, called, totals)
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

    def _read_rows(self, control: Control, called: dict[int, list[int]], totals: Totals) -> None:
        matrix, comms, names = totals.matrix, totals.comms, totals.names
        pids: list[int] = []
        changes = self.table.changes(control, totals.processes)
        for pid, call, count, failed, comm, errnos, noted in changes:
            entry = called.get(call)
            if entry is None:
                called[call] = [count, failed]
            else:
                entry[0] += count
                entry[1] += failed
            key = (pid, names[call])
            known = matrix.get(key)
            if known is not None:
                count, failed = known[0] + count, known[1] + failed
            matrix[key] = _NEW(Counts, (count, failed))
            pids.append(pid)
            text = name_of_comm(comm)
            if comms.get(pid) != text:
                totals.processes.name(comms, pid, text, noted)
            for errno, more in errnos:
                if more:
                    totals.add_errno(names[call], errno, more)
        totals.active.update(pids)

    def _read_others(self, cpu: int, called: dict[int, list[int]], totals: Totals) -> None:
        """Calls that found no row: counted by name, without a process."""
        start = cpu * CALLS
        data = self.others.memory[start * 16 : (start + CALLS) * 16]
        for call, (count, errors) in enumerate(_OTHER.iter_unpack(data)):
            if not count:
                continue
            old = self._others.get(start + call, (0, 0))
            self._others[start + call] = (count, errors)
            entry = called.setdefault(call, [0, 0])
            entry[0] += count - old[0]
            entry[1] += errors - old[1]
            totals.unattributed += count - old[0]

    def _shared_errnos(self, call: int, totals: Totals) -> None:
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
    """Reads the histograms, and gives one to each call that was ever seen.

    Another call made for the first time is timed from the next poll on; until then its
    durations are counted as missed.
    """

    def __init__(self, maps: dict[str, int], slices: int, hists: int, seen: Iterable[int]) -> None:
        self.slots = MappedArray(maps.pop("slots"), 8, CALLS, writable=True)
        self.hists = Histograms(maps.pop("hists"), slices, hists)
        self._slot_of: dict[int, int] = {}
        for call in seen:
            self._assign(call)

    def read(self, called: Iterable[int], totals: Totals) -> None:
        """Add the durations of the calls that were made."""
        if totals.latency is None:
            totals.latency = {}
        for call in called:
            slot = self._slot_of.get(call) or self._assign(call)
            if slot is not None:
                name = totals.names[call]
                old = totals.latency.get(name, NO_HISTOGRAM)
                totals.latency[name] = self.hists.read(slot, old)
        # What has no slot counts in slot 0.
        counters = self.hists.counters()
        totals.missed = sum(counters[slot][1] for slot in (0, *self._slot_of.values()))

    def close(self) -> None:
        """Unmap everything."""
        self.slots.close()
        self.hists.close()

    def _assign(self, call: int) -> int | None:
        slot = len(self._slot_of) + 1
        if call in self._slot_of or slot >= self.hists.per_slice:
            return self._slot_of.get(call)
        self._slot_of[call] = slot
        struct.pack_into("=Q", self.slots.memory, call * 8, slot)
        return slot
