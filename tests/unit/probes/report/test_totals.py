# SPDX-License-Identifier: Apache-2.0
"""What a recording counted: the same as all of its Frames added up one by one, or Unusual."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import convert

from probes.core.errors import ProbeError
from probes.core.frame import Filters, Frame, Host
from probes.core.readings import Reading
from probes.core.sample import Counts, Histogram, Sample
from probes.execs.sample import ExecEvent, ExecSample, ExitEvent
from probes.latency.sample import LatencySample, Spent, Target
from probes.pmc.sample import CpuTimes, PmcSample, TaskTimes
from probes.recording.file import Writer
from probes.report import summary
from probes.sums.counter_tables import Unusual, only_rises
from probes.sums.record_fields import TIMED
from probes.syscalls import totals
from probes.syscalls.sample import SyscallSample
from tests.paths import ROOT
from tui.commands import diff_input
from tui.commands.figures import Figure, Key


@pytest.fixture(autouse=True)
def _every_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames that are close to each other are compared all the same."""
    monkeypatch.setattr(summary, "SPACING", 0.0)


DEMO = ROOT / "tui" / "demo" / "shop.ptrec"
NAMES = ("read", "write", "futex", "openat")
HOST = Host("web-3", "6.18.1", "x86_64", 2)


class Machine:
    """Probes whose counters rise at random; each method is something that happens to them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.mono, self.last_pid = 100.0, 500
        self.pids: set[int] = set()
        self.samples: dict[str, Sample] = {}
        # Recordings of earlier versions do not.
        self.tells_seconds = bool(seed % 3)
        self.filters = Filters()
        for name in ("syscalls", "execs", "latency", "pmc"):
            self.toggle(name)
        for _ in range(5):
            self.start()

    def toggle(self, name: str) -> None:
        """Switch a probe on or off."""
        kind: Any = {
            "syscalls": SyscallSample, "execs": ExecSample, "latency": LatencySample,
            "pmc": PmcSample,
        }[name]  # fmt: skip
        old = self.samples.get(name)
        if old is None or old.state != "on":
            self.generations = getattr(self, "generations", 0) + 1
            more: dict[str, Any] = {"generation": self.generations}
            if name == "pmc":
                more["events"] = ("cycles", "instructions", "page-faults")
            if name == "latency":
                more["targets"] = {"runq": Target(spec="runq", state="on")}
            if name == "syscalls" and self.random.random() < 0.7:
                more["latency"] = {}
            self.samples[name] = kind(state="on", **more)
        else:
            self.samples[name] = kind(state="off")

    def start(self) -> None:
        """A process starts."""
        self.last_pid += 1
        self.pids.add(self.last_pid)

    def end(self) -> None:
        """A process ends, and its rows are gone."""
        if len(self.pids) > 1:
            pid = self.random.choice(sorted(self.pids))
            self.pids.remove(pid)
            self.forget(pid)

    def forget(self, pid: int) -> None:
        """The rows of a process are gone; if it lives, they count from zero."""
        for name, sample in self.samples.items():
            if isinstance(sample, SyscallSample):
                rows = {k: v for k, v in sample.matrix.items() if k[0] != pid}
                self.change(name, matrix=rows)
            if isinstance(sample, PmcSample):
                readings = {k: v for k, v in sample.readings.items() if k[0] != pid}
                tasks = {k: v for k, v in sample.tasks.items() if k != pid}
                comms = {k: v for k, v in sample.comms.items() if k != pid}
                self.change(name, tasks=tasks, readings=readings, comms=comms)

    def reuse(self) -> None:
        """A process's rows begin anew, its number stays."""
        self.forget(self.random.choice(sorted(self.pids)))

    def retarget(self) -> None:
        """A target is added, or removed."""
        sample = self.samples["latency"]
        if isinstance(sample, LatencySample) and sample.state == "on":
            targets = dict(sample.targets)
            if "blockio" in targets:
                del targets["blockio"]
            else:
                began = sample.counted or 0.0
                targets["blockio"] = Target(spec="blockio", state="on", began=began)
            self.change("latency", targets=targets)

    def filter(self) -> None:
        """Other filters."""
        self.filters = Filters(uid=self.random.choice((None, 0, 1000)))

    def change(self, name: str, **fields: Any) -> None:

        self.samples[name] = replace(self.samples[name], **fields)

    def more(self, histogram: Histogram) -> Histogram:
        """A histogram with some calls more."""
        buckets, n, total = dict(histogram.buckets), histogram.n, histogram.total
        for _ in range(self.random.randrange(20)):
            bucket = self.random.randrange(300, 330)
            buckets[bucket] = buckets.get(bucket, 0) + 1
            n, total = n + 1, total + 1000
        return Histogram(buckets, n, total)

    def work(self) -> None:
        """What all that runs counts in an interval."""
        for name, sample in self.samples.items():
            if sample.state != "on":
                continue
            if isinstance(sample, SyscallSample):
                self._call(sample)
            elif isinstance(sample, ExecSample):
                self._execute(sample)
            elif isinstance(sample, LatencySample):
                targets = {spec: self._timed(target) for spec, target in sample.targets.items()}
                spent = {("runq", pid): Spent(3, 1000) for pid in self.pids}
                self.change(name, targets=targets, processes=spent)
            elif isinstance(sample, PmcSample):
                self._run(sample)

    def _timed(self, target: Target) -> Target:

        return replace(target, histogram=self.more(target.histogram))

    def _call(self, sample: SyscallSample) -> None:
        calls, matrix = dict(sample.calls), dict(sample.matrix)
        for pid in self.pids:
            name = self.random.choice(NAMES)
            n, errors = self.random.randrange(1, 1000), self.random.randrange(2)
            both: list[tuple[Any, Any]] = [(calls, name), (matrix, (pid, name))]
            for table, key in both:
                old = table.get(key, Counts(0, 0))
                table[key] = Counts(old.n + n, old.errors + errors)
        latency = sample.latency
        if latency is not None:
            nothing = Histogram({}, 0, 0)
            latency = {name: self.more(latency.get(name, nothing)) for name in calls}
        self.change("syscalls", calls=calls, matrix=matrix, latency=latency)

    def _execute(self, sample: ExecSample) -> None:
        events: list[ExecEvent | ExitEvent] = []
        for pid in sorted(self.pids)[-2:]:
            if self.random.random() < 0.3:
                path = self.random.choice(("/bin/sh", "/bin/ls", "/sbin/ip"))
                ret = self.random.choice((0, 0, -2))
                events.append(
                    ExecEvent(time=self.mono, pid=pid, ppid=1, uid=0, comm=path[-2:], parent="init",
                              args=(path, "\u00e4"), truncated=False, ret=ret, cgroup="/",
                              path=path)
                )  # fmt: skip
            elif self.random.random() < 0.3:
                events.append(
                    ExitEvent(time=self.mono, pid=pid, comm="sh", exit_code=1, signal=0, duration=5)
                )
        self.change("execs", events=tuple(events), execs=sample.execs + len(events))

    def _run(self, sample: PmcSample) -> None:
        tasks, readings, comms = dict(sample.tasks), dict(sample.readings), dict(sample.comms)
        cpus = dict(sample.cpus)
        for pid in self.pids:
            if self.random.random() < 0.6:
                clock = self.random.randrange(1, 10**8)
                old = tasks.get(pid, TaskTimes(0, 0, 0, None))
                tasks[pid] = TaskTimes(old.clock + clock, old.switches + 1, old.migrations, None)
                for event in sample.events:
                    was = readings.get((pid, event), Reading(0, 0, 0))
                    numbers = (was.value + clock, was.enabled + clock, was.running + clock // 2)
                    readings[pid, event] = Reading(*numbers)
                comms[pid] = f"worker-{pid % 3}"
        for cpu in (0, 1):
            was_cpu = cpus.get(cpu, CpuTimes(0, 0, 0, 0))
            cpus[cpu] = CpuTimes(
                was_cpu.busy + 10**7, was_cpu.idle + 10**8, was_cpu.switches + 1, 5
            )
        self.change("pmc", tasks=tasks, readings=readings, comms=comms, cpus=cpus)

    def frame(self) -> Frame:
        """The next Frame."""
        passed = self.random.choice((0.1, 0.1, 1.0))
        self.mono += passed
        self.work()
        if self.tells_seconds:
            for name, sample in self.samples.items():
                if sample.state == "on":
                    # One that was attached within the interval counted for a part of it.
                    part = passed if sample.counted else passed * self.random.random()
                    self.change(name, counted=(sample.counted or 0.0) + part)
        return Frame(
            time=1.7e9 + self.mono, mono=self.mono, interval=0.1, host=HOST,
            filters=self.filters, samples=dict(self.samples),
        )  # fmt: skip


def write(path: Path, machine: Machine, frames: int, *happens: Callable[[], None]) -> Path:
    """A recording in which one of these happens before some Frames."""
    with Writer(path) as writer:
        for _ in range(frames):
            if happens and machine.random.random() < 0.4:
                machine.random.choice(happens)()
            writer.write(machine.frame())
    return path


def figures(run: Any) -> tuple[Any, ...]:
    """What `diff` compares of a summary."""
    return diff_input._figures(convert(run, diff_input.summary_type()))


def close(one: Figure | None, other: Figure | None) -> bool:
    """Whether figures are the same but for the order in which seconds were added up."""
    if one is None or other is None:
        return False
    return all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(one, other, strict=True))


