# SPDX-License-Identifier: Apache-2.0
"""Made-up, repeatable counters: what a machine with any number of CPUs would count."""

from __future__ import annotations

from collections.abc import Mapping
from math import sin

from probes.core.readings import Reading
from probes.core.sample import Cost
from probes.pmc.sample import CpuTimes, PmcSample, TaskTimes
from tests.pilot.fake_latency import wobble

SETS = {
    "base": ("cycles", "instructions", "cache-misses", "branches", "branch-misses"),
    "cache": (
        "cycles",
        "instructions",
        "cache-references",
        "cache-misses",
        "L1-dcache-load-misses",
        "LLC-load-misses",
    ),
    "branch": ("cycles", "instructions", "branches", "branch-misses"),
    "stalls": (
        "cycles",
        "instructions",
        "stalled-cycles-frontend",
        "stalled-cycles-backend",
        "bus-cycles",
    ),
    "tlb": ("cycles", "instructions", "dTLB-loads", "dTLB-load-misses", "iTLB-load-misses"),
    "custom": ("cycles", "instructions", "r01b1", "my-event"),
}
PER_INSTRUCTION = {
    "cache-misses": 0.004,
    "cache-references": 0.03,
    "branches": 0.19,
    "branch-misses": 0.004,
    "L1-dcache-load-misses": 0.02,
    "LLC-load-misses": 0.003,
    "bus-cycles": 0.01,
    "dTLB-loads": 0.3,
    "dTLB-load-misses": 0.0008,
    "iTLB-load-misses": 0.0001,
    "r01b1": 0.7,
    "my-event": 0.001,
}
"""How often an event happens for each instruction; much more often in whoever waits."""
STALLS = {"stalled-cycles-frontend": 0.12, "stalled-cycles-backend": 0.5}
NO_PMU = "this machine has no hardware counters, as most virtual machines (ENOENT from the kernel)"
TICK = 1_000_000_000


class FakePmc:
    """Counters that go on, of processes that are the busier the earlier they are named."""

    def __init__(self, comms: Mapping[int, str], cpus: int = 8, sockets: int = 1) -> None:
        self.comms = dict(comms)
        self.cpus, self.sockets = cpus, sockets
        self.hardware = True
        self.share = 1.0
        self.never: frozenset[str] = frozenset()
        self.absent: dict[str, str] = {}
        self.set = "base"
        self.mode = "all"
        self.generation = 1
        self._tasks: dict[int, list[int]] = {}
        self._readings: dict[tuple[int, str], list[int]] = {}
        self._cpu_times: dict[int, list[int]] = {}
        self._cpu_readings: dict[tuple[int, str], list[int]] = {}

    def option(self, name: str, value: str) -> None:
        """As the probe's own options: another event set, another mode."""
        if name == "set":
            self.set = value
        elif name == "mode":
            self.mode = value
        self.generation += 1
        for counts in (self._tasks, self._readings, self._cpu_times, self._cpu_readings):
            counts.clear()

    @property
    def events(self) -> tuple[str, ...]:
        """What is counted, in the order of showing."""
        wanted = SETS[self.set] if self.hardware else ()
        return (*[event for event in wanted if event not in self.absent], "page-faults")

    def _add(
        self, into: dict[tuple[int, str], list[int]], key: int, clock: int, ipc: float, enabled: int
    ) -> None:
        cycles = int(clock * 2.9)
        for event in self.events:
            reading = into.setdefault((key, event), [0, 0, 0])
            share = 1.0 if event == "page-faults" else self.share
            value = _happened(event, cycles, ipc)
            if event in self.never:
                share = 0.0
            reading[0] += int(value * share)
            reading[1] += enabled
            reading[2] += int(enabled * share)

    def sample(self, tick: int) -> PmcSample:
        """The cumulative counters after one more interval of a second."""
        for at, pid in enumerate(self.comms):
            if (tick + at) % 11 == 0 and at > 6:
                continue
            clock = int(0.9 * TICK * self.cpus / (at + 2) ** 1.7 * wobble(tick, at))
            ipc = (0.41, 1.9, 0.82, 2.6, 1.2)[at % 5] * (1 + 0.15 * sin((tick + at) / 7))
            task = self._tasks.setdefault(pid, [0, 0, 0, 0])
            switches = max(1, int(clock / 400_000 * wobble(tick, at + 1)))
            for place, more in enumerate((clock, switches, switches // 90, clock // (9 + at))):
                task[place] += more
            self._add(self._readings, pid, clock, ipc, clock)
        for cpu in range(self.cpus):
            busy = int(TICK * _load(cpu, tick))
            times = self._cpu_times.setdefault(cpu, [0, 0, 0, 0])
            for place, more in enumerate((busy, TICK - busy, busy // 350_000 + 20, busy // 12)):
                times[place] += more
            ipc = 0.35 + 1.9 * ((cpu * 7 + tick // 9) % 10) / 10
            self._add(self._cpu_readings, cpu, busy, ipc, TICK)
        return self._sample()

    def _sample(self) -> PmcSample:
        return PmcSample(
            state="on",
            generation=self.generation,
            cost=Cost(sum([t[2] for t in self._cpu_times.values()]), 231.0, 0.37, 2_097_152),
            hardware=self.hardware,
            reason=None if self.hardware else NO_PMU,
            event_set=self.set,
            mode=self.mode,  # type: ignore[arg-type]
            events=self.events,
            absent=self.absent if self.hardware else dict.fromkeys(SETS[self.set], NO_PMU),
            tasks={pid: TaskTimes(*task) for pid, task in self._tasks.items()},
            readings={key: Reading(*reading) for key, reading in self._readings.items()},
            cpus={cpu: CpuTimes(*times) for cpu, times in self._cpu_times.items()},
            cpu_readings={key: Reading(*reading) for key, reading in self._cpu_readings.items()},
            comms=dict(self.comms),
            sockets={cpu: cpu * self.sockets // self.cpus for cpu in range(self.cpus)},
        )


def _load(cpu: int, tick: int) -> float:
    """How busy a CPU is: some hardly, some all the time."""
    base = (0.93, 0.42, 0.07, 0.61, 0.001, 0.28, 1.0, 0.15)[(cpu * 5) % 8]
    return min(1.0, base * wobble(tick, cpu))


def _happened(event: str, cycles: int, ipc: float) -> float:
    waits = 4.0 if ipc < 0.6 else 1.0
    if event == "cycles":
        return cycles
    if event == "instructions":
        return cycles * ipc
    if event in STALLS:
        return cycles * min(0.9, STALLS[event] / ipc)
    if event == "page-faults":
        return cycles // 9_000_000
    return cycles * ipc * PER_INSTRUCTION[event] * waits
