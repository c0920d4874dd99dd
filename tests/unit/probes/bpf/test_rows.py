# SPDX-License-Identifier: Apache-2.0
"""Reading row tables and histograms, with a kernel played by the test as rows.h has it."""

from __future__ import annotations

import mmap
import os
import random
import re
import struct
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from probes.bpf import control_page as control_of
from probes.bpf import histograms, peaks
from probes.bpf.control_page import Control
from probes.bpf.histograms import Histograms, slices_for
from probes.bpf.row_table import ROW_MAPS, RowTable, name_of_comm
from probes.core import histogram, process_keys
from probes.core.process_keys import MOST_KNOWN, Processes, pid_of
from probes.core.safe_text import raw_of
from probes.core.sample import NO_HISTOGRAM, Histogram
from tests.paths import INCLUDE

CPUS, ROWS, WAYS, REST = 2, 8, 8, 2
ROW, TOUCHED = 64, 64
HEADERS = INCLUDE


def test_layouts_are_the_headers() -> None:
    text = (HEADERS / "rows.h").read_text()
    assert int(re.search(r"#define PT_WAYS (\d+)", text)[1]) == WAYS  # type: ignore[index]
    assert f"(epoch - row->epoch) >= {REST}" in text
    assert f"#define PT_INDEX_BITS {process_keys.INDEX_BITS}\n" in text
    assert f"bpf_ktime_get_ns() >> {process_keys.NOTED_SHIFT} << PT_INDEX_BITS" in text
    text = (HEADERS / "hist.h").read_text()
    assert f"#define PT_ROUNDS {peaks.ROUNDS}\t" in text
    assert re.search(r"struct peaks \{\n\tstruct peak of\[PT_ROUNDS\];.*\n\};", text)
    assert "u32 place = slot * PT_CPUS + cpu;" in text