def assert_same(path: Path) -> dict[Key, Figure]:
    """Both ways find the same, which is returned."""
    head, seconds, found, closed = figures(diff_input._totalled(str(path)))
    other, damage = diff_input._added_up(str(path))
    other_head, other_seconds, wanted, other_closed = figures(other)
    assert damage is None
    assert {**head, "seconds": 0} == {**other_head, "seconds": 0}
    assert math.isclose(head["seconds"], other_head["seconds"], rel_tol=1e-9)
    assert seconds == pytest.approx(other_seconds, rel=1e-9)
    assert closed == other_closed
    pairs = {key: (found.get(key), wanted.get(key)) for key in {**found, **wanted}}
    assert {key: pair for key, pair in pairs.items() if not close(*pair)} == {}
    return dict(wanted)


def test_a_real_machine() -> None:
    assert len(assert_same(DEMO)) > 400


@pytest.mark.parametrize("seed", range(12))
def test_all_that_happens_on_a_machine(tmp_path: Path, seed: int) -> None:
    """Processes start and end, probes go off and on, targets come and go, filters change."""
    machine = Machine(seed)
    happens: list[Callable[[], None]] = [machine.start, machine.start, machine.end, machine.end]
    happens += [machine.retarget, machine.filter]

    def off_and_on() -> None:
        name = machine.random.choice(list(machine.samples))
        machine.toggle(name)

    path = write(tmp_path / "a.ptrec", machine, 200, *happens, off_and_on)
    found = assert_same(path)
    assert {key.what for key in found} == {"syscall", "program", "target", "process", "machine"}


