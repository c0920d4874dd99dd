# SPDX-License-Identifier: Apache-2.0
"""Reading the system-call probe's maps, with a kernel played by the test."""

from __future__ import annotations

import mmap
import os
import re
import struct
from collections.abc import Iterator

import pytest

from probes.bpf import peaks
from probes.bpf.control_page import Control
from probes.core import histogram
from probes.core.sample import NO_COST, Counts, Histogram
from probes.core.syscall_names import BY_SIGSYS, KERNEL_ERRNOS, errno_name
from probes.syscalls import reader as syscall_rows
from probes.syscalls.probe import geometry
from probes.syscalls.reader import (
    CALLS,
    COMPAT,
    ERRNOS,
    UNKNOWN,
    LatencyReader,
    RowReader,
    SyscallTotals,
    call_name,
    errno_of,
)
from tests.paths import PROBES

SOURCE = (PROBES / "syscalls" / "syscalls.bpf.c").read_text()
CELLS = {errno_of(index): index for index in range(ERRNOS)}
"""Where the kernel counts each errno, if the reader is right; test_syscalls.py asks the kernel."""
CPUS, ROWS = 2, 64
READ, WRITE = 0, 1
"""Numbers of the two calls on x86_64, whose names these tests use."""


def test_constants_are_the_sources() -> None:
    found = {name: int(value) for name, value in re.findall(r"#define (\w+)\s+(\d+)\b", SOURCE)}
    assert (found["CALLS"], found["UNKNOWN"], found["ERRNOS"]) == (CALLS, UNKNOWN, ERRNOS)


def test_calls_have_names() -> None:
    assert call_name(READ, "x86_64") == "read"
    assert call_name(COMPAT + 3, "x86_64") == "compat:read"
    assert call_name(510, "x86_64") == "syscall_510"
    assert call_name(UNKNOWN, "x86_64") == "unknown"
    assert call_name(COMPAT + UNKNOWN, "x86_64") == "compat:unknown"
    for arch in ("x86_64", "arm64"):
        names = [call_name(index, arch) for index in range(CALLS)]
        assert len(set(names)) == CALLS


def test_what_seccomp_answers_by_a_signal_has_a_cell() -> None:
    """Behind the errnos: the source writes it there, and it is read from there."""
    assert "e == BY_SIGSYS ? ERRNOS - 2 : ERRNOS - 1" in SOURCE
    assert errno_of(ERRNOS - 2) == BY_SIGSYS
    assert errno_name(BY_SIGSYS) == "SIGSYS"


def test_cells_of_errnos_are_told_apart() -> None:
    """Those with a name have a cell each; the last is of all others."""
    found = [errno_of(index) for index in range(ERRNOS)]
    named = [number for number in found if number is not None]
    assert len(set(named)) == len(named)
    assert found[1:134] == list(range(1, 134))
    assert set(KERNEL_ERRNOS) <= set(named)
    assert found[-1] is None


