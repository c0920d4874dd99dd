# SPDX-License-Identifier: Apache-2.0
"""The system-call probe: rates, errors, processes and, when asked for, durations.

From kernel to cell: `syscalls.bpf.c` counts in rows (one per CPU, process and call);
`RowReader` reads the rows that changed in the epoch that just ended and adds what is new to
the cumulative mappings of a `SyscallSample`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, cast

from msgspec import Struct

from probes.bpf.control_page import FILTER_HELPERS, FILTER_OFFSETS, Control, filter_defines
from probes.bpf.histograms import slices_for
from probes.bpf.plan import Attach, Loaded, Mechanism, Params, Plan
from probes.bpf.row_table import ROW_MAPS
from probes.bpf.thread_places import sets_of_places
from probes.budget.attach_overhead import a_call
from probes.budget.policy import DETACHED, FULL, QUICK_BURSTS, SAMPLED, Level, Part, bursts
from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.estimates import known_error
from probes.core.limits import MOST_SAMPLE
from probes.core.sample import NO_COST, Duty, Sample
from probes.ipc.messages import BurstReport, CpuCount, MapEntries, NanosecondsOfCall, convert
from probes.probe import Probe
from probes.syscalls.reader import LatencyReader, RowReader, Seen, SyscallTotals, slices_of_others
from probes.syscalls.sample import SyscallSample
from probes.syscalls.view import CallRow, ProcessRow, syscall_view

LATENCY_SLOTS = 192
MANY_CPUS = 512
"""With more, the memory of a row for each is dear, and each of them has fewer processes."""
TIMED_OF = (1, 4, 16, 64)
"""What the levels of a probe with latency time: one call in so many."""
TIMED = (
    FULL,
    Level("timed 1 in 4", 0.62),
    Level("timed 1 in 16", 0.52),
    Level("timed 1 in 64", 0.5),
    Level("counts only", 0.42),
    *bursts(0.42, QUICK_BURSTS),
    DETACHED,
)

COUNTING = (
    ("on_signal", "signal:signal_deliver"),
    ("on_exit", "raw_syscalls:sys_exit"),
)
TIMING = (
    ("on_thread_end", "sched:sched_process_exit"),
    ("on_enter", "raw_syscalls:sys_enter"),
)
"""Programs and their tracepoints: what ends a call comes before what begins it."""
TIME_MAPS = ("owners", "hists", "peaks")


def geometry(cpus: int) -> dict[str, int]:
    """Sizes by the number of possible CPUs: rows of a CPU's table, histogram slices.

    64 Ki rows of 80 bytes in all (5 MiB), at most 4096 and at least 1024 for each CPU; with more
    than 512 CPUs it is 512. The kernel keeps 128 free entries of the table of interrupted calls
    for each CPU.
    """
    rows = 4096
    while rows > 1024 and rows * cpus > 65536:
        rows //= 2
    return {
        "PT_CPUS": cpus,
        "PT_ROWS": rows if cpus <= MANY_CPUS else rows // 2,
        "PT_OTHERS": slices_of_others(cpus),
        "PT_SLICES": slices_for(cpus),
        "PT_HISTS": LATENCY_SLOTS,
        "PT_INTERRUPTED": 4096 + 128 * cpus,
    }


def _has_perf_tracepoints() -> bool:
    """Whether all system calls are among the events that perf knows."""
    tracefs = kernel.tracefs()
    return tracefs is not None and (tracefs / "events/raw_syscalls/sys_exit/id").exists()


class _Params(Struct):
    latency: bool = False


class _Facts(Struct, rename={"cpus": "PT_CPUS", "rows": "PT_ROWS", "slices": "PT_SLICES",
                             "histograms": "PT_HISTS"}):  # fmt: skip
    """Sizes as `geometry` has them, the variant, and ns of a call beside its programs."""

    cpus: CpuCount
    rows: MapEntries
    slices: MapEntries
    histograms: MapEntries
    latency: bool
    per_call: NanosecondsOfCall = 0.0


class SyscallProbe(Probe):
    """System calls by name, process and errno.

    Option `latency`: their durations too, of one call in `sample_every`.
    """

    name: ClassVar[str] = "syscalls"
    options: ClassVar[Mapping[str, Any]] = {"latency": False, "sample_every": 1}
    sample_type: ClassVar[type[Sample]] = SyscallSample

    def __init__(self) -> None:
        super().__init__()
        self.latency = False
        self.sample_every = 1
        self.level = 0
        self.totals = SyscallTotals(kernel.arch() or "x86_64")
        self._rows: RowReader | None = None
        self._latency: LatencyReader | None = None
        self._sampled = 1
        self._in_bursts = False
        self._unit = 0
        self._seen = Seen(kernel.arch() or "x86_64", self.totals)

    @staticmethod
    def plan(params: Params) -> Plan:
        """Programs on sys_exit and signal_deliver; with `latency` on sys_enter as well.

        On x86 another one tells execveat from execve, where the kernel lets it see registers.

        Raw tracepoints, which cost least, by programs that may read what they are given; unless
        the kernel would leave calls out there.
        """
        sizes = geometry(kernel.possible_cpus())
        perf = kernel.preempts_raw_tracepoints() and _has_perf_tracepoints()
        kind: Mechanism = "tracepoint" if perf else "btf_tracepoint"
        latency = convert(params, _Params).latency
        maps = ["control", *ROW_MAPS, "others", "errnos", *(TIME_MAPS if latency else ())]
        field = "status" if kernel.arch() == "x86_64" else "flags"
        attach = [
            Attach(
                kind=kind,
                function=function,
                target=target if perf else name,
                steady=function != "on_exit",
            )
            for function, target in (*COUNTING, *(TIMING if latency else ()))
            for name in [target.partition(":")[2]]
        ]
        if kernel.arch() == "x86_64" and kernel.version() >= (5, 15, 0):
            target = "task:task_rename" if perf else "task_rename"
            attach.append(
                Attach(kind=kind, function="on_rename", target=target, optional=True, steady=True)
            )
        return Plan(
            source="syscalls/syscalls.bpf.c",
            attach=attach,
            maps=maps,
            defines={
                **sizes,
                **filter_defines(),
                **({"LATENCY": 1, "PT_SETS": sets_of_places()} if latency else {}),
                **({"PERF": 1} if perf else {}),
            },
            offsets={
                "OFF_COMPAT": f"task_struct.thread_info.{field}",
                "OFF_PID": "task_struct.pid",
                "OFF_MM": "task_struct.mm",
                "OFF_FLAGS": "task_struct.thread_info.flags",
                "OFF_PENDING": "task_struct.pending.signal",
                "OFF_HANDLER": "sigaction.sa_handler",
                "OFF_SA_FLAGS": "sigaction.sa_flags",
                "OFF_TRAMPOLINES": "mm_struct.uprobes_state.head_tramps?",
                "OFF_TRAMPOLINE_VADDR": "uprobe_trampoline.vaddr?",
                "OFF_XOL": "mm_struct.uprobes_state.xol_area?",
                "OFF_XOL_VADDR": "xol_area.vaddr?",
                **FILTER_OFFSETS,
            },
            helpers={"PT_DIRECT": "BPF_FUNC_task_pt_regs", **FILTER_HELPERS},
            facts={**sizes, "latency": latency},
            gauge=a_call,
        )

    @staticmethod
    def contract(before: Sample | None, after: Sample, seconds: float) -> dict[str, Any]:
        """`rows` and `processes` of a stream object."""
        new = cast(SyscallSample, after)
        view = syscall_view(cast("SyscallSample | None", before), new, seconds)
        rows = [
            {
                "syscall": row.name,
                "count": row.count,
                "errors": row.errors,
                "errnos": row.errnos,
                "p50": row.p50,
                "p99": row.p99,
                "max": row.maximum,
                "max_exact": row.exact,
                "total": row.total,
                **_estimate(row, view.duty),
            }
            for row in view.calls
        ]
        processes = [
            {
                "pid": row.pid,
                "comm": row.comm,
                "count": row.count,
                "errors": row.errors,
                **_estimate(row, view.duty),
            }
            for row in view.processes
        ]
        return {
            "rows": rows,
            "processes": processes,
            "unattributed": view.unattributed,
            "untimed": view.untimed,
            "sample_every": new.sample_every if new.latency is not None else None,
        }

    def params(self) -> Params:
        """Which of the two variants of the program to load."""
        return {"latency": self._timed}

    @property
    def _timed(self) -> bool:
        """Whether durations are wanted, and not given up."""
        return self.latency and self.level < len(TIMED_OF)

    @property
    def _every(self) -> int:
        """One call in how many is timed."""
        return max(self.sample_every, TIMED_OF[min(self.level, len(TIMED_OF) - 1)])

    def adopt(self, loaded: Loaded) -> None:
        """Switch over to newly loaded programs: the old ones stop as these begin to count."""
        facts, maps = loaded.facts_as(_Facts), loaded.maps
        control = Control(maps.pop("control"))
        rows = RowReader(maps, facts.cpus, facts.rows)
        latency = None
        if facts.latency:
            latency = LatencyReader(maps, facts.slices, facts.histograms, facts.cpus)
        with suppress(ProbeError):  # a cgroup that has gone matches nothing
            control.set_filters(self.filters, self.started)
        control.set_sample(self._every)
        control.next_epoch()
        if self._control is not None:
            self._control.enable(False)
        control.enable(True)
        self._let_go()
        self.meter.usual_runs = 2.0 if latency is not None else 1.0
        # Beside programs that ran meanwhile, others hardly add anything.
        self.meter.outside = max(self.meter.outside, facts.per_call)
        self._control, self._rows, self._latency = control, rows, latency
        self.meter.adopt(loaded)
        self._unit = loaded.unit
        self.totals.bursts.resume(time.monotonic())
        self._set_bursts()

    def release(self) -> None:
        """Let go of everything; counting starts from zero when it is switched on again."""
        self._let_go()
        self.level, self._in_bursts = 0, False
        self.totals = SyscallTotals(kernel.arch() or "x86_64", self.totals.generation + 1)
        self._seen = Seen(kernel.arch() or "x86_64", self.totals)

    def _let_go(self) -> None:
        """Read what is left and close every descriptor."""
        if self._control is not None:
            self._control.enable(False)
            for _ in range(2):
                self._collect()
            self._control.close()
        if self._rows is not None:
            self._rows.close()
        if self._latency is not None:
            self._latency.close()
        self._control = self._rows = self._latency = None
        self.totals.latency = None
        self.meter.release()

    def read(self, now: float) -> SyscallSample:
        """All that was counted until now."""
        self.drain()
        return self.totals.sample(now, self.meter.missed(), self.meter.cost(now), self.meter.notes)

    def drain(self) -> None:
        """Add what the rows hold to the totals, or to what the present burst has seen."""
        self._collect()
        self.meter.events = self.totals.count + self._seen.count

    def wait_fds(self) -> Sequence[int]:
        """The table of rows may run full."""
        return () if self._rows is None else (self._rows.table.wait_fd,)

    def check_option(self, option: str, value: Any) -> None:
        """Raises ProbeError unless it is `latency`, on or off, or `sample_every` and a number."""
        if option == "latency" and isinstance(value, bool):
            return
        if option == "sample_every" and type(value) is int and 1 <= value <= MOST_SAMPLE:
            return
        fix = f"it has latency (on or off), and sample_every (1 to {MOST_SAMPLE})"
        raise ProbeError(f"syscalls has no option {option}={value!r}", fix)

    def refuse(self, why: str, fix: str) -> bool:
        """The variant that was asked for failed: go on as before, if there was a before."""
        self.latency = self._latency is not None
        self.meter.notes = (why,)
        return self._control is not None

    def set_option(self, option: str, value: Any) -> bool:
        """`latency` on or off: another variant of the programs; `sample_every`: at once."""
        self.check_option(option, value)
        loaded = self._latency is not None
        if option == "latency":
            self.latency, self.level = value, 0
        else:
            self.sample_every = value
        self._set_sample()
        return self._timed is not loaded

    def parts(self) -> Sequence[Part]:
        """All of it: durations may be of fewer calls, or be given up first."""
        return (Part("", TIMED if self.latency else SAMPLED, self.level),)

    def give_up(self, what: str, level: int, why: str, fix: str) -> bool:
        """Another level; counting goes on in any of them."""
        levels, loaded = self.parts()[0].levels, self._latency is not None
        # Bursts are fewer events, none of which costs less.
        before, after = (levels[at].weight / levels[at].duty for at in (self.level, level))
        self.level = level
        self.meter.expect(after / before if before else 1.0)
        self._set_sample()
        if self._timed is loaded:
            self._set_bursts()
        return self._timed is not loaded

    def burst(self, report: BurstReport) -> None:
        """What was counted until now is exact until a pause, else a burst's."""
        if report.unit != self._unit:
            return
        self.drain()
        self.meter.burst(report)
        if report.kind == "paused":
            self.totals.bursts.pause(report.end / 1e9)
        elif report.kind == "burst":
            self.totals.slowdown.price_of_run = self.meter.ns_of_run()
            self.totals.add_burst(report, self._seen)
        elif report.kind == "steady":
            # What came since it began is in no burst.
            self._seen.forget()
            self.totals.bursts.resume(time.monotonic())

    def uncounted(self, now: float) -> float:
        """For how many seconds there were bursts only."""
        return self.totals.bursts.uncounted(now)

    def _set_bursts(self) -> None:
        """Have it attached in bursts, or always, as its level says."""
        level = self.parts()[0].levels[self.level]
        if level.on:
            self.meter.attach_in(self._unit, None, level.on, level.period)
        elif self._in_bursts or self.totals.bursts.sampling:
            # Bursts that were asked for a moment ago may not have begun yet.
            self.meter.attach_in(self._unit, None, 0, QUICK_BURSTS[0][1])
        self._in_bursts = bool(level.on)

    def given_up(self) -> str | None:
        """How few calls are timed, if the budget wants it so."""
        return self.parts()[0].levels[self.level].words or None

    def last_seen(self, before: Sample | None, seconds: float) -> str:
        """How many calls there were, which most of all, and by whom."""
        self.drain()
        after = self.totals.sample(0.0, 0, NO_COST, ())
        old = before if isinstance(before, SyscallSample) and before.state == "on" else None
        view = syscall_view(old, after, seconds)
        if not view.count or seconds <= 0:
            return ""
        first = view.calls[0]
        share = 100 * first.count / view.count
        callers = view.processes_of(first.name)
        by = f" by {callers[0].comm} ({callers[0].pid})" if callers else ""
        rate = view.count / seconds
        return f"it saw {rate:,.0f} calls a second, {share:.0f} % of them {first.name}, most{by}"

    def busiest(self, before: Sample | None) -> str:
        """The name of the process that made most calls since a Sample, "" for none."""
        self.drain()
        after = self.totals.sample(0.0, 0, NO_COST, ())
        old = before if isinstance(before, SyscallSample) and before.state == "on" else None
        processes = syscall_view(old, after, 1.0).processes
        return processes[0].comm if processes else ""

    def _set_sample(self) -> None:
        if self._control is not None:
            self._control.set_sample(self._every)

    def _collect(self) -> None:
        if self._control is None or self._rows is None:
            return
        totals: SyscallTotals = self.totals
        if totals.bursts.sampling:
            totals = self._seen
            self._seen.share(self.totals)
        called = self._rows.read(self._control, totals)
        # What was timed until now was so by the rarer of the two.
        self.totals.sample_every = max(self._every, self._sampled)
        self._sampled = self._every
        if self._latency is not None:
            self._latency.read(self._control, called, totals)


def _estimate(row: CallRow | ProcessRow, duty: Duty | None) -> dict[str, float | int | None]:
    """Of a row that is estimated, how much of it, and the standard errors; of others nothing."""
    if row.error is None:
        return {}
    return {
        "estimated": row.estimated,
        "error": known_error(row.count, row.error, duty),
        "errors_error": known_error(row.errors, row.errors_error, duty),
    }
