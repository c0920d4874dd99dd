# SPDX-License-Identifier: Apache-2.0
"""The counter probe from maps to Samples, with a kernel played as pmc.bpf.c has it."""

from __future__ import annotations

import mmap
import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from probes.bpf.plan import Loaded
from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.frame import Frame, Host
from probes.core.readings import Reading
from probes.pmc import probe as pmc
from probes.pmc import process_rows
from probes.pmc import reader as pmc_rows
from probes.pmc.probe import PmcProbe, geometry
from probes.pmc.sample import CpuTimes, PmcSample, TaskTimes
from probes.pmc.view import pmc_view
from probes.recording.codec import FrameCodec
from tests.paths import PROBES

CPUS, ROWS = 2, 16
SOURCE = (PROBES / "pmc" / "pmc.bpf.c").read_text()
FIELDS = re.findall(r"u64 (\w+);", SOURCE.partition("struct cpu {")[2].partition("};")[0])


def test_the_layout_is_the_programs() -> None:
    assert f"#define KEPT {process_rows.KEPT}" in SOURCE
    assert f"#define RAN {pmc_rows.RAN}" in SOURCE
    assert f"#define MIGRATED {pmc_rows.MIGRATED}" in SOURCE
    order = re.findall(r"row->wide\[(\d)\] \+= g->(\w+);", SOURCE)
    assert order == [("0", "wait"), ("1", "faults"), ("2", "major")]


@pytest.mark.parametrize("cpus", [1, 2, 3, 16, 64, 128, 256, 1024])
def test_tables_stay_small(cpus: int) -> None:
    sizes = geometry(cpus, 8)
    rows = sizes["PT_ROWS"]
    assert rows & (rows - 1) == 0
    assert 256 <= rows <= 4096
    assert rows * cpus * (64 + 8 * 19) <= max(64 << 10, 256 * cpus) * 216