class Timed:
    """The maps of durations, as the programs write them: two slices, eight slots."""

    SLICES, SLOTS = 2, 8
    SIZE = 32 + 4 * histogram.BUCKETS

    def __init__(self) -> None:
        sizes = {
            "owners": 8 * self.SLOTS,
            "hists": self.SIZE * self.SLICES * self.SLOTS,
            "peaks": peaks.SIZE * self.SLICES * self.SLOTS,
            "control": 4096,
        }
        self.maps = {name: os.memfd_create(name) for name in sizes}
        for name, size in sizes.items():
            os.ftruncate(self.maps[name], -(-size // 4096) * 4096)
        maps = {name: os.dup(fd) for name, fd in self.maps.items()}
        self.control = Control(maps.pop("control"))
        self.reader = LatencyReader(maps, self.SLICES, self.SLOTS, self.SLICES)

    def close(self) -> None:
        self.reader.close()
        self.control.close()
        for fd in self.maps.values():
            os.close(fd)

    def read(self, totals: SyscallTotals, *calls: int) -> None:
        self.reader.read(self.control, calls, totals)

    def owner(self, slot: int, call: int) -> None:
        os.pwrite(self.maps["owners"], struct.pack("=Q", call + 1), 8 * slot)

    def put(self, piece: int, slot: int, bucket: int, count: int, missed: int = 0) -> None:
        """Durations of as many ns as their bucket's number, the first of that bucket."""
        at = self.SIZE * (piece * self.SLOTS + slot)
        total, n, before, _ = struct.unpack("=QQQQ", os.pread(self.maps["hists"], 32, at))
        head = struct.pack("=QQQQ", total + bucket * count, n + count, before + missed, 0)
        os.pwrite(self.maps["hists"], head, at)
        os.pwrite(self.maps["hists"], struct.pack("=I", count), at + 32 + 4 * bucket)
        number = self.control.round
        at = peaks.SIZE * (slot * self.SLICES + piece) + 16 * (number % peaks.ROUNDS)
        peak = struct.pack("=QQ", number, histogram.bounds(bucket)[0])
        os.pwrite(self.maps["peaks"], peak, at)


@pytest.fixture
def timed() -> Iterator[Timed]:
    made = Timed()
    yield made
    made.close()


def test_the_owner_of_a_histogram_is_read(timed: Timed, totals: SyscallTotals) -> None:
    timed.put(0, 0, 0, 0, missed=3)
    timed.owner(1, WRITE)
    timed.put(1, 1, 9, 4, missed=1)
    timed.read(totals, READ, WRITE)
    assert totals.latency == {"write": Histogram({9: 4}, 4, 36, {4: 9})}
    assert totals.missed == 4
    timed.owner(2, READ)
    timed.put(0, 2, 5, 1)
    timed.read(totals, READ)
    assert totals.latency["read"] == Histogram({5: 1}, 1, 5, {1: 5})


def test_two_histograms_of_one_call_add_up(timed: Timed, totals: SyscallTotals) -> None:
    """Two CPUs gave it one each; both count, and again when only one of them has grown."""
    for slot, piece in ((1, 0), (2, 1)):
        timed.owner(slot, READ)
        timed.put(piece, slot, 7, 2)
    timed.read(totals, READ)
    timed.put(1, 2, 8, 3)
    timed.read(totals, READ)
    assert totals.latency == {"read": Histogram({7: 4, 8: 3}, 7, 52, {7: 8})}
    timed.put(0, 1, 6, 1)
    timed.read(totals, READ)
    assert totals.latency["read"].peaks == {7: 8, 8: 6}


def layout(pid: int, call: int) -> int:
    return pid << 32 | (call + 1)


class Kernel:
    """Writes the maps as the BPF program does."""

    def __init__(self, control: Control) -> None:
        sizes = {
            "rows": 64 * CPUS * ROWS,
            "touched": 64 * CPUS,
            "lists": 16 * ROWS * CPUS,
            "crowded": 4 * mmap.PAGESIZE,
            "others": 16 * CPUS * CALLS,
            "errnos": 8 * CALLS * ERRNOS,
        }
        self.control = control
        self.maps = {name: os.memfd_create(name) for name in sizes}
        for name, size in sizes.items():
            os.ftruncate(self.maps[name], -(-size // 4096) * 4096)

    def _add(self, name: str, at: int, code: str, more: int = 1) -> None:
        old = struct.unpack(f"={code}", os.pread(self.maps[name], struct.calcsize(f"={code}"), at))
        os.pwrite(self.maps[name], struct.pack(f"={code}", old[0] + more), at)

    def row(self, cpu: int, index: int, *words: object) -> None:
        """Set a row: calls, errors, key, comm, errno, its count, errno, its count."""
        calls, errors, key, comm, *errs = words
        errs = [*errs, 0, 0, 0, 0][:4]
        data = struct.pack("=QQIIQ16sIIII", calls, errors, self.control.epoch, 0, key, comm, *errs)
        os.pwrite(self.maps["rows"], data, 64 * (cpu * ROWS + index))

    def touch(self, cpu: int, index: int, epoch: int | None = None) -> None:
        """Note that a row changed."""
        epoch = self.control.epoch if epoch is None else epoch
        side, base = epoch & 1, cpu * 64
        (noted,) = struct.unpack("=I", os.pread(self.maps["touched"], 4, base + 4 * side))
        (count,) = struct.unpack("=I", os.pread(self.maps["touched"], 4, base + 8 + 4 * side))
        count = count if noted == epoch else 0
        entry = struct.pack("=Q", cpu * ROWS + index)
        os.pwrite(self.maps["lists"], entry, 8 * ((2 * cpu + side) * ROWS + count))
        os.pwrite(self.maps["touched"], struct.pack("=I", epoch), base + 4 * side)
        os.pwrite(self.maps["touched"], struct.pack("=I", count + 1), base + 8 + 4 * side)

    def other(self, cpu: int, call: int, failed: bool = False) -> None:
        """A call without a row."""
        self._add("touched", cpu * 64 + 16, "Q")
        self._add("others", 16 * (cpu * CALLS + call), "Q")
        self._add("others", 16 * (cpu * CALLS + call) + 8, "Q", int(failed))

    def errno(self, call: int, number: int, more: int = 1) -> None:
        """An error that is counted in the table for all."""
        self._add("errnos", 8 * (call * ERRNOS + CELLS.get(number, ERRNOS - 1)), "Q", more)


@pytest.fixture
def control() -> Iterator[Control]:
    fd = os.memfd_create("control")
    os.ftruncate(fd, 4096)
    made = Control(fd)
    made.next_epoch()
    yield made
    made.close()


@pytest.fixture
def kernel(control: Control) -> Iterator[Kernel]:
    made = Kernel(control)
    yield made
    for fd in made.maps.values():
        os.close(fd)


@pytest.fixture
def reader(kernel: Kernel) -> Iterator[RowReader]:
    made = RowReader({name: os.dup(fd) for name, fd in kernel.maps.items()}, CPUS, ROWS)
    yield made
    made.close()


@pytest.fixture
def totals() -> SyscallTotals:
    return SyscallTotals("x86_64")


def test_rows_of_all_cpus_add_up(
    kernel: Kernel, control: Control, reader: RowReader, totals: SyscallTotals
) -> None:
    for cpu, calls in ((0, 10), (1, 5)):
        kernel.row(cpu, 3, calls, 2, layout(7, READ), b"name\0junk", 11, 2)
        kernel.touch(cpu, 3)
    assert reader.read(control, totals) == {READ}
    assert totals.calls == {"read": Counts(15, 4)}
    assert totals.matrix == {(7, "read"): Counts(15, 4)}
    assert totals.errnos == {("read", "EAGAIN"): 4}
    assert totals.comms == {7: "name"}
    assert totals.count == 15
    assert reader.read(control, totals) == set()
    assert totals.count == 15


def test_only_what_is_new_is_added(
    kernel: Kernel, control: Control, reader: RowReader, totals: SyscallTotals
) -> None:
    for calls, errors in ((10, 1), (25, 4)):
        kernel.row(0, 0, calls, errors, layout(7, WRITE), b"a", 32, errors)
        kernel.touch(0, 0)
        reader.read(control, totals)
    assert totals.calls == {"write": Counts(25, 4)}
    assert totals.errnos == {("write", "EPIPE"): 4}


def test_late_entry_of_the_last_epoch_is_read_once(
    kernel: Kernel, control: Control, reader: RowReader, totals: SyscallTotals
) -> None:
    """A program that read the epoch before it ended, and noted its row after."""
    kernel.row(0, 0, 1, 0, layout(7, READ), b"a")
    kernel.touch(0, 0)
    reader.read(control, totals)
    kernel.row(0, 9, 5, 0, layout(8, READ), b"b")
    kernel.touch(0, 9, epoch=control.epoch - 1)
    reader.read(control, totals)
    reader.read(control, totals)
    assert totals.matrix == {(7, "read"): Counts(1, 0), (8, "read"): Counts(5, 0)}


def test_row_with_a_new_owner_counts_for_it_alone(
    kernel: Kernel, control: Control, reader: RowReader, totals: SyscallTotals
) -> None:
    kernel.row(0, 0, 100, 9, layout(7, READ), b"old", 4, 5, 11, 4)
    kernel.touch(0, 0)
    for _ in range(4):
        reader.read(control, totals)
    # Calls and errors go on, the errnos begin anew.
    kernel.row(0, 0, 103, 11, layout(8, WRITE), b"new", 4, 2)
    kernel.touch(0, 0)
    reader.read(control, totals)
    assert totals.matrix == {(7, "read"): Counts(100, 9), (8, "write"): Counts(3, 2)}
    assert totals.errnos == {
        ("read", "EINTR"): 5,
        ("read", "EAGAIN"): 4,
        ("write", "EINTR"): 2,
    }
    assert totals.comms == {7: "old", 8: "new"}


def test_errno_counts_wrap_at_32_bits(
    kernel: Kernel, control: Control, reader: RowReader, totals: SyscallTotals
) -> None:
    for errors, count in ((2**32 - 1, 2**32 - 1), (2**32 + 4, 4)):
        kernel.row(0, 0, errors, errors, layout(7, READ), b"a", 11, count)
        kernel.touch(0, 0)
        reader.read(control, totals)
    assert totals.errnos == {("read", "EAGAIN"): 2**32 + 4}
    assert totals.calls == {"read": Counts(2**32 + 4, 2**32 + 4)}


def test_calls_without_a_row_are_counted_by_name(
    kernel: Kernel, control: Control, reader: RowReader, totals: SyscallTotals
) -> None:
    kernel.other(0, READ)
    kernel.other(1, READ, failed=True)
    kernel.other(1, COMPAT + 3)
    kernel.errno(READ, 11)
    for _ in range(3):
        reader.read(control, totals)
    assert totals.calls == {"read": Counts(2, 1), "compat:read": Counts(1, 0)}
    assert totals.unattributed == 3
    assert totals.matrix == {}
    assert totals.errnos == {("read", "EAGAIN"): 1}
    kernel.other(1, READ)
    reader.read(control, totals)
    assert (totals.calls["read"], totals.unattributed) == (Counts(3, 1), 4)


def test_shared_errnos(
    kernel: Kernel, control: Control, reader: RowReader, totals: SyscallTotals
) -> None:
    kernel.row(0, 0, 10, 10, layout(7, READ), b"a", 1, 3, 2, 3)
    kernel.touch(0, 0)
    kernel.errno(READ, 512, 2)
    kernel.errno(READ, 3)
    kernel.errno(READ, 4000)
    reader.read(control, totals)
    kernel.row(0, 0, 11, 11, layout(7, READ), b"a", 1, 3, 2, 3)
    kernel.touch(0, 0)
    kernel.errno(READ, 3)
    reader.read(control, totals)
    assert totals.errnos == {
        ("read", "EPERM"): 3,
        ("read", "ENOENT"): 3,
        ("read", errno_name(512)): 2,
        ("read", "ESRCH"): 2,
        ("read", "other"): 1,
    }
    assert sum(totals.errnos.values()) == totals.calls["read"].errors


def test_hostile_names_are_kept(
    kernel: Kernel, control: Control, reader: RowReader, totals: SyscallTotals
) -> None:
    kernel.row(0, 0, 1, 0, layout(7, READ), b"\xff\x1b[31m\0gone")
    kernel.touch(0, 0)
    reader.read(control, totals)
    assert totals.comms == {7: "\\xff\x1b[31m"}


def test_sample_shares_what_did_not_change(
    kernel: Kernel, control: Control, reader: RowReader, totals: SyscallTotals
) -> None:
    pid = os.getpid()
    kernel.row(0, 0, 1, 0, layout(pid, READ), b"a")
    kernel.row(0, 1, 1, 0, layout(pid, WRITE), b"a")
    for index in (0, 1):
        kernel.touch(0, index)
    reader.read(control, totals)
    first = totals.sample(1.0, 0, NO_COST, ())
    kernel.row(0, 1, 5, 0, layout(pid, WRITE), b"a")
    kernel.touch(0, 1)
    reader.read(control, totals)
    second = totals.sample(2.0, 0, NO_COST, ())
    assert first.calls == {"read": Counts(1, 0), "write": Counts(1, 0)}
    assert second.calls == {"read": Counts(1, 0), "write": Counts(5, 0)}
    assert second.matrix[pid, "read"] is first.matrix[pid, "read"]


def test_processes_that_are_gone_are_forgotten_and_totals_stay(totals: SyscallTotals) -> None:
    pid, dead = os.getpid(), 2**22 + 1
    for owner in (pid, dead):
        totals.matrix[owner, "read"] = Counts(3, 0)
        totals.comms[owner] = "x"
    totals.add_calls("read", 6, 0)
    now = 1000.0
    assert dead in totals.sample(now, 0, NO_COST, ()).comms
    for _ in range(3):
        now += syscall_rows.FORGET_EVERY
        sample = totals.sample(now, 0, NO_COST, ())
    assert sample.matrix == {(pid, "read"): Counts(3, 0)}
    assert sample.comms == {pid: "x"}
    assert sample.calls == {"read": Counts(6, 0)}


def test_many_that_are_gone_are_forgotten_sooner_but_not_at_once(totals: SyscallTotals) -> None:
    dead = range(2**22 + 1, 2**22 + 1 + syscall_rows.MANY_ROWS)
    for pid in (os.getpid(), *dead):
        totals.matrix[pid, "read"] = Counts(1, 0)
        totals.comms[pid] = "x"
    now, kept = 1000.0, []
    for _ in range(3):
        kept.append(len(totals.sample(now, 0, NO_COST, ()).matrix))
        now += syscall_rows.FORGET_SOON
    assert kept == [len(dead) + 1, len(dead) + 1, 1]


def test_remembered_pairs_are_bounded(
    totals: SyscallTotals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syscall_rows, "MOST_ROWS", 100)
    for number in range(1000):
        totals.matrix[number, "read"] = Counts(1, 0)
        totals.comms[number] = "x"
    totals.active = set(range(1000))
    # What is forgotten was told before.
    assert len(totals.sample(0.0, 0, NO_COST, ()).matrix) == 1000
    sample = totals.sample(0.1, 0, NO_COST, ())
    assert 0 < len(sample.matrix) <= 100
    assert (999, "read") in sample.matrix
    assert sample.comms.keys() == {pid for pid, _ in sample.matrix}


def test_what_finds_no_row_is_counted_once_where_cpus_share_a_slice(
    monkeypatch: pytest.MonkeyPatch, kernel: Kernel, control: Control, totals: SyscallTotals
) -> None:
    monkeypatch.setattr(syscall_rows, "slices_of_others", lambda cpus: 1)
    reader = RowReader({name: os.dup(fd) for name, fd in kernel.maps.items()}, CPUS, ROWS)
    for cpu in range(CPUS):
        kernel._add("touched", cpu * 64 + 16, "Q")
        kernel._add("others", 16 * READ, "Q")
    reader.read(control, totals)
    reader.read(control, totals)
    assert totals.calls == {"read": Counts(CPUS, 0)}
    assert totals.unattributed == CPUS
    reader.close()


@pytest.mark.parametrize("cpus", [1, 2, 3, 16, 100, 256, 512, 1024, 4096])
def test_maps_grow_slower_than_the_number_of_cpus(cpus: int) -> None:
    sizes = geometry(cpus)
    rows, others = sizes["PT_ROWS"], sizes["PT_OTHERS"]
    size = cpus * (rows * (64 + 16) + 64) + others * CALLS * 16
    assert rows & (rows - 1) == others & (others - 1) == 0
    assert others >= min(cpus, 256)
    # As much as each CPU had when it had a table of its own for everything.
    assert cpus < 1024 or size <= cpus * (1024 * (64 + 16) + CALLS * 16) / 2
