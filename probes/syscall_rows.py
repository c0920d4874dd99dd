# SPDX-License-Identifier: Apache-2.0
"""Reading the system-call probe's maps: rows, errnos and histograms into cumulative totals.

Layouts and the epoch protocol are those of `syscalls.bpf.c`. A poll costs about a
microsecond for each row that changed, and nothing for the others.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping

from probes.control import Control
from probes.maps import MappedArray
from probes.samples import Cost, Counts, Histogram, SyscallSample
from probes.syscall_names import errno_name, name_of

CALLS = 1024
COMPAT = CALLS // 2
UNKNOWN = 511
ERRNOS = 144
BUCKETS = 1280
MOST_ROWS = 60_000
"""Most (process, call) pairs that are remembered; the newest stay."""
FORGET_EVERY = 10.0
"""Processes that are gone for one to two of these periods, in seconds, are forgotten."""

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

_ROW = struct.Struct("=QQQII16sIIII")
_TOUCHED = struct.Struct("=IIIIQ")
_OTHER = struct.Struct("=QQ")
_HIST = 16 + 4 * BUCKETS
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
    return index - 134 + 512 if index < ERRNOS - 1 else None


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
        if now >= self._next_forget or len(self.matrix) > MOST_ROWS:
            self._forget(now)
        return SyscallSample(
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

    def _forget(self, now: float) -> None:
        """Drop processes that were gone the last time already, and what is too much."""
        self._next_forget = now + FORGET_EVERY
        alive = {int(name) for name in os.listdir("/proc") if name.isdigit()}
        # Under hidepid /proc hides the living: who calls is not gone.
        gone = self.comms.keys() - alive - self.active
        self.active = set()
        forgotten = gone & self._gone
        self._gone = gone - forgotten
        if forgotten or len(self.matrix) > MOST_ROWS:
            kept = [item for item in self.matrix.items() if item[0][0] not in forgotten]
            self.matrix = dict(kept[-(MOST_ROWS * 3 // 4) :])
            pids = {pid for pid, _ in self.matrix}
            self.comms = {pid: comm for pid, comm in self.comms.items() if pid in pids}


class RowReader:
    """Reads the row tables of all CPUs. Takes the maps' descriptors."""

    def __init__(self, maps: Mapping[str, int], cpus: int, rows: int) -> None:
        self.cpus = cpus
        self.rows = MappedArray(maps["rows"], _ROW.size, cpus * rows)
        self.touched = MappedArray(maps["touched"], _TOUCHED.size + 8 * rows, cpus)
        self.others = MappedArray(maps["others"], _OTHER.size, cpus * CALLS)
        self.errnos = MappedArray(maps["errnos"], 8, CALLS * ERRNOS)
        self.arrays = (self.rows, self.touched, self.others, self.errnos)
        self._per_cpu = rows
        self._last: dict[int, tuple[int, int, int, int, int]] = {}
        self._others_seen = [0] * cpus
        self._others: dict[int, tuple[int, int]] = {}
        self._errnos: dict[int, tuple[int, ...]] = {}
        self._read_of_epoch = [0] * cpus

    def read(self, control: Control, totals: Totals) -> set[int]:
        """Add what is new since the last read; returns the indexes of the calls made."""
        called: dict[int, list[int]] = {}
        # First what entered the last epoch's list after it was read; then the list is reused.
        for cpu in range(self.cpus):
            self._list(cpu, control.epoch - 1, self._read_of_epoch[cpu], called, totals)
        ended = control.next_epoch()
        for cpu in range(self.cpus):
            self._read_of_epoch[cpu] = self._list(cpu, ended, 0, called, totals)
        for index, (count, errors) in called.items():
            totals.add_calls(totals.names[index], count, errors)
            if errors:
                self._shared_errnos(index, totals)
        return set(called)

    def close(self) -> None:
        """Unmap everything."""
        for array in self.arrays:
            array.close()

    def _list(
        self, cpu: int, epoch: int, start: int, called: dict[int, list[int]], totals: Totals
    ) -> int:
        """Read the rows in one CPU's list of an epoch from entry `start` on; its length."""
        base = cpu * self.touched.stride
        memory = self.touched.memory
        header = _TOUCHED.unpack_from(memory, base)
        side = epoch & 1
        if header[4] != self._others_seen[cpu]:
            self._others_seen[cpu] = header[4]
            self._read_others(cpu, called, totals)
        if header[side] != epoch & 0xFFFFFFFF:
            return 0
        count = header[2 + side]
        if count > start:
            at = base + _TOUCHED.size + 4 * (side * self._per_cpu + start)
            indexes = struct.unpack_from(f"={count - start}I", memory, at)
            self._read_rows(indexes, called, totals)
        return int(count)

    def _read_rows(
        self, indexes: Iterable[int], called: dict[int, list[int]], totals: Totals
    ) -> None:
        memory, last, matrix, names = self.rows.memory, self._last, totals.matrix, totals.names
        for index in indexes:
            row = _ROW.unpack_from(memory, index * 64)
            calls, errors, key, _, _, comm, e0, n0, e1, n1 = row
            old = last.get(index, (0, 0, 0, 0, 0))
            last[index] = (calls, errors, key, n0, n1)
            count = calls - old[0]
            if count <= 0 or not key:
                continue
            failed = errors - old[1]
            call, pid = (key & 0xFFFFFFFF) - 1, key >> 32
            entry = called.get(call)
            if entry is None:
                called[call] = [count, failed]
            else:
                entry[0] += count
                entry[1] += failed
            name = names[call]
            totals.active.add(pid)
            pair = (pid, name)
            known = matrix.get(pair)
            matrix[pair] = _NEW(
                Counts,
                (count, failed) if known is None else (known[0] + count, known[1] + failed),
            )
            text = comm.partition(b"\0")[0].decode("utf-8", "surrogateescape")
            if totals.comms.get(pid) != text:
                totals.comms[pid] = text
            if failed:
                same = old[2] == key
                if e0 and (more := (n0 - (old[3] if same else 0)) & 0xFFFFFFFF):
                    totals.add_errno(name, e0, more)
                if e1 and (more := (n1 - (old[4] if same else 0)) & 0xFFFFFFFF):
                    totals.add_errno(name, e1, more)

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

    def __init__(
        self, maps: dict[str, int], cpus: int, slices: int, hists: int, seen: Iterable[int]
    ) -> None:
        self.slices, self.per_slice = slices, hists
        self.slots = MappedArray(maps.pop("slots"), 8, CALLS, writable=True)
        self.hists = MappedArray(maps.pop("hists"), _HIST, slices * hists)
        self.timing = MappedArray(maps.pop("timing"), 64, cpus)
        self.arrays = (self.slots, self.hists, self.timing)
        self._slot_of: dict[int, int] = {}
        self._buckets: dict[tuple[int, int], bytes] = {}
        self._cpus = cpus
        for call in seen:
            self._assign(call)

    def read(self, called: Iterable[int], totals: Totals) -> None:
        """Add the durations of the calls that were made."""
        if totals.latency is None:
            totals.latency = {}
        for call in called:
            slot = self._slot_of.get(call) or self._assign(call)
            if slot is not None:
                self._read_histogram(call, slot, totals)
        totals.missed = sum(
            struct.unpack_from("=Q", self.timing.memory, cpu * 64)[0] for cpu in range(self._cpus)
        )

    def close(self) -> None:
        """Unmap everything."""
        for array in self.arrays:
            array.close()

    def _assign(self, call: int) -> int | None:
        slot = len(self._slot_of) + 1
        if call in self._slot_of or slot >= self.per_slice:
            return self._slot_of.get(call)
        self._slot_of[call] = slot
        struct.pack_into("=Q", self.slots.memory, call * 8, slot)
        return slot

    def _read_histogram(self, call: int, slot: int, totals: Totals) -> None:
        assert totals.latency is not None
        name = totals.names[call]
        old = totals.latency.get(name) or Histogram({}, 0, 0)
        buckets: dict[int, int] | None = None
        total = 0
        for piece in range(self.slices):
            at = (piece * self.per_slice + slot) * self.hists.stride
            data = self.hists.memory[at : at + _HIST]
            total += struct.unpack_from("=Q", data)[0]
            before = self._buckets.get((slot, piece))
            if before == data:
                continue
            self._buckets[slot, piece] = data
            buckets = dict(old.buckets) if buckets is None else buckets
            _add_buckets(buckets, before or bytes(_HIST), data)
        if buckets is not None:
            totals.latency[name] = Histogram(buckets, sum(buckets.values()), total)


def _add_buckets(buckets: dict[int, int], before: bytes, data: bytes) -> None:
    """Add what grew between two readings, looking only into the stretches that differ."""
    for at in range(16, _HIST, 128):
        if before[at : at + 128] == data[at : at + 128]:
            continue
        first = (at - 16) // 4
        old, new = (struct.unpack_from("=32I", raw, at) for raw in (before, data))
        for offset in range(32):
            grown = (new[offset] - old[offset]) & 0xFFFFFFFF
            if grown:
                buckets[first + offset] = buckets.get(first + offset, 0) + grown