class Kernel:
    """The maps, and `event` as the programs' pt_row: the same choice of rows, the same lists."""

    def __init__(self) -> None:
        self.fds = {name: os.memfd_create(name) for name in (*ROW_MAPS, "control")}
        os.ftruncate(self.fds["rows"], -(-CPUS * ROWS * ROW // 4096) * 4096)
        for name in ("touched", "lists", "control"):
            os.ftruncate(self.fds[name], 4096)
        self.control = Control(os.dup(self.fds["control"]))
        os.ftruncate(self.fds["crowded"], 4 * mmap.PAGESIZE)
        self.table = RowTable({name: os.dup(self.fds[name]) for name in ROW_MAPS}, CPUS, ROWS)
        self.processes = Processes()
        self.time = 0
        assert control_of.SIZE <= 4096

    def close(self) -> None:
        self.control.close()
        self.table.close()
        for fd in self.fds.values():
            os.close(fd)

    def event(
        self, cpu: int, pid: int, what: int, spent: int, comm: bytes = b"a", start: int = 64
    ) -> bool:
        """One event; False if it found no row."""
        epoch, key = self.control.epoch, pid << 32 | (what + 1)
        spots = [cpu * ROWS + (pid * 7 + what + way) % ROWS for way in range(WAYS)]
        known = [self.row(spot) for spot in spots]
        own = [spot for spot, row in zip(spots, known, strict=True) if row[2:6:3] == (key, start)]
        free = [
            spot
            for spot, row in zip(spots, known, strict=True)
            if not row[2] or epoch - row[3] >= REST
        ]
        if not own and not free:
            at = cpu * TOUCHED + 16
            (others,) = struct.unpack("=Q", os.pread(self.fds["touched"], 8, at))
            os.pwrite(self.fds["touched"], struct.pack("=Q", others + 1), at)
            return False
        spot = (own or free)[0]
        count, total, old, at_epoch, name, started = self.row(spot)
        if (old, started) != (key, start) or at_epoch != epoch:
            self.touch(cpu, spot, epoch)
            name = comm
        row = struct.pack("=QQIIQ16s16x", count + 1, total + spent, epoch, start, key, name)
        os.pwrite(self.fds["rows"], row, spot * ROW)
        return True

    def row(self, spot: int) -> tuple[int, int, int, int, bytes, int]:
        data = os.pread(self.fds["rows"], 48, spot * ROW)
        count, total, epoch, start, key, comm = struct.unpack("=QQIIQ16s", data)
        return count, total, key, epoch, comm, start

    def touch(self, cpu: int, spot: int, epoch: int) -> None:
        base, side = cpu * TOUCHED, epoch & 1
        head = list(struct.unpack("=4I", os.pread(self.fds["touched"], 16, base)))
        if head[side] != epoch:
            head[side], head[2 + side] = epoch, 0
        at = 8 * ((2 * cpu + side) * ROWS + head[2 + side])
        self.time += 1
        os.pwrite(self.fds["lists"], struct.pack("=Q", self.time << 24 | spot), at)
        head[2 + side] += 1
        os.pwrite(self.fds["touched"], struct.pack("=4I", *head), base)

    def changes(self) -> list[tuple[int, int, int, int, bytes]]:
        """Process, what it does, count and sum added, and the name of each row that changed."""
        found: list[tuple[int, int, int, int, bytes]] = []
        self.table.renumber(self.processes)
        for noted in self.table.lists(self.control):
            left = self.table.meet(self._add(noted, found), self.processes)
            self.table.look_again(self._add(left, found))
        return found

    def _add(self, noted: list[int], found: list[tuple[int, int, int, int, bytes]]) -> list[int]:
        left: list[int] = []
        for entry, row, (count, total, owner, _) in self.table.read(noted):
            if row is None or row.owner != owner or count == row.count:
                left.append(entry)
            else:
                added = count - row.count, total - row.total
                row.count, row.total = count, total
                found.append((row.process, row.what, *added, row.name))
        return left


@pytest.fixture
def played() -> Iterator[Kernel]:
    made = Kernel()
    # The programs count from the first epoch on, which is not 0: rows of epoch 0 are free.
    for _ in range(REST):
        made.control.next_epoch()
    yield made
    made.close()


def test_what_was_added_comes_once(played: Kernel) -> None:
    for _ in range(5):
        assert played.event(0, 100, 3, 10, b"one")
    assert played.event(1, 100, 3, 7, b"one")
    found = played.changes()
    assert sorted(change[:4] for change in found) == [(100, 3, 1, 7), (100, 3, 5, 50)]
    assert {name_of_comm(change[4]) for change in found} == {"one"}
    assert played.changes() == []
    played.event(0, 100, 3, 1)
    assert [change[:4] for change in played.changes()] == [(100, 3, 1, 1)]


def test_events_between_the_readings_are_not_lost(played: Kernel) -> None:
    """A row that is in the list already goes on counting after its list was read."""
    played.event(0, 1, 0, 1)
    first = played.changes()
    played.event(0, 1, 0, 2)
    # Now it is in the new epoch's list; the old one's must not bring it twice.
    assert [change[2:4] for change in first + played.changes()] == [(1, 1), (1, 2)]


@pytest.mark.parametrize("late", range(1, 5))
def test_entries_that_are_counted_before_they_are_written_are_read_later(
    played: Kernel, late: int
) -> None:
    """Programs of interrupts run within one that has taken its place, and not filled it."""
    epoch = played.control.epoch
    for pid in range(1, 7):
        played.event(0, pid, 0, 10)
    at = 8 * ((epoch & 1) * ROWS + 6 - late)
    entries = os.pread(played.fds["lists"], 8 * late, at)
    os.pwrite(played.fds["lists"], bytes(8 * late), at)
    first = [change[0] for change in played.changes()]
    os.pwrite(played.fds["lists"], entries, at)
    found = first + [change[0] for change in played.changes()]
    assert sorted(found) == list(range(1, 7))


def test_a_full_table_says_so(played: Kernel) -> None:
    for pid in range(1, ROWS + 1):
        assert played.event(0, pid, 0, 1)
    assert not played.event(0, 999, 0, 1)
    played.changes()
    assert played.table.others == {0}
    # Once more, for what the counter says may rise before the row's own.
    played.changes()
    assert played.table.others == {0}
    played.changes()
    assert played.table.others == set()


def test_a_row_that_rested_has_a_new_owner(played: Kernel) -> None:
    for pid in range(1, ROWS + 1):
        played.event(0, pid, 0, 1)
    for _ in range(REST):
        played.changes()
    assert played.event(0, 999, 5, 4)
    assert [change[:4] for change in played.changes()] == [(999, 5, 1, 4)]


def test_a_pid_that_is_used_again_in_the_same_epoch_is_another_process(played: Kernel) -> None:
    for start, comm, times in ((64, b"alpha", 5), (128, b"beta", 3)):
        for _ in range(times):
            assert played.event(0, 100, 0, 10, comm, start)
    first, second = played.changes()
    assert (first[0], first[2:5]) == (100, (5, 50, b"alpha".ljust(16, b"\0")))
    assert (pid_of(second[0]), second[2:5]) == (100, (3, 30, b"beta".ljust(16, b"\0")))
    assert second[0] != first[0]
    played.event(0, 100, 0, 1, b"beta", 128)
    assert [change[0] for change in played.changes()] == [second[0]]


def test_the_name_that_was_noted_last_comes_last(played: Kernel) -> None:
    """A new program begins on another CPU: its rows there have the name that is right now."""
    played.event(1, 100, 0, 1, b"shell")
    played.event(0, 100, 1, 1, b"program")
    names = [name_of_comm(change[4]) for change in played.changes()]
    assert names == ["shell", "program"]


def test_a_process_that_was_forgotten_has_the_same_new_number_in_all_rows(played: Kernel) -> None:
    """A row that was seen before does not keep the number that others do not know any more."""
    played.event(0, 7, 0, 1)
    (first,) = [change[0] for change in played.changes()]
    played.processes.numbers.update({n << 32 | 64: n for n in range(100, 100 + MOST_KNOWN)})
    played.processes.forget(())
    played.event(0, 7, 0, 1)
    played.event(1, 7, 0, 1)
    numbers = [change[0] for change in played.changes()]
    assert numbers[0] == numbers[1] != first


def test_a_row_without_a_start_is_of_the_newest_process_each_time(played: Kernel) -> None:
    played.event(0, 7, 0, 1, start=64)
    played.event(0, 7, 1, 1, start=0)
    assert {change[0] for change in played.changes()} == {7}
    played.event(0, 7, 0, 1, start=128)
    (second,) = [change[0] for change in played.changes()]
    played.event(0, 7, 1, 1, start=0)
    assert [change[:3] for change in played.changes()] == [(second, 1, 1)]
    assert second != 7


def test_keys_that_are_forgotten_are_given_anew(played: Kernel) -> None:
    played.event(0, 7, 0, 1)
    played.changes()
    row = played.table._seen[next(iter(played.table._seen))]
    row.key = "somebody's"
    played.table.forget_keys()
    assert row.key is None


@pytest.mark.parametrize("seed", range(20))
def test_sums_are_exact_at_any_time_of_reading(played: Kernel, seed: int) -> None:
    chance = random.Random(seed)
    truth: Counter[tuple[int, int]] = Counter()
    spent: Counter[tuple[int, int]] = Counter()
    found: Counter[tuple[int, int]] = Counter()
    total: Counter[tuple[int, int]] = Counter()
    lost = 0

    def read() -> None:
        for pid, what, count, ns, _ in played.changes():
            found[pid, what] += count
            total[pid, what] += ns

    for _ in range(2000):
        if chance.random() < 0.05:
            read()
            continue
        key = (chance.randrange(1, 12), chance.randrange(2))
        ns = chance.randrange(1000)
        if played.event(chance.randrange(CPUS), *key, ns):
            truth[key] += 1
            spent[key] += ns
        else:
            lost += 1
    read()
    read()
    assert +found == +truth
    assert +total == +spent
    assert lost + sum(truth.values()) > 1500


def test_slices() -> None:
    assert [slices_for(n) for n in (1, 2, 3, 4, 5, 16, 17, 512)] == [1, 2, 4, 4, 8, 16, 16, 16]


def test_names_of_processes() -> None:
    assert name_of_comm(b"bash\0garbage\0\0\0\0") == "bash"
    assert name_of_comm(b"x" * 16) == "x" * 16
    assert name_of_comm(b"\xff\xfe\0") == "\\xff\\xfe"
    assert raw_of(name_of_comm(b"\xff\xfe\0")) == b"\xff\xfe"


class Hists:
    """A map of histograms that the test writes."""

    def __init__(self, slices: int, slots: int) -> None:
        self.slices, self.slots = slices, slots
        self.fd = os.memfd_create("hists")
        self.stride = -(-histograms._HIST_SIZE // 8) * 8
        size = -(-self.stride * slices * slots // 4096) * 4096
        os.ftruncate(self.fd, size)
        self.reader = Histograms(os.dup(self.fd), slices, slots)

    def add(self, piece: int, slot: int, ns: int, times: int = 1) -> None:
        base = (piece * self.slots + slot) * self.stride
        total, count = struct.unpack("=2Q", os.pread(self.fd, 16, base))
        os.pwrite(self.fd, struct.pack("=2Q", total + ns * times, count + times), base)
        at = base + 32 + 4 * histogram.index(ns)
        (old,) = struct.unpack("=I", os.pread(self.fd, 4, at))
        os.pwrite(self.fd, struct.pack("=I", old + times & 0xFFFFFFFF), at)

    def put(self, piece: int, slot: int, missed: int, overflow: int) -> None:
        base = (piece * self.slots + slot) * self.stride
        os.pwrite(self.fd, struct.pack("=2Q", missed, overflow), base + 16)

    def close(self) -> None:
        self.reader.close()
        os.close(self.fd)


@pytest.fixture
def hists() -> Iterator[Hists]:
    made = Hists(slices=4, slots=3)
    yield made
    made.close()


def test_slices_are_summed_and_slots_are_apart(hists: Hists) -> None:
    for piece in range(4):
        hists.add(piece, 1, 1000, 10)
        hists.add(piece, 2, 50 + piece)
    found = hists.reader.read(1, NO_HISTOGRAM)
    assert found == Histogram({histogram.index(1000): 40}, 40, 40_000)
    other = hists.reader.read(2, NO_HISTOGRAM)
    assert (other.n, other.total) == (4, 206)
    assert hists.reader.read(0, NO_HISTOGRAM) is NO_HISTOGRAM or not hists.reader.counters()[0][0]


def test_what_did_not_change_is_the_same_object(hists: Hists) -> None:
    hists.add(0, 0, 123)
    first = hists.reader.read(0, NO_HISTOGRAM)
    assert hists.reader.read(0, first) is first
    hists.add(3, 0, 1 << 43)
    second = hists.reader.read(0, first)
    assert second.n == 2
    # A Sample may be kept: the one before is as it was.
    assert first == Histogram({histogram.index(123): 1}, 1, 123)


def test_every_bucket_arrives(hists: Hists) -> None:
    lows = [histogram.bounds(bucket)[0] for bucket in range(histogram.BUCKETS)]
    for low in lows:
        hists.add(0, 1, low)
    found = hists.reader.read(1, NO_HISTOGRAM)
    assert found.buckets == dict.fromkeys(range(histogram.BUCKETS), 1)
    assert found.total == sum(lows)


def test_a_bucket_of_32_bits_goes_round(hists: Hists) -> None:
    hists.add(0, 1, 5, 0xFFFFFFF0)
    first = hists.reader.read(1, NO_HISTOGRAM)
    hists.add(0, 1, 5, 0x20)
    assert hists.reader.read(1, first).n == 0xFFFFFFF0 + 0x20


def test_what_grew_in_all_parts_by_more_than_one_bucket_of_the_sum_holds(hists: Hists) -> None:
    """Summed as they are, the parts would spill over into the next bucket."""
    grown = [0x0FFFFFFF, 0x10000000, 0x7FFFFFFF, 0xFFFFFFFF]
    found = NO_HISTOGRAM
    for times in (1, 2, 3):
        for piece, n in enumerate(grown):
            hists.add(piece, 2, 77, n)
            hists.add(piece, 2, 1 << 20, n >> 4)
        found = hists.reader.read(2, found)
        wanted = [sum(grown) * times, sum(n >> 4 for n in grown) * times]
        assert found.buckets == dict(zip(map(histogram.index, (77, 1 << 20)), wanted, strict=True))


def test_counters(hists: Hists) -> None:
    hists.add(0, 1, 5, 3)
    hists.add(2, 1, 5, 4)
    hists.put(1, 1, missed=10, overflow=100)
    hists.put(3, 1, missed=1, overflow=2)
    assert hists.reader.counters() == [(0, 0, 0), (7, 11, 102), (0, 0, 0)]
    # Its owner may close the memory itself.
    hists.reader.array.close()


def test_stores_that_show_in_another_order_are_not_lost(hists: Hists) -> None:
    """A bucket that rises after the sums did is found by the reading after that."""
    hists.add(2, 1, 1000)
    first = hists.reader.read(1, NO_HISTOGRAM)
    base = (2 * hists.slots + 1) * hists.stride
    os.pwrite(hists.fd, struct.pack("=2Q", 3000, 2), base)
    second = hists.reader.read(1, first)
    os.pwrite(hists.fd, struct.pack("=I", 2), base + 32 + 4 * histogram.index(1000))
    assert hists.reader.read(1, second) == Histogram({histogram.index(1000): 2}, 2, 3000)


def test_durations_beyond_all_earlier_ones_are_found_in_every_part(hists: Hists) -> None:
    """A slot's first durations are far from its later ones, on CPUs that had some and on others."""
    known, counted = NO_HISTOGRAM, Counter[int]()
    for parts, ns in (((0,), 5_000), ((0, 1), 900_000_000), ((1, 2), 40), ((3,), 1 << 43)):
        for part in parts:
            hists.add(part, 1, ns, times=3)
            counted[histogram.index(ns)] += 3
        hists.add(0, 1, 5_000)
        counted[histogram.index(5_000)] += 1
        known = hists.reader.read(1, known)
        assert known.buckets == counted
        # What changed is read once more, and has nothing new.
        assert hists.reader.read(1, known) is known


def test_a_duration_beyond_all_others_is_found_while_others_are_recorded(
    hists: Hists, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is recorded between reading numbers and buckets does not make up for it."""
    hists.add(0, 1, 1000, 10)
    known = hists.reader.read(1, NO_HISTOGRAM)
    hists.add(0, 1, 1 << 40)
    add_grown = hists.reader._add_grown

    def meanwhile(*args: Any) -> int:
        hists.add(0, 1, 1000)
        return add_grown(*args)

    monkeypatch.setattr(hists.reader, "_add_grown", meanwhile)
    assert histogram.index(1 << 40) in hists.reader.read(1, known).buckets


def test_long_durations_are_found_among_many_others(hists: Hists) -> None:
    """Also where parts have counted so much that they are added up one by one."""
    hists.add(0, 1, 1000, histograms._SMALL)
    known = hists.reader.read(1, NO_HISTOGRAM)
    hists.add(2, 1, 1 << 40)
    hists.add(0, 1, 1000, 3)
    found = hists.reader.read(1, known)
    assert found.buckets == {
        histogram.index(1000): histograms._SMALL + 3,
        histogram.index(1 << 40): 1,
    }
