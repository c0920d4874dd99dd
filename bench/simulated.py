# SPDX-License-Identifier: Apache-2.0
"""Probes over maps that this process writes itself: a machine of any size, without a kernel.

Layouts are those of include/rows.h, include/hist.h and the programs. Nothing is compiled,
attached or measured by the kernel, and no privilege is needed.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from probes.bpf import peaks
from probes.bpf.layouts import CPU, HANDOVER
from probes.bpf.plan import Loaded
from probes.bpf.row_table import ROW_SIZE
from probes.core import histogram
from probes.core.syscall_names import name_of
from probes.latency import probe as latency
from probes.latency.probe import LatencyProbe
from probes.pmc import probe as pmc
from probes.pmc.probe import ARRAY, PmcProbe
from probes.syscalls import probe as syscalls
from probes.syscalls.probe import SyscallProbe
from probes.syscalls.reader import CALLS, ERRNOS

WORDS = CPU.size // 8
"""Words of a CPU before its counters."""
CONTROL, TOUCHED, HIST = 4096, 64, 32 + 4 * histogram.BUCKETS
CALLED = (0, 1, 7, 9, 20, 39, 44, 45, 202, 232)
"""System calls that the simulated processes make, each one of them."""
_ROW = struct.Struct("=QQIIQ16s")
START = 64
"""When all processes started, as the rows have it."""
_WORDS = struct.Struct("=QQ")


class Maps:
    """Maps as memory that both sides see: `memory` is written here, `fds` go to a reader."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.fds: dict[str, int] = {}
        self.memory: dict[str, mmap.mmap] = {}
        for name, size in sizes.items():
            pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
            self.fds[name] = os.memfd_create(name)
            os.ftruncate(self.fds[name], pages)
            self.memory[name] = mmap.mmap(self.fds[name], pages)

    def lent(self) -> dict[str, int]:
        """Descriptors of its own for a reader, which takes them."""
        return {name: os.dup(fd) for name, fd in self.fds.items()}

    def __del__(self) -> None:
        for fd in self.fds.values():
            os.close(fd)

    @property
    def epoch(self) -> int:
        """The epoch that the reader has begun."""
        return int(struct.unpack_from("=Q", self.memory["control"], 8)[0])


