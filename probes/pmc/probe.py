# SPDX-License-Identifier: Apache-2.0
"""The counter probe: cycles, instructions and misses, and what the scheduler did, for whom.

From kernel to cell: `pmc.bpf.c` charges what the counters gained to the process that leaves
a CPU; `CounterReader` adds up what is new; `pmc_view` makes counts and ratios of two Samples.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, ClassVar, cast

from msgspec import Meta, Struct

from probes.bpf.control_page import FILTER_HELPERS, FILTER_OFFSETS, Control, filter_defines
from probes.bpf.plan import Attach, Loaded, Params, Plan
from probes.bpf.row_table import ROW_MAPS
from probes.budget.policy import QUICK_BURSTS, SAMPLED, Part
from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.sample import Sample
from probes.core.suggestions import did_you_mean, near, quote
from probes.ipc.messages import BurstReport, CpuCount, MapEntries, convert
from probes.pmc.bursts import CALLED, Seen
from probes.pmc.contract import pmc_contract
from probes.pmc.events import CUSTOM, FAULTS, MODES, SETS, Mode, check_events, kinds, wanted
from probes.pmc.open_events import fill, offered
from probes.pmc.reader import CounterReader, CounterTotals
from probes.pmc.sample import PmcSample
from probes.probe import Probe

TICK = 50_000_000
"""ns after which a process that keeps its CPU is charged at the latest."""

ONLINE = "/sys/devices/system/cpu/online"

ARRAY = "counters"
"""The map of perf events; they end when nobody holds it, so the broker does."""

Wish = tuple[str, Mode, tuple[str, ...]]
"""Set, mode, and the events of the set "custom"."""


def geometry(cpus: int, slots: int) -> dict[str, int]:
    """Sizes by the number of possible CPUs: rows of a CPU's table, counters of a CPU.

    64 Ki rows in all, at most 4096 for a CPU.
    """
    rows = 4096
    while rows > 256 and rows * cpus > 65536:
        rows //= 2
    return {"PT_CPUS": cpus, "PT_ROWS": rows, "PT_SLOTS": slots}


class _Params(Struct):
    set: Annotated[str, Meta(max_length=64)]
    mode: Mode
    events: Annotated[tuple[str, ...], Meta(max_length=64)] = ()


class _Facts(Struct, rename={"cpus": "PT_CPUS", "rows": "PT_ROWS", "slots": "PT_SLOTS"}):
    """Sizes as `geometry` has them, and what became of the events that were asked for.

    `partly` has those that some CPUs do not count, with the reason; `online` is the kernel's list
    of the CPUs that run, None if it is not known; `wait` says whether the kernel keeps how long
    threads wait.
    """

    cpus: CpuCount
    rows: MapEntries
    slots: Annotated[int, Meta(ge=0, le=1000)]
    wish: Wish
    events: tuple[str, ...]
    hardware: bool
    reason: str | None
    absent: dict[str, str]
    partly: dict[str, str]
    online: str | None
    wait: bool


class PmcProbe(Probe):
    """Counters by CPU and process. Options: `set`, `mode`, and `events` of the user's own."""

    name: ClassVar[str] = "pmc"
    options: ClassVar[Mapping[str, Any]] = {"set": "base", "mode": "all", "events": ()}
    sample_type: ClassVar[type[Sample]] = PmcSample

    def __init__(self) -> None:
        super().__init__()
        self.totals = CounterTotals()
        self._wish: Wish = ("base", "all", ())
        self._running: Wish | None = None
        self._facts: _Facts | None = None
        self._reader: CounterReader | None = None
        self._kinds: Mapping[int, str] = {}
        self._sockets: Mapping[int, int] = {}
        self._online: str | None = None
        self._unit = 0
        self._seen = Seen()
        self.level = 0

    @staticmethod
    def plan(params: Params) -> Plan:
        """Programs on switches and migrations, and a timer on each CPU.

        The first two can be attached in bursts, of which `on_edge` tells each CPU.
        """
        asked = convert(params, _Params)
        offer = offered(wanted(asked.set, asked.mode, asked.events))
        cpus, events = kernel.possible_cpus(), offer.events
        sizes = geometry(cpus, len(events))
        timers = sizes["PT_SLOTS"] * cpus
        return Plan(
            source="pmc/pmc.bpf.c",
            attach=[
                Attach(kind="btf_tracepoint", function="on_switch", target="sched_switch"),
                Attach(kind="btf_tracepoint", function="on_migrate", target="sched_migrate_task"),
                Attach(kind="edge", function="on_edge"),
                *(_timer(cpu, timers + cpu) for cpu in kernel.online_cpus()),
            ],
            maps=["control", "handover", "cpus", *ROW_MAPS],
            writable=("control", "handover"),
            defines={**sizes, **filter_defines()},
            helpers=FILTER_HELPERS,
            offsets={
                **FILTER_OFFSETS,
                "OFF_PID": "task_struct.pid",
                "OFF_MIN_FLT": "task_struct.min_flt",
                "OFF_MAJ_FLT": "task_struct.maj_flt",
                "OFF_RUN_DELAY": "task_struct.sched_info.run_delay?",
                # Linux 5.16 moved it for all architectures, some had it there before.
                "OFF_CPU_OLD": "task_struct.cpu?",
                "OFF_CPU_NEW": "task_struct.thread_info.cpu?",
            },
            facts={
                **sizes,
                "wish": [asked.set, asked.mode, list(asked.events)],
                "events": [event.name for event in events],
                "hardware": any(event.hardware for event in events),
                "absent": offer.absent,
                "reason": offer.reason,
                "online": kernel.read_text(ONLINE),
                "wait": os.path.exists("/proc/self/schedstat"),
            },
            calibrate=lambda maps, _: {"partly": fill(events, maps[ARRAY], cpus)},
        )

    @staticmethod
    def contract(before: Sample | None, after: Sample, seconds: float) -> dict[str, Any]:
        """`cpus`, `processes` and what is counted, of a stream object."""
        return pmc_contract(cast("PmcSample | None", before), cast(PmcSample, after), seconds)

    def params(self) -> Params:
        """The events to open."""
        event_set, mode, events = self._wish
        return {"set": event_set, "mode": mode, "events": list(events)}

    def adopt(self, loaded: Loaded) -> None:
        """Switch over to newly loaded programs, which counted up to here without charging."""
        facts, maps = loaded.facts_as(_Facts), loaded.maps
        control = Control(maps.pop("control"))
        reader = CounterReader(maps, (facts.cpus, facts.rows, facts.slots), facts.wait)
        with suppress(ProbeError):  # a cgroup that has gone matches nothing
            control.set_filters(self.filters, self.started)
        control.next_epoch()
        if self._reader is not None and not self.totals.bursts.sampling:
            reader.take_over(self._reader)
        reader.start()
        if self._control is not None:
            # A switch between these two stores is nobody's.
            self._control.enable(False)
        control.enable(True)
        self._let_go()
        event_set, mode, events = facts.wish
        if self._running is not None and self._running[1] != mode:
            # What was counted in user space is no part of what the kernel did.
            self.totals = CounterTotals(self.totals.generation + 1)
        shown = [*facts.events, *FAULTS]
        self.totals.keep(shown, kernel.online_cpus(), facts.wait)
        self._running = (event_set, mode, events)
        self._facts, self._control, self._reader = facts, control, reader
        self._kinds, self._sockets = kinds(), sockets()
        self._online, self.meter.outdated = facts.online, False
        self.meter.adopt(loaded)
        self._unit = loaded.unit
        self.totals.bursts.resume(time.monotonic())
        self._set_bursts()

    def release(self) -> None:
        """Let go of everything; counting starts from zero when it is switched on again."""
        self._let_go()
        self._running = None
        self.level = 0
        self.totals = CounterTotals(self.totals.generation + 1)

    def _let_go(self) -> None:
        """Read what is left and close every descriptor."""
        if self._control is not None:
            self._control.enable(False)
            for _ in range(2):
                self._collect()
            self._control.close()
        if self._reader is not None:
            self._reader.close()
        self._control = self._reader = None
        self._seen.forget()
        self.meter.release()

    def read(self, now: float) -> PmcSample:
        """All that was counted until now."""
        self.drain()
        online = kernel.read_text(ONLINE)
        if online != self._online:
            # Counters are opened on CPUs that run; one that comes back has none.
            self._online, self.meter.outdated = online, True
        facts = self._facts
        assert facts is not None, "it is read while it runs"
        event_set, mode, _ = self._running or self._wish
        partly = [f"{name} is {why}" for name, why in facts.partly.items()]
        return self.totals.sample(
            now,
            lost=self.meter.missed(),
            cost=self.meter.cost(now),
            notes=(*self.meter.notes, *partly),
            hardware=facts.hardware,
            reason=facts.reason,
            event_set=event_set,
            mode=mode,
            events=(*facts.events, *FAULTS),
            absent=facts.absent,
            kinds=self._kinds,
            sockets=self._sockets,
        )

    def drain(self) -> None:
        """Add what the maps hold to the totals, or to what the present burst has seen."""
        self._collect()
        self.meter.events = self.totals.switches + self._seen.switches

    def wait_fds(self) -> Sequence[int]:
        """The table of rows may run full."""
        return () if self._reader is None else (self._reader.table.wait_fd,)

    def check_option(self, option: str, value: Any) -> None:
        """Raises ProbeError for a set or mode that there is not, and for what is no event."""
        if option == "events":
            check_events(value)
            return
        choices = {"set": list(SETS), "mode": list(MODES)}.get(option)
        if choices is None:
            raise ProbeError(f"pmc has no option {option}", "it has set, mode and events")
        if option == "set" and value == CUSTOM and self._wish[2]:
            return
        if value not in choices:
            fix = did_you_mean(near(str(value), choices), f"choose from {', '.join(choices)}")
            raise ProbeError(f"{quote(str(value))} is no {option} of counters", fix)

    def parts(self) -> Sequence[Part]:
        """All of it: switches may be looked at in bursts only."""
        return (Part("", SAMPLED, self.level),)

    def give_up(self, what: str, level: int, why: str, fix: str) -> bool:
        """Another level; no step needs other programs."""
        self.level = level
        self._set_bursts()
        return False

    def burst(self, report: BurstReport) -> None:
        """What was charged until now is exact until a pause, else a burst's."""
        if report.unit != self._unit:
            return
        self.drain()
        self.meter.burst(report)
        bursts = self.totals.bursts
        if report.kind == "paused":
            bursts.pause(report.end / 1e9)
        elif report.kind == "burst":
            price = self.meter.ns_of_run() + CALLED
            bursts.add_burst(report, self._seen, self.totals.table, price)
        elif report.kind == "steady":
            # What came since it began is in no burst.
            self._seen.forget()
            bursts.resume(time.monotonic())

    def uncounted(self, now: float) -> float:
        """For how many seconds there were bursts only."""
        return self.totals.bursts.uncounted(now)

    def _set_bursts(self) -> None:
        """Have it attached in bursts, or always, as its level says."""
        level = SAMPLED[self.level]
        if level.on:
            self.meter.attach_in(self._unit, None, level.on, level.period)
        elif self.totals.bursts.sampling:
            self.meter.attach_in(self._unit, None, 0, QUICK_BURSTS[0][1])

    def given_up(self) -> str | None:
        """Of how much of the time it sees the switches, if the budget wants it so."""
        return SAMPLED[self.level].words or None

    def set_option(self, option: str, value: Any) -> bool:
        """Another set, mode or list of events: other counters have to be opened."""
        self.check_option(option, value)
        event_set, mode, events = before = self._wish
        if option == "events":
            event_set, events = CUSTOM, tuple(check_events(value))
        elif option == "set":
            event_set = value
        else:
            mode = value
        self._wish = (event_set, mode, events)
        return self._wish != before

    def refuse(self, why: str, fix: str) -> bool:
        """What was asked for failed: go on as before, if there was a before."""
        self.meter.notes = (f"{why}: {fix}" if fix else why,)
        if self._running is None:
            return False
        self._wish, self.meter.outdated = self._running, False
        return True

    def _collect(self) -> None:
        if self._control is not None and self._reader is not None:
            burst = self._seen if self.totals.bursts.sampling else None
            self._reader.read(self._control, self.totals, burst)


def _timer(cpu: int, index: int) -> Attach:
    return Attach(
        kind="timer",
        function="on_tick",
        name=f"of {TICK // 1_000_000} ms",
        optional=True,
        cpu=cpu,
        period=TICK,
        keeper=(ARRAY, index),
    )


def sockets() -> dict[int, int]:
    """The socket of each CPU that runs, where it is known."""
    out: dict[int, int] = {}
    for cpu in kernel.online_cpus():
        path = f"/sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id"
        text = kernel.read_text(path)
        if text is not None and text.isdigit():
            out[cpu] = int(text)
    return out
