# SPDX-License-Identifier: Apache-2.0
"""What bursts of the counter probe saw, and what that stands for; see `probes.core.estimates`.

A burst is charged in full on each CPU: its part there begins and ends where `on_edge` of
`pmc.bpf.c` ran, so that busy and idle time together are how long it was. The rows of processes,
CPUs and the machine are estimated by quantity. Time on a CPU, and what hardware counts while a
CPU runs, fill the time however much of it is spent in tracing; of switches, migrations and page
faults a program that is slowed down by being traced makes fewer, which `probes.budget.slowdown`
adds.

Instructions a cycle are a ratio of two counts of the same bursts, which needs no scaling. Its
error comes from how far each burst's instructions are from what its cycles let expect: the
residuals of the ratio estimator. Their variance is kept under the quantity IPC.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import add
from typing import Any

from msgspec.structs import replace

from probes.budget.burst_sums import BurstSums, Pair, Span
from probes.budget.slowdown import NOT_SLOWED, UNKNOWN, Slowdown, slowdown, together
from probes.core.sample import Estimate
from probes.ipc.messages import BurstReport
from probes.pmc.process_rows import ProcessTable

CALLED = 30.0
"""ns that it takes the kernel to call a program that is attached to a switch."""
CLOCK, SWITCHES, WAIT, MIGRATIONS = "task_clock", "context_switches", "wait", "migrations"
BUSY, IDLE, UNATTRIBUTED, IPC = "busy", "idle", "unattributed", "ipc"
"""Quantities beside events, by their names in streams."""
WORK = (SWITCHES, MIGRATIONS, UNATTRIBUTED, "page-faults", "major-faults")
"""Quantities of which there is less where tracing takes a part of the time."""
CPU_FIELDS = (BUSY, IDLE, SWITCHES, WAIT, "page-faults", "major-faults")
Key = tuple[int, str]


class Seen:
    """What one burst counted, until its end is known. `switches` are those of all bursts."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}
        self.cpus: dict[int, list[int]] = {}
        self.unattributed = self.switches = 0

    def forget(self) -> None:
        """Begin another burst."""
        self.numbers, self.cpus, self.unattributed = {}, {}, 0

    def add_cpu(self, cpu: int, gained: list[int]) -> None:
        """What a CPU gained, in the order of CPU_FIELDS."""
        old = self.cpus.get(cpu, [0] * len(gained))
        self.cpus[cpu] = list(map(add, old, gained))
        self.switches += gained[2]

    def nanoseconds(self) -> float:
        """How long the burst was, in the mean of the CPUs."""
        times = [one[0] + one[1] for one in self.cpus.values()]
        return sum(times) / len(times) if times else 0.0