class Rows:
    """A table of rows for each CPU, and what programs note of the rows that they change."""

    def __init__(self, maps: Maps, cpus: int, per_cpu: int, stride: int) -> None:
        self.maps, self.cpus, self.per_cpu, self.stride = maps, cpus, per_cpu, stride

    def add(self, changes: Sequence[tuple[int, int, int]], words: Sequence[int]) -> None:
        """One change of each (row index, process, what): its count, and what it has beyond."""
        memory, epoch = self.maps.memory["rows"], self.maps.epoch
        lists: dict[int, list[int]] = {}
        wide = struct.Struct(f"={len(words)}Q")
        for index, pid, what in changes:
            at = index * self.stride
            count, total = _WORDS.unpack_from(memory, at)
            key = pid << 32 | (what + 1)
            name = b"worker-%d" % (pid % 100)
            _ROW.pack_into(memory, at, count + 3, total + 1_000_000, epoch, START, key, name)
            old = wide.unpack_from(memory, at + ROW_SIZE)
            wide.pack_into(memory, at + ROW_SIZE, *map(int.__add__, old, words))
            lists.setdefault(index // self.per_cpu, []).append(index)
        for cpu, entries in lists.items():
            self._note(cpu, epoch, entries)

    def _note(self, cpu: int, epoch: int, entries: Sequence[int]) -> None:
        side, base = epoch & 1, cpu * TOUCHED
        at = 8 * (2 * cpu + side) * self.per_cpu
        struct.pack_into(f"={len(entries)}Q", self.maps.memory["lists"], at, *entries)
        struct.pack_into("=I", self.maps.memory["touched"], base + 4 * side, epoch)
        struct.pack_into("=I", self.maps.memory["touched"], base + 8 + 4 * side, len(entries))

    def places(self, processes: int) -> list[tuple[int, int]]:
        """A row for each process, spread over all CPUs: (index, process id)."""
        return [(n % self.cpus * self.per_cpu + n // self.cpus, 1000 + n) for n in range(processes)]


def row_maps(cpus: int, per_cpu: int, stride: int) -> dict[str, int]:
    """Sizes of the maps of rows, in bytes, and of the control page."""
    return {
        "control": CONTROL,
        "rows": cpus * per_cpu * stride,
        "touched": cpus * TOUCHED,
        "lists": 16 * cpus * per_cpu,
        "crowded": 4 * mmap.PAGESIZE,
    }


class Syscalls:
    """The system-call probe, each of whose `processes` makes calls of one kind."""

    def __init__(self, cpus: int, processes: int) -> None:
        sizes = syscalls.geometry(cpus)
        self.maps = Maps({
            **row_maps(cpus, sizes["PT_ROWS"], ROW_SIZE),
            "others": 16 * sizes["PT_OTHERS"] * CALLS,
            "errnos": 8 * CALLS * ERRNOS,
        })  # fmt: skip
        self.rows = Rows(self.maps, cpus, sizes["PT_ROWS"], ROW_SIZE)
        self.places = self.rows.places(processes)
        self.probe = SyscallProbe()
        self._facts: dict[str, Any] = {**sizes, "latency": False}
        self.adopt()
        assert name_of(CALLED[0], False, "x86_64") == "read"

    def adopt(self) -> None:
        """The probe takes the maps over."""
        self.probe.adopt(Loaded(self._facts, self.maps.lent()))

    def work(self, active: int) -> None:
        """So many processes make calls."""
        kinds = len(CALLED)
        self.rows.add([(i, pid, CALLED[pid % kinds]) for i, pid in self.places[:active]], ())


class Counters:
    """The counter probe with four hardware events; every CPU is at work."""

    EVENTS = ("cycles", "instructions", "cache-misses", "branch-misses")

    def __init__(self, cpus: int, processes: int) -> None:
        slots = len(self.EVENTS)
        sizes = pmc.geometry(cpus, slots)
        self.stride, self.cpu_words = ROW_SIZE + 8 * (3 + 2 * slots), WORDS + 3 * slots
        self.maps = Maps({
            **row_maps(cpus, sizes["PT_ROWS"], self.stride),
            "cpus": cpus * 8 * self.cpu_words,
            "handover": cpus * HANDOVER.size,
            "delays": 4096,
            ARRAY: 4096,
        })  # fmt: skip
        self.rows = Rows(self.maps, cpus, sizes["PT_ROWS"], self.stride)
        self.places = self.rows.places(processes)
        self.probe = PmcProbe()
        self._facts: dict[str, Any] = {
            **sizes,
            "wish": ["base", "all", []],
            "events": list(self.EVENTS),
            "hardware": True,
            "reason": None,
            "absent": {},
            "partly": {},
            "online": "0",
            "wait": True,
        }
        self.adopt()

    def adopt(self) -> None:
        """The probe takes the maps over."""
        self.probe.adopt(Loaded(self._facts, self.maps.lent()))

    def work(self, active: int) -> None:
        """So many processes had a CPU."""
        ran = 1_000_000
        words = [500, 2, 0, *[n for _ in self.EVENTS for n in (3_000_000, ran)]]
        self.rows.add([(i, pid, 0) for i, pid in self.places[:active]], words)
        memory, each = self.maps.memory["cpus"], struct.Struct(f"={self.cpu_words}Q")
        gained = [1_000_000_000, 400_000_000, 600_000_000, 900, 5000, 9]
        gained += [0] * (WORDS - len(gained))
        gained += [n for _ in self.EVENTS for n in (2_000_000_000, 10**9, 10**9)]
        for cpu in range(self.rows.cpus):
            at = cpu * each.size
            each.pack_into(memory, at, *map(int.__add__, each.unpack_from(memory, at), gained))


class Latency:
    """The latency probe with many targets; processes call them in turn."""

    def __init__(self, cpus: int, processes: int, targets: int) -> None:
        sizes = latency.geometry(cpus, targets)
        self.targets, self.sizes = targets, sizes
        self.maps = Maps({
            **row_maps(cpus, sizes["PT_ROWS"], ROW_SIZE),
            "hists": sizes["PT_SLICES"] * sizes["PT_HISTS"] * HIST,
            "peaks": cpus * sizes["PT_HISTS"] * peaks.SIZE,
            "stacks": 4096,
            "empty": 4096,
            "pairs": 4096,
        })  # fmt: skip
        self.rows = Rows(self.maps, cpus, sizes["PT_ROWS"], ROW_SIZE)
        self.places = self.rows.places(processes)
        specs = [f"uprobe:libc:function_{n}" for n in range(targets)]
        self.probe = LatencyProbe()
        self.probe.set_option("targets", specs)
        about = [self._about(slot, spec) for slot, spec in enumerate(specs)]
        self._facts = {**sizes, "targets": about, "errors": []}
        self.adopt()

    def adopt(self) -> None:
        """The probe takes the maps over."""
        self.probe.adopt(Loaded(self._facts, self.maps.lent()))

    @staticmethod
    def _about(slot: int, spec: str) -> dict[str, Any]:
        return {
            "slot": slot, "spec": spec, "mechanism": "uprobe", "functions": 1, "floor": "uprobe",
            "counts_only": False, "countable": False, "unit": "ns", "by_text": False,
            "foreign": False, "watches": False, "why": None, "fix": None,
        }  # fmt: skip

    def work(self, active: int) -> None:
        """So many processes call targets, all of them if there are enough processes."""
        self.rows.add([(i, pid, pid % self.targets) for i, pid in self.places[:active]], ())
        memory = self.maps.memory["hists"]
        slices, slots = self.sizes["PT_SLICES"], self.sizes["PT_HISTS"]
        for piece in range(slices):
            for slot in range(min(active, self.targets)):
                at = (piece * slots + slot) * HIST
                total, count = _WORDS.unpack_from(memory, at)
                _WORDS.pack_into(memory, at, total + 40_000, count + 20)
                for bucket in range(slot + 200, slot + 220):
                    place = at + 32 + 4 * bucket
                    (old,) = struct.unpack_from("=I", memory, place)
                    struct.pack_into("=I", memory, place, old + 1)