@pytest.mark.parametrize("seed", range(4))
def test_rows_that_begin_anew(tmp_path: Path, seed: int) -> None:
    machine = Machine(seed)
    assert_same(write(tmp_path / "a.ptrec", machine, 130, machine.reuse, machine.start))


def twice_in_an_interval(machine: Machine) -> None:
    for name in ("syscalls", "syscalls"):
        machine.toggle(name)
    machine.work()


def target_again(machine: Machine) -> None:
    machine.change("latency", targets={"runq": Target(spec="runq", state="on")})


def back_in_time(machine: Machine) -> None:
    machine.mono -= 5


@pytest.mark.parametrize("happens", [twice_in_an_interval, target_again, back_in_time])
def test_what_is_unusual_is_read_frame_by_frame(
    tmp_path: Path, happens: Callable[[Machine], None]
) -> None:
    machine = Machine(1)
    with Writer(tmp_path / "a.ptrec") as writer:
        for _ in range(20):
            writer.write(machine.frame())
        happens(machine)
        for _ in range(20):
            writer.write(machine.frame())
    path = str(tmp_path / "a.ptrec")
    with pytest.raises(Unusual):
        diff_input._totalled(path)
    found = diff_input.load(path)
    assert (found.damage, found.figures) == (None, figures(diff_input._added_up(path)[0])[2])


def test_what_a_whole_record_has_is_not_decoded_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 121 records three are whole, and the changes before them are in them."""
    decoded: list[bytes] = []

    class Counting:
        def decode(self, data: bytes) -> Any:
            decoded.append(bytes(data))
            return TIMED.decode(data)

    monkeypatch.setattr(totals, "TIMED", Counting())
    path = write(tmp_path / "a.ptrec", Machine(1), 121)
    diff_input._totalled(str(path))
    assert 3 <= len(decoded) < 10
    assert_same(path)


@pytest.mark.parametrize(
    ("data", "rises"),
    [
        (b'[["read"],[[1,2]]]', True),
        (b'[["read"],[[1,2]],["write"]]', False),
        (b'[["read"],[[-1,2]]]', False),
        (b"[[1],[[1,2,3,null]]]", False),
        (b"[[1],[[1,2]],[5]]", False),
        (b'[[[1,"a"]],[[1,2,3]],[[5,"a"]]]', False),
        (b'[["read"],[[1,2]],["write"] ]', False),
        (b"", False),
    ],
)
def test_what_may_wait_is_told_without_decoding(data: bytes, rises: bool) -> None:
    assert only_rises(data) == rises


def test_damage_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ptrec", Machine(1), 130)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(Unusual):
        diff_input._totalled(str(path))
    assert "damaged in 1 place" in (diff_input.load(str(path)).damage or "")


def test_two_large_recordings_are_read_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diff_input, "LARGE", 100)
    path = str(write(tmp_path / "a.ptrec", Machine(1), 10))
    a, b = diff_input.load_both(str(DEMO), path)
    assert a.figures == diff_input.load(str(DEMO)).figures
    assert b.figures == diff_input.load(path).figures
    (tmp_path / "no").write_text("no recording" * 50)
    for first, second in ((str(tmp_path / "no"), path), (path, str(tmp_path / "no"))):
        with pytest.raises(ProbeError, match="no snapshot"):
            diff_input.load_both(first, second)