class PmcBursts(BurstSums):
    """Estimates of processes, CPUs and the machine, each by quantity."""

    def __init__(self) -> None:
        super().__init__("work", "time", "cpu work", "cpu time", "machine work", "machine time")
        self.estimated: Mapping[Key, Estimate] = {}
        self.estimated_cpus: Mapping[Key, Estimate] = {}
        self.estimated_machine: Mapping[str, Estimate] = {}
        self._pairs: dict[int, list[float]] = {}
        self._residuals: dict[Key, Estimate] = {}
        self._events: dict[int, int] = {}
        self._peaks: dict[int, float] = {}
        self._price = 0.0

    def add_burst(self, report: BurstReport, seen: Seen, table: ProcessTable, price: float) -> None:
        """Take in a burst in which a switch cost `price` ns more, and forget that in `seen`."""
        ns = seen.nanoseconds()
        if ns > 0:
            exact = replace(report, begin=max(0, report.end - round(ns)), edges=0)
            self.add(exact, self._tables(seen, table))
            for cpu, gained in seen.cpus.items():
                self._events[cpu] = self._events.get(cpu, 0) + gained[2]
                self._peaks[cpu] = max(self._peaks.get(cpu, 0.0), gained[2] * 1e9 / ns)
            self._price = price
        seen.forget()

    def estimate(self) -> None:
        """Make estimates of what bursts saw, if there are enough of them."""
        if self.is_enough():
            self._close(self._slowed())

    def _tables(self, seen: Seen, table: ProcessTable) -> Mapping[str, Mapping[Any, Pair]]:
        out: dict[str, dict[Any, Pair]] = {name: {} for name in self.tables}
        machine: dict[str, int] = {}
        for pid, number in seen.numbers.items():
            for quantity, n in _quantities(table, number):
                out[_kind(quantity)][pid, quantity] = (n, 0)
                if quantity == MIGRATIONS:
                    machine[quantity] = machine.get(quantity, 0) + n
            self._add_pair(pid, out["time"])
        for cpu, gained in seen.cpus.items():
            for quantity, n in zip(CPU_FIELDS, gained, strict=True):
                machine[quantity] = machine.get(quantity, 0) + n
                if n:
                    out[f"cpu {_kind(quantity)}"][cpu, quantity] = (n, 0)
        machine[UNATTRIBUTED] = seen.unattributed
        for quantity, n in machine.items():
            if n:
                out[f"machine {_kind(quantity)}"][quantity] = (n, 0)
        return out

    def _add_pair(self, pid: int, found: Mapping[Key, Pair]) -> None:
        """Add up instructions, cycles and their products, of which the error of IPC is made."""
        i, c = (found.get((pid, event), (0, 0))[0] for event in ("instructions", "cycles"))
        if c:
            sums = self._pairs.setdefault(pid, [0.0] * 5)
            for at, more in enumerate((i, c, i * i, i * c, c * c)):
                sums[at] += more

    def _slowed(self) -> Slowdown:
        """How much less work there was in bursts: who switches so often may sleep between, or not.

        Of a CPU's bursts the one with most switches counts: in the others it may have worked for
        somebody else for a part of the time.
        """
        peaks, price, part = self._peaks, self._price, self.part
        return together(
            (n, slowdown(peaks[cpu], price, UNKNOWN, part)) for cpu, n in self._events.items()
        )

    def _close(self, slowed: Slowdown) -> None:
        span = self._span
        for pid, sums in self._pairs.items():
            old = self._residuals.get((pid, IPC), Estimate())
            self._residuals[pid, IPC] = Estimate(0, old.variance + _residual(span, sums))
        self.close(slowed, {name: _as_much for name in self.tables if name.endswith("time")})
        self._events, self._peaks, self._pairs = {}, {}, {}
        self._tell()

    def resume(self, at: float) -> None:
        """From here on everything is counted."""
        self.estimate()
        super().resume(at)
        self._events, self._peaks, self._pairs = {}, {}, {}

    def forget(self, gone: set[int]) -> None:
        """Forget what was estimated of these processes."""
        if not gone:
            return
        for name in ("work", "time"):
            table = self.tables[name]
            table.keep([key for key in table.known if key[0] not in gone])
        self._residuals = {key: n for key, n in self._residuals.items() if key[0] not in gone}
        self._tell()

    def pids(self) -> set[int]:
        """The processes of which there is an estimate."""
        return {pid for pid, _ in self.estimated}

    def _tell(self) -> None:
        """Make the tables of a Sample anew; nobody changes those that were given away."""
        tables = {name: table.counts() for name, table in self.tables.items()}
        self.estimated = {**tables["time"], **tables["work"], **self._residuals}
        self.estimated_cpus = {**tables["cpu time"], **tables["cpu work"]}
        self.estimated_machine = {**tables["machine time"], **tables["machine work"]}


def _as_much(_: Any) -> Slowdown:
    """Of the time there is as much, whether programs were slowed or not."""
    return NOT_SLOWED


def _kind(quantity: str) -> str:
    return "work" if quantity in WORK else "time"


def _quantities(table: ProcessTable, number: int) -> Iterator[tuple[str, int]]:
    """What a process gained in a burst, by quantity; what is zero or unknown is left out."""
    times, row = table.gained(number)
    for quantity, n in zip((CLOCK, SWITCHES, MIGRATIONS, WAIT), times, strict=True):
        if n:
            yield quantity, n
    for event, reading in zip(table.events, row, strict=True):
        if reading is not None and reading.value and reading.running:
            yield event, round(reading.value * max(1.0, reading.enabled / reading.running))


def _residual(span: Span, sums: list[float]) -> int:
    """The variance of a process's instructions, once its cycles are known."""
    i, c, ii, ic, cc = sums
    ratio = i / c
    off = max(0.0, ii - 2 * ratio * ic + ratio * ratio * cc)
    return span.estimate(0, off, 0)[1]