class Kernel:
    """The maps of one load, and what programs put into them."""

    def __init__(self, events: tuple[str, ...], mode: str = "all", **facts: Any) -> None:
        self.events = events
        self.row_size = 64 + 8 * (3 + 2 * len(events))
        self.cpu_size = 8 * (17 + 3 * len(events))
        sizes = {
            "control": 4096,
            "handover": 4096,
            "cpus": CPUS * self.cpu_size,
            "rows": CPUS * ROWS * self.row_size,
            "touched": CPUS * 64,
            "lists": CPUS * 2 * 8 * ROWS,
            "crowded": 4 * mmap.PAGESIZE,
        }
        self.maps = {name: os.memfd_create(name) for name in sizes}
        for name, size in sizes.items():
            os.ftruncate(self.maps[name], -(-size // 4096) * 4096)
        self.facts = {
            "PT_CPUS": CPUS,
            "PT_ROWS": ROWS,
            "PT_SLOTS": len(events),
            "wish": ["base", mode, []],
            "events": list(events),
            "hardware": bool(events),
            "reason": None if events else "no PMU",
            "absent": {},
            "partly": {},
            "online": "0-1",
            "wait": True,
            **facts,
        }

    def loaded(self) -> Loaded:
        return Loaded(self.facts, {name: os.dup(fd) for name, fd in self.maps.items()})

    def word(self, offset: int) -> int:
        return int(struct.unpack("=Q", os.pread(self.maps["control"], 8, offset))[0])

    def _add(self, name: str, at: int, words: Mapping[int, int]) -> None:
        for word, more in words.items():
            place = at + 8 * word
            (old,) = struct.unpack("=Q", os.pread(self.maps[name], 8, place))
            os.pwrite(self.maps[name], struct.pack("=Q", old + more), place)

    def ran(
        self, cpu: int, row: int, pid: int, ns: int, *, switches: int = 1, wait: int = 0,
        faults: int = 0, counts: Mapping[str, tuple[int, int]] | None = None, what: int = 0,
    ) -> None:  # fmt: skip
        """A process had a CPU: value and running of each counter in `counts`."""
        index, epoch = cpu * ROWS + row, self.word(8)
        at = index * self.row_size
        gains = {0: switches, 1: ns, 8: wait, 9: faults}
        for event, (value, running) in (counts or {}).items():
            slot = self.events.index(event)
            gains |= {11 + 2 * slot: value, 12 + 2 * slot: running}
        self._add("rows", at, gains)
        key = pid << 32 | (what + 1)
        os.pwrite(self.maps["rows"], struct.pack("=I4xQ16s", epoch, key, b"name\0junk"), at + 16)
        base = cpu * 64
        side = epoch & 1
        head = list(struct.unpack("=4I", os.pread(self.maps["touched"], 16, base)))
        if head[side] != epoch & 0xFFFFFFFF:
            head[side], head[2 + side] = epoch & 0xFFFFFFFF, 0
        entry = 8 * ((2 * cpu + side) * ROWS + head[2 + side])
        os.pwrite(self.maps["lists"], struct.pack("=Q", index), entry)
        head[2 + side] += 1
        os.pwrite(self.maps["touched"], struct.pack("=4I", *head), base)

    def cpu(self, cpu: int, counts: Mapping[str, Reading] | None = None, **fields: int) -> None:
        """What a CPU's words gain."""
        gains = {FIELDS.index(name): more for name, more in fields.items()}
        for event, reading in (counts or {}).items():
            slot = self.events.index(event)
            gains |= {17 + 3 * slot + at: more for at, more in enumerate(reading)}
        self._add("cpus", cpu * self.cpu_size, gains)

    def close(self) -> None:
        for fd in self.maps.values():
            os.close(fd)


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Iterator[PmcProbe]:
    monkeypatch.setattr(kernel, "online_cpus", lambda: [0, 1])
    monkeypatch.setattr(pmc, "kinds", lambda: {0: "cpu_core", 1: "cpu_atom"})
    monkeypatch.setattr(pmc, "sockets", lambda: {0: 0, 1: 0})
    real = kernel.read_text
    monkeypatch.setattr(
        kernel, "read_text", lambda path: "0-1" if path == pmc.ONLINE else real(path)
    )
    made = PmcProbe()
    yield made
    made.release()


def sample(probe: PmcProbe) -> PmcSample:
    found = probe.read(1.0)
    assert isinstance(found, PmcSample)
    return found


def test_charges_become_a_sample(probe: PmcProbe) -> None:
    played = Kernel(("cycles", "instructions"))
    played.cpu(0, {"cycles": Reading(1000, 900, 900)}, busy=5)  # before it was adopted
    probe.adopt(played.loaded())
    assert played.word(0) == 1
    first = sample(probe)
    assert (first.state, first.event_set, first.mode) == ("on", "base", "all")
    assert first.events == ("cycles", "instructions", "page-faults", "major-faults")
    assert (first.tasks, first.cpus) == ({}, {})
    counts = {"cycles": (100, 40), "instructions": (50, 20)}
    played.ran(0, 3, 7, 40, wait=9, faults=2, counts=counts)
    played.ran(1, 5, 7, 60, switches=0, counts={"cycles": (30, 6)})
    played.ran(1, 6, 7, 0, switches=4, what=1)
    played.cpu(
        0, {"cycles": Reading(200, 90, 45)}, busy=40, idle=50, switches=2, faults=2, shared=1
    )
    found = sample(probe)
    assert found.tasks == {7: TaskTimes(100, 1, 4, 9)}
    assert found.comms == {7: "name"}
    assert found.readings == {
        (7, "cycles"): Reading(130, 100, 46),
        (7, "instructions"): Reading(50, 100, 20),
        (7, "page-faults"): Reading(2, 100, 100),
        (7, "major-faults"): Reading(0, 100, 100),
    }
    assert found.cpus == {0: CpuTimes(40, 50, 2, 0)}
    assert found.cpu_readings[0, "cycles"] == Reading(200, 90, 45)
    assert found.cpu_readings[0, "page-faults"] == Reading(2, 90, 90)
    assert found.kinds == {0: "cpu_core", 1: "cpu_atom"}
    again = sample(probe)
    assert again.readings[7, "cycles"] is found.readings[7, "cycles"]
    played.close()


def test_counters_that_nobody_shares_have_the_cpus_time(probe: PmcProbe) -> None:
    played = Kernel(("cycles",))
    probe.adopt(played.loaded())
    # Values are read at each switch, times by the timer only.
    played.cpu(0, {"cycles": Reading(0, 5, 5)}, shared=1)
    sample(probe)
    played.cpu(0, {"cycles": Reading(200, 0, 0)}, busy=40, idle=10, shared=-1)
    assert sample(probe).cpu_readings[0, "cycles"] == Reading(200, 50, 50)
    played.cpu(0, {"cycles": Reading(20, 70, 70)}, busy=30, shared=3)
    assert sample(probe).cpu_readings[0, "cycles"] == Reading(220, 80, 80)
    played.cpu(0, {"cycles": Reading(0, 30, 0)}, busy=30)
    assert sample(probe).cpu_readings[0, "cycles"] == Reading(220, 110, 80)
    played.close()


def test_a_counter_that_a_cpu_has_not_is_unknown_there(probe: PmcProbe) -> None:
    played = Kernel(("cycles", "slots"))
    probe.adopt(played.loaded())
    played.cpu(0, {"cycles": Reading(5, 9, 9)}, busy=40)
    played.cpu(1, {"cycles": Reading(5, 9, 9), "slots": Reading(1, 9, 9)}, busy=40)
    found = sample(probe).cpu_readings
    assert (0, "slots") not in found
    assert found[1, "slots"] == Reading(1, 40, 40)
    played.close()


def test_another_set_keeps_what_it_shares_and_the_rest_of_the_old(probe: PmcProbe) -> None:
    old, new = Kernel(("cycles", "branches")), Kernel(("cycles", "cache-misses"))
    probe.adopt(old.loaded())
    old.ran(0, 1, 7, 10, counts={"cycles": (5, 10), "branches": (3, 10)})
    first = sample(probe)
    old.ran(0, 1, 7, 20, counts={"cycles": (6, 20)})  # not read yet
    assert probe.set_option("set", "cache")
    assert probe.params()["set"] == "cache"
    assert sample(probe).event_set == "base"
    new.facts["wish"] = ["cache", "all", []]
    probe.adopt(new.loaded())
    assert (old.word(0), new.word(0)) == (0, 1)
    new.ran(0, 1, 7, 30, counts={"cycles": (7, 30), "cache-misses": (1, 30)})
    found = sample(probe)
    assert found.generation == first.generation
    assert found.event_set == "cache"
    assert found.tasks[7] == TaskTimes(60, 3, 0, 0)
    assert found.readings[7, "cycles"] == Reading(18, 60, 60)
    assert found.readings[7, "cache-misses"] == Reading(1, 30, 30)
    assert (7, "branches") not in found.readings
    old.close()
    new.close()


def test_another_mode_begins_anew(probe: PmcProbe) -> None:
    old, new = Kernel(("cycles",)), Kernel(("cycles",), mode="user")
    probe.adopt(old.loaded())
    old.ran(0, 1, 7, 10, counts={"cycles": (5, 10)})
    first = sample(probe)
    assert probe.set_option("mode", "user")
    assert not probe.set_option("mode", "user")
    probe.adopt(new.loaded())
    found = sample(probe)
    assert (found.mode, found.tasks) == ("user", {})
    assert found.generation == first.generation + 1
    old.close()
    new.close()


def test_without_run_delay_waiting_is_unknown(probe: PmcProbe) -> None:
    played = Kernel((), wait=False)
    probe.adopt(played.loaded())
    played.ran(0, 1, 7, 10, wait=5)
    played.cpu(0, busy=10, wait=5)
    found = sample(probe)
    assert found.tasks[7].wait is None
    assert found.cpus[0].wait is None
    assert not found.hardware
    assert found.reason == "no PMU"
    played.close()


def test_cpus_that_went_are_let_go_and_asked_for(
    probe: PmcProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Kernel(()), Kernel((), online="0")
    probe.adopt(first.loaded())
    first.cpu(0, busy=10, switches=3)
    first.cpu(1, busy=20, switches=4)
    assert set(sample(probe).cpus) == {0, 1}
    asked = [probe.meter.outdated]
    monkeypatch.setattr(kernel, "online_cpus", lambda: [0])
    monkeypatch.setattr(kernel, "read_text", lambda path: "0")
    sample(probe)
    asked.append(probe.meter.outdated)
    probe.adopt(second.loaded())
    asked.append(probe.meter.outdated)
    assert asked == [False, True, False]
    found = sample(probe)
    assert found.cpus == {0: CpuTimes(10, 0, 3, 0)}
    assert found.cost.events == 7
    first.close()
    second.close()


def test_a_handover_brings_no_cpu_back(probe: PmcProbe, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new programs are told since when each CPU is charged, those that went as well."""
    first, second = Kernel(()), Kernel((), online="0")
    probe.adopt(first.loaded())
    for cpu in (0, 1):
        first.cpu(cpu, time=100, tid=7, busy=5)
    assert set(sample(probe).cpus) == {0, 1}
    monkeypatch.setattr(kernel, "online_cpus", lambda: [0])
    probe.adopt(second.loaded())
    assert set(sample(probe).cpus) == {0}
    # What the programs take over: time, what was seen here, thread.
    times = struct.unpack("=3Q", os.pread(second.maps["handover"], 24, 0))
    assert times == (100, 0, 7)
    first.close()
    second.close()


def test_what_fails_goes_on_as_before(probe: PmcProbe) -> None:
    assert not probe.refuse("no", "way")
    played = Kernel(("cycles",))
    probe.adopt(played.loaded())
    probe.set_option("events", ["r1a8"])
    assert probe.params() == {"set": "custom", "mode": "all", "events": ["r1a8"]}
    assert probe.refuse("the kernel says no", "go away")
    assert probe.params() == {"set": "base", "mode": "all", "events": []}
    assert sample(probe).notes == ("the kernel says no: go away",)
    played.close()


def test_what_only_some_cpus_count_is_noted(probe: PmcProbe) -> None:
    played = Kernel(("cycles",), partly={"cycles": "not on CPU 1: because"})
    probe.adopt(played.loaded())
    assert sample(probe).notes == ("cycles is not on CPU 1: because",)
    played.close()


def test_the_dead_are_forgotten_and_the_idle_stays(probe: PmcProbe) -> None:
    played = Kernel(("cycles",))
    probe.adopt(played.loaded())
    gone = 1 << 23  # beyond what any process is numbered
    played.ran(0, 1, gone, 10, counts={"cycles": (1, 10)})
    played.ran(0, 2, 0, 10)
    played.ran(0, 3, os.getpid(), 10)
    for now in (1.0, 12.0, 23.0):
        assert gone in probe.read(now).tasks
    found = probe.read(34.0)
    assert set(found.tasks) == {0, os.getpid()}
    assert {pid for pid, _ in found.readings} == {0, os.getpid()}
    assert found.comms[0] == "idle"
    played.close()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("set", "custom"),
        ("set", "x"),
        ("set", 3),
        ("mode", "all "),
        ("events", "r1"),
        ("sets", "base"),
    ],
)
def test_wrong_options(probe: PmcProbe, option: str, value: object) -> None:
    with pytest.raises(ProbeError):
        probe.set_option(option, value)
    assert probe.params() == {"set": "base", "mode": "all", "events": []}


def test_the_users_own_events_are_a_set_to_come_back_to(probe: PmcProbe) -> None:
    assert probe.set_option("events", ["r1a8,cycles"])
    assert probe.set_option("set", "tlb")
    assert probe.set_option("set", "custom")
    assert probe.params() == {"set": "custom", "mode": "all", "events": ["r1a8", "cycles"]}


def as_decoded(found: PmcSample) -> PmcSample:
    """The Sample with mappings like those of a recording."""
    names = ("tasks", "readings", "cpus", "cpu_readings", "comms")
    decoded: dict[str, Any] = {name: dict(getattr(found, name)) for name in names}
    return replace(found, **decoded)


def two_samples(probe: PmcProbe, played: Kernel) -> tuple[PmcSample, PmcSample]:
    """One process goes on, one rests, one begins, one is only moved; the idle one as well."""
    probe.adopt(played.loaded())
    for pid in (0, 7, 8):
        played.ran(0, pid, pid, 10 + pid, counts={"cycles": (5 + pid, 10)})
    played.cpu(0, {"cycles": Reading(20, 30, 30)}, busy=30)
    first = sample(probe)
    played.ran(0, 7, 7, 20, wait=3, faults=1, counts={"cycles": (6, 20)})
    played.ran(1, 1, 7, 5, counts={"cycles": (2, 5)})
    played.ran(1, 2, 9, 50, counts={"cycles": (90, 25)})
    played.ran(1, 3, 10, 0, switches=2, what=1)
    played.ran(0, 0, 0, 99)
    played.cpu(0, {"cycles": Reading(40, 30, 15)}, busy=30, shared=1)
    return first, sample(probe)


@pytest.mark.parametrize("shared", [True, False])
def test_integers_say_what_decoded_mappings_do(probe: PmcProbe, shared: bool) -> None:
    played = Kernel(("cycles",))
    first, second = two_samples(probe, played)
    if not shared:
        second = replace(second, cpu_readings={(0, "cycles"): Reading(60, 60, 60)})
    seen = pmc_view(first, second, 1.0)
    wanted = pmc_view(as_decoded(first), as_decoded(second), 1.0)
    assert [(row.number, row.clock, row.switches, row.wait, row.migrations, dict(row.counts))
            for row in seen.processes] == [
        (row.number, row.clock, row.switches, row.wait, row.migrations, dict(row.counts))
        for row in wanted.processes
    ]  # fmt: skip
    assert {row.number for row in seen.processes} == {7, 9, 10}
    assert (seen.machine, seen.cpus) == (wanted.machine, wanted.cpus)
    played.close()


def test_integers_are_recorded_as_decoded_mappings_are(probe: PmcProbe) -> None:
    played = Kernel(("cycles",))
    first, second = two_samples(probe, played)
    frames = [
        Frame(time=1.0, mono=1.0, interval=1.0, host=Host(), samples={"pmc": one})
        for one in (first, second, as_decoded(first), as_decoded(second))
    ]
    codec = FrameCodec()
    assert codec.encode(frames[0]) == codec.encode(frames[2])
    assert codec.encode(frames[1], frames[0]) == codec.encode(frames[3], frames[2])
    assert codec.decode(codec.encode(frames[0])) == frames[2]
    played.close()


def test_a_process_that_was_counted_with_other_events_has_both(probe: PmcProbe) -> None:
    """Also one that rests since then, and what is not known of it stays unknown."""
    old, new = Kernel(("cycles",)), Kernel(("cycles", "branches"))
    probe.adopt(old.loaded())
    for pid in (7, 8):
        old.ran(0, pid, pid, 10, counts={"cycles": (5, 10)})
    new.facts["wish"] = ["other", "all", []]
    probe.adopt(new.loaded())
    new.ran(0, 1, 7, 30, counts={"cycles": (1, 30), "branches": (2, 30)})
    found = sample(probe)
    assert found.tasks == {7: TaskTimes(40, 2, 0, 0), 8: TaskTimes(10, 1, 0, 0)}
    assert found.readings[7, "cycles"] == Reading(6, 40, 40)
    assert found.readings[7, "branches"] == Reading(2, 30, 30)
    assert found.readings[8, "cycles"] == Reading(5, 10, 10)
    assert (8, "branches") not in found.readings
    old.close()
    new.close()
