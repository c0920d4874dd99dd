# SPDX-License-Identifier: Apache-2.0
"""What two Samples of counters say about the time between them: counts, IPC, misses, shares.

Everything here is pure. Where the kernel shared counters among events, a count is scaled as
`perf stat` does it, value * enabled / running; its `share` says so. What is not known is None:
an event that is not there, one that never got a counter, a ratio without a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from math import sqrt
from typing import Any, NamedTuple, cast

from probes.core.changes import changed
from probes.core.estimates import duty_between, estimate_delta, standard_error
from probes.core.lazy_rows import Rank, Ranked
from probes.core.packed_rows import WORD, Packed
from probes.core.process_keys import pid_of
from probes.core.readings import ByEvent, Reading, row_by_event
from probes.core.sample import Duty, Estimate
from probes.pmc.bursts import BUSY, CLOCK, IPC, MIGRATIONS, SWITCHES, UNATTRIBUTED, WAIT
from probes.pmc.bursts import IDLE as IDLE_TIME
from probes.pmc.sample import CpuTimes, PmcSample, TaskTimes

SCALED_BELOW = 0.995
"""An event that was counted for less than this share of the time has a scaled count."""
IDLE = 0
"""The process id under which Samples have what CPUs did without a process."""


class Count(NamedTuple):
    """One event in an interval: its count, scaled where `share` of the time is below 1."""

    value: float | None
    share: float | None

    @property
    def scaled(self) -> bool:
        """Whether the count is an estimate from a part of the time."""
        return self.value is not None and self.share is not None and self.share < SCALED_BELOW


UNKNOWN = Count(None, None)
Readings = Mapping[tuple[int, str], Reading]


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


@dataclass(slots=True)
class Counters:
    """An interval of a process, a CPU or the machine; times in ns.

    `clock` is the time on a CPU (of a CPU: with a process), `wait` the time runnable without
    one, `counts` what was counted by event. What of each quantity bursts stand for is a part of
    it, and in `estimates` (see `probes.pmc.bursts`).
    """

    clock: int
    switches: int
    wait: int | None
    counts: Mapping[str, Count] = field(default_factory=dict)
    estimates: Mapping[str, Estimate] = field(default_factory=dict)

    def count(self, event: str) -> float | None:
        """How often the event happened."""
        return self.counts.get(event, UNKNOWN).value

    def per_ki(self, event: str) -> float | None:
        """How often it happened in 1000 instructions."""
        per_instruction = _ratio(self.count(event), self.count("instructions"))
        return None if per_instruction is None else 1000 * per_instruction

    def ratio(self, event: str, of: str) -> float | None:
        """The share of events `of` that were this one."""
        return _ratio(self.count(event), self.count(of))

    def is_scaled(self, *events: str) -> bool:
        """Whether any of these is an estimate."""
        return any(self.counts.get(event, UNKNOWN).scaled for event in events)

    @property
    def ipc(self) -> float | None:
        """Instructions a cycle."""
        return self.ratio("instructions", "cycles")

    def is_estimated(self, *quantities: str) -> bool:
        """Whether bursts stand for a part of any of these."""
        return any(quantity in self.estimates for quantity in quantities)

    def error(self, quantity: str, duty: Duty | None) -> float | None:
        """The standard error of a quantity, None where nothing of it is estimated."""
        found = self.estimates.get(quantity)
        if found is None:
            return None
        if quantity == IPC:
            cycles = self.count("cycles")
            return sqrt(found.variance) / cycles if cycles else None
        return standard_error(found.n, found.variance, duty)

    @property
    def running(self) -> float | None:
        """For which share of the time the least lucky event that ran at all was counted.

        0.0 if none ran, None if none was wanted.
        """
        shares = [count.share for count in self.counts.values() if count.share is not None]
        return min([share for share in shares if share > 0], default=0.0) if shares else None


@dataclass(slots=True)
class TaskRow(Counters):
    """One process in an interval.

    `number` tells it from others with the same pid (see `probes.core.process_keys`).
    """

    number: int = 0
    comm: str = "?"
    migrations: int = 0

    @property
    def pid(self) -> int:
        """The process id."""
        return pid_of(self.number)


@dataclass(slots=True)
class CpuRow(Counters):
    """One CPU in an interval; `clock` ns with a process, `idle` ns without.

    `kind` names its PMU where there are several kinds.
    """

    cpu: int = 0
    idle: int = 0
    kind: str | None = None
    socket: int | None = None

    @property
    def busy(self) -> float | None:
        """The share of the time that a process was on it."""
        return _ratio(self.clock, self.clock + self.idle)


@dataclass(slots=True)
class PmcView:
    """All counters in one interval of `seconds`; processes are sorted, the most active first.

    `machine` is the sum of the CPUs, idle among it; a count that is unknown of one of them is
    unknown of all. Processes that did not run have no row; the others' are made when asked for.
    `duty` are the bursts in which switches were looked at, None where that was so all the time.
    """

    seconds: float
    sample: PmcSample
    machine: CpuRow
    cpus: list[CpuRow]
    processes: Ranked[TaskRow]
    unattributed: int
    duty: Duty | None = None

    def gigahertz(self, row: Counters) -> float | None:
        """Cycles per ns on a CPU: how fast the clock really was; None of user or kernel alone."""
        return _ratio(row.count("cycles"), row.clock) if self.sample.mode == "all" else None


def scaled(before: Reading | None, after: Reading) -> Count:
    """The count between two readings of one event."""
    value, enabled, running = after
    if before is not None and enabled >= before.enabled and value >= before.value:
        value -= before.value
        enabled -= before.enabled
        running -= before.running
    # Else it was forgotten and is back: it counts from zero.
    if enabled <= 0:
        return UNKNOWN
    if running <= 0:
        return Count(None, 0.0)
    if running >= enabled:
        return Count(float(value), 1.0)
    return Count(value * enabled / running, running / enabled)


def exact(before: Reading | None, after: Reading) -> Count:
    """The count between two readings of an event that was counted all the time."""
    old = before.value if before is not None and before.value <= after.value else 0
    return Count(float(after.value - old), 1.0)


class Counted(Mapping[str, Count]):
    """What was counted of a process from one Reading to another, computed when it is asked for.

    Events `unshared` had a counter of their own all the time.
    """

    __slots__ = ("_events", "_known", "_new", "_old", "_unshared")

    def __init__(
        self, events: Sequence[str], old: ByEvent, new: ByEvent, unshared: Set[str]
    ) -> None:
        self._old, self._new = old, new
        self._events, self._unshared = events, unshared
        self._known: dict[str, Count | None] = {}

    def get(self, event: str, default: Any = None) -> Any:
        """The count, or the default for an event that is not there."""
        if event not in self._known:
            self._known[event] = self._count(event) if event in self._events else None
        found = self._known[event]
        return default if found is None else found

    def _count(self, event: str) -> Count | None:
        before, after = self._old.get(event), self._new.get(event)
        if after is None:
            return None
        return exact(before, after) if event in self._unshared else scaled(before, after)

    def __getitem__(self, event: str) -> Count:
        found: Count | None = self.get(event)
        if found is None:
            raise KeyError(event)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter([event for event in self._events if self.get(event) is not None])

    def __len__(self) -> int:
        return sum([1 for _ in self])


def _counts(cpu: int, events: Sequence[str], old: Readings, new: Readings) -> dict[str, Count]:
    """What was counted of a CPU."""
    before, after = row_by_event(old, cpu, events), row_by_event(new, cpu, events)
    return {
        event: scaled(before.get(event), reading)
        for event, reading in after.items()
        if reading is not None
    }


def _unshared(cpus: Iterable[CpuRow]) -> set[str]:
    """Events that had a counter of their own all the time, on every CPU that has them."""
    lowest: dict[str, float] = {}
    for row in cpus:
        for event, count in row.counts.items():
            if count.share is not None:
                lowest[event] = min(count.share, lowest.get(event, 1.0))
    return {event for event, share in lowest.items() if share >= SCALED_BELOW}


def _less(new: int | None, old: int | None) -> int | None:
    return None if new is None else max(0, new - (old or 0))


def _task_row(
    pid: int, before: PmcSample, after: PmcSample, events: Sequence[str], unshared: Set[str]
) -> TaskRow:
    new, old = after.tasks[pid], before.tasks.get(pid)
    if old is None or new.clock < old.clock or new.switches < old.switches:
        old = TaskTimes(0, 0, 0, 0)
    return TaskRow(
        clock=new.clock - old.clock,
        switches=new.switches - old.switches,
        wait=_less(new.wait, old.wait),
        # A stint's length and the time that its counters ran come from two clocks.
        counts=Counted(
            events,
            row_by_event(before.readings, pid, events),
            row_by_event(after.readings, pid, events),
            unshared,
        ),
        number=pid,
        comm=after.comms.get(pid, "?"),
        migrations=max(0, new.migrations - old.migrations),
    )


def _task_row_of_packed(
    pid: int, before: PmcSample, after: PmcSample, events: Sequence[str], unshared: Set[str]
) -> TaskRow:
    """`_task_row` of Samples whose processes are integers: only the difference is decoded."""
    tasks, readings = cast(Any, after.tasks), cast(Any, after.readings)
    gained = tasks.numbers[pid] - cast(Any, before.tasks).numbers.get(pid, 0)
    clock, switches, migrations, wait = tasks.decoder.decode(gained)
    row = readings.rows.decoder.decode(gained)
    counts = Counted(events, {}, dict(zip(readings.events, row, strict=True)), unshared)
    comm = after.comms.get(pid, "?")
    return TaskRow(clock, switches, wait, counts, number=pid, comm=comm, migrations=migrations)


def _cpu_row(cpu: int, before: PmcSample, after: PmcSample, events: Sequence[str]) -> CpuRow:
    # A CPU that only bursts have seen in a span has counted nothing beside them.
    new = after.cpus.get(cpu, CpuTimes(0, 0, 0, 0 if WAIT in after.estimated_machine else None))
    old = before.cpus.get(cpu)
    if old is None or new.busy < old.busy or new.switches < old.switches:
        old = CpuTimes(0, 0, 0, 0)
    return CpuRow(
        clock=new.busy - old.busy,
        switches=new.switches - old.switches,
        wait=_less(new.wait, old.wait),
        counts=_counts(cpu, events, before.cpu_readings, after.cpu_readings),
        cpu=cpu,
        idle=max(0, new.idle - old.idle),
        kind=after.kinds.get(cpu),
        socket=after.sockets.get(cpu),
    )


def sum_of(cpus: Iterable[CpuRow], events: Iterable[str]) -> CpuRow:
    """Several CPUs as one; a share of running is that of all their counters together."""
    rows = list(cpus)
    whole = CpuRow(clock=0, switches=0, wait=0 if rows else None)
    for row in rows:
        whole.clock += row.clock
        whole.idle += row.idle
        whole.switches += row.switches
        whole.wait = None if whole.wait is None or row.wait is None else whole.wait + row.wait
    counts: dict[str, Count] = {}
    whole.counts = counts
    for event in events:
        # A CPU of another kind may not have the event at all: that is no gap.
        found = [row.counts[event] for row in rows if event in row.counts]
        shares = [count.share for count in found if count.share is not None]
        if not shares:
            continue
        values = [count.value for count in found if count.share is not None]
        known = [value for value in values if value is not None]
        value = sum(known) if len(known) == len(values) else None
        counts[event] = Count(value, sum(shares) / len(shares))
    return whole


def _both_packed(before: PmcSample, after: PmcSample) -> bool:
    return isinstance(after.tasks, Packed) and after.tasks.is_like(before.tasks)


def _ranks(before: PmcSample, after: PmcSample, counted: bool, unshared: Set[str]) -> list[Rank]:
    """Of each process that ran, what to sort it by: most cycles first, then most time."""
    if _both_packed(before, after):
        return _ranks_of_packed(before.tasks, after.tasks, counted, "cycles" in unshared)
    old, new = before.readings.get, after.readings.get
    count = exact if "cycles" in unshared else scaled
    ranks: list[Rank] = []
    for pid, was, times in changed(before.tasks, after.tasks):
        if was == times or pid == IDLE:
            continue
        gained = times[0]
        if was is not None and times[0] >= was[0] and times[1] >= was[1]:
            gained -= was[0]
        cycles = 0.0
        key = (pid, "cycles")
        reading = new(key) if counted else None
        if reading is not None:
            cycles = count(old(key), reading)[0] or 0.0
        ranks.append((-cycles, -gained, pid))
    return ranks


def _ranks_of_packed(before: Any, after: Any, counted: bool, unshared: bool) -> list[Rank]:
    """`_ranks` of Samples whose processes are integers: nothing else of them is decoded."""
    bits = after.decoder.bits
    clock_at, cycles_at = bits["clock"], bits.get("cycles") if counted else None
    ranks: list[Rank] = []
    for pid, was, number in changed(before.numbers, after.numbers):
        if pid == IDLE:
            continue
        gained = number - (was or 0)
        clock = gained >> clock_at & WORD
        cycles = 0.0
        if cycles_at is not None:
            counts = gained >> cycles_at
            cycles = counts & WORD
            if not unshared:
                cycles = scaled(None, Reading(cycles, clock, counts >> 64 & WORD))[0] or 0.0
        ranks.append((-cycles, -clock, pid))
    return ranks


Parts = Mapping[int, Mapping[str, Estimate]]
"""What bursts stand for, by process or CPU, then by quantity."""


def by_owner(estimates: Mapping[tuple[int, str], Estimate]) -> dict[int, dict[str, Estimate]]:
    """The same by process or CPU first."""
    out: dict[int, dict[str, Estimate]] = {}
    for (owner, quantity), one in estimates.items():
        out.setdefault(owner, {})[quantity] = one
    return out


def _add_estimates(row: Counters, parts: Mapping[str, Estimate], events: Iterable[str]) -> None:
    """Add to a row what bursts stand for; a count of which nothing is known stays unknown."""
    row.estimates = parts
    got = {quantity: one.n for quantity, one in parts.items()}
    row.clock += got.get(CLOCK, 0) + got.get(BUSY, 0)
    row.switches += got.get(SWITCHES, 0)
    if row.wait is not None or WAIT in got:
        row.wait = (row.wait or 0) + got.get(WAIT, 0)
    if isinstance(row, TaskRow):
        row.migrations += got.get(MIGRATIONS, 0)
    if isinstance(row, CpuRow):
        row.idle += got.get(IDLE_TIME, 0)
    more = {event: got[event] for event in events if event in got}
    if more:
        counts = dict(row.counts)
        for event, n in more.items():
            old = counts.get(event, UNKNOWN)
            counts[event] = Count((old.value or 0.0) + n, 1.0 if old.share is None else old.share)
        row.counts = counts


def _ranks_with(ranks: list[Rank], parts: Parts, counted: bool) -> list[Rank]:
    """The ranks of processes, with what bursts stand for."""
    known = {int(rank[-1]): rank for rank in ranks}
    for pid, found in parts.items():
        if pid == IDLE:
            continue
        cycles, clock, _ = known.get(pid, (0.0, 0.0, pid))
        more = found["cycles"].n if counted and "cycles" in found else 0
        gained = found[CLOCK].n if CLOCK in found else 0
        if pid in known or any(one.n for one in found.values()):
            known[pid] = (cycles - more, clock - gained, pid)
    return list(known.values())


def pmc_view(before: PmcSample | None, after: PmcSample, seconds: float) -> PmcView:
    """The interval between two Samples.

    `before` is None, or of another generation, when counting began in this interval: then all
    that `after` holds counts. Events that began in it are unknown, for others did not.
    """
    events = after.events
    if before is None or before.generation != after.generation:
        before = PmcSample(generation=after.generation)
    elif before.events:
        # What began within the interval is not to be compared with what went on.
        events = tuple(event for event in events if event in before.events)
    old = before
    duty = duty_between(before.duty, after.duty)
    parts: Parts = {}
    of_cpus: Parts = {}
    if duty is not None:
        parts = by_owner(estimate_delta(before.estimated, after.estimated))
        of_cpus = by_owner(estimate_delta(before.estimated_cpus, after.estimated_cpus))
    there = sorted(after.cpus.keys() | of_cpus.keys())
    cpus = [_cpu_row(cpu, before, after, events) for cpu in there]
    unshared = _unshared(cpus)
    for one in cpus:
        if one.cpu in of_cpus:
            _add_estimates(one, of_cpus[one.cpu], events)
    row = _task_row_of_packed if _both_packed(old, after) else _task_row

    def made(pid: int) -> TaskRow:
        if pid in after.tasks:
            found = row(pid, old, after, events, unshared)
        else:
            found = TaskRow(0, 0, None, number=pid, comm=after.comms.get(pid, "?"))
        if pid in parts:
            _add_estimates(found, parts[pid], events)
        return found

    counted = "cycles" in events
    ranks = _ranks(old, after, counted, unshared)
    machine, unattributed = sum_of(cpus, events), after.unattributed - before.unattributed
    if duty is not None:
        ranks = _ranks_with(ranks, parts, counted)
        machine.estimates = estimate_delta(before.estimated_machine, after.estimated_machine)
        unattributed += machine.estimates.get(UNATTRIBUTED, Estimate()).n
    return PmcView(
        seconds=seconds,
        sample=after,
        machine=machine,
        cpus=cpus,
        processes=Ranked(ranks, made),
        unattributed=max(0, unattributed),
        duty=duty,
    )
