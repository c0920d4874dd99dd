# SPDX-License-Identifier: Apache-2.0
"""What is attached in turns, for each thing that is timed: the bare kernel first."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from bench.hooks import AT_START, CLOCK, EMPTY, bare, empty_uprobes, perf_stat, probetop
from bench.measure import Variant
from bench.peers import Has, of_bcc, of_bpftrace, of_libbpf
from probes.core import kernel
from probes.symbols import functions

NOTHING = "nothing"
TWO_EMPTY, TWO_CLOCKS = "two empty programs", "two programs that read the clock"
PROBETOP, LATENCY, SAMPLED = "probetop", "probetop --latency", "probetop --latency, 1 call in 16"
ALL = "probetop, all four panes"
SYSCOUNT, SYSCOUNT_L = "syscount (libbpf-tools)", "syscount -L (libbpf-tools)"
BPFTRACE, BPFTRACE_L = "bpftrace, calls", "bpftrace, durations"
SAMPLE_EVERY = 16
FOUR = ("minor-faults", "alignment-faults", "emulation-faults", "dummy")
"""Events that every machine has, and whose readings cost what those of any other cost."""

_EXIT, _ENTER = "tracepoint:raw_syscalls:sys_exit", "tracepoint:raw_syscalls:sys_enter"
_BY_CALL = f"{_EXIT} {{ @[args->id] = count(); }}"
_BY_PROCESS = f"{_EXIT} {{ @[pid, comm, args->id] = count(); }}"
_DURATIONS = (
    f"{_ENTER} {{ @start[tid] = nsecs; }} {_EXIT} /@start[tid]/ "
    "{ @[args->id] = hist(nsecs - @start[tid]); delete(@start[tid]); }"
)
_EXECS = "tracepoint:syscalls:sys_enter_execve { join(args->argv); }"
_WITH_ERRNOS = "by call and process, errors by errno"


def of_calls(has: Has) -> list[Variant]:
    """System calls."""
    both = ("sys_enter", "sys_exit")
    timed = {"syscalls": {"latency": True}}
    sampled = {"syscalls": {"latency": True, "sample_every": SAMPLE_EVERY}}
    return [
        Variant(NOTHING, "-", nullcontext),
        Variant("one empty program", "-", lambda: bare((EMPTY, "sys_exit"))),
        Variant(TWO_EMPTY, "-", lambda: bare(*[(EMPTY, name) for name in both])),
        Variant(TWO_CLOCKS, "-", lambda: bare(*[(CLOCK, name) for name in both])),
        Variant(PROBETOP, _WITH_ERRNOS, lambda: probetop("syscalls"), SYSCOUNT),
        Variant(
            "probetop --cost always",
            f"{_WITH_ERRNOS}; and its own run time",
            lambda: probetop("syscalls", always=True),
            SYSCOUNT,
        ),
        Variant(
            LATENCY,
            f"{_WITH_ERRNOS}; durations by call within 3 %",
            lambda: probetop("syscalls", options=timed),
            SYSCOUNT_L,
        ),
        Variant(
            SAMPLED,
            f"{_WITH_ERRNOS}; of one call in {SAMPLE_EVERY} its duration",
            lambda: probetop("syscalls", options=sampled),
            TWO_EMPTY,
        ),
        Variant(ALL, f"{_WITH_ERRNOS}; execs, run queue, counters", lambda: probetop(*AT_START)),
        *_call_peers(has),
    ]


def _call_peers(has: Has) -> list[Variant]:
    by_call, by_process = "by call; no errors, no processes", "by process; no calls, no errors"
    total = "by call, total time; no percentiles, no errors, no processes"
    peers = of_libbpf(has, "syscount", ["-d", "999"], by_call, "")
    peers += of_libbpf(has, "syscount", ["-P", "-d", "999"], by_process, SYSCOUNT, "-P")
    peers += of_libbpf(has, "syscount", ["-L", "-d", "999"], total, "", "-L")
    peers += of_bpftrace(has, "calls", _BY_CALL, by_call, SYSCOUNT)
    peers += of_bpftrace(
        has, "calls of processes", _BY_PROCESS, "by call and process; no errors", SYSCOUNT
    )
    peers += of_bpftrace(
        has, "durations", _DURATIONS, "by call, powers of two; no errors", SYSCOUNT_L
    )
    peers += of_bcc(has, "syscount-bpfcc", ["-i", "999"], by_call, SYSCOUNT)
    peers += of_bcc(has, "syscount-bpfcc", ["-P", "-i", "999"], by_process, SYSCOUNT)
    return peers + of_bcc(has, "syscount-bpfcc", ["-L", "-i", "999"], total, SYSCOUNT_L)


def of_function(has: Has, program: Path) -> list[Variant]:
    """A call of the function work() of `program`."""
    place = f"{program}:work"
    offset = functions.function(str(program), "work").offset
    pair = "an empty pair of programs"
    inside = f"uprobe:{place}+{1 if kernel.arch() == 'x86_64' else 4}"
    both = (
        f"uprobe:{place} {{ @start[tid] = nsecs; }} uretprobe:{place} /@start[tid]/ "
        "{ @ = hist(nsecs - @start[tid]); delete(@start[tid]); }"
    )

    def ours(spec: str) -> dict[str, dict[str, object]]:
        return {"latency": {"targets": (spec,)}}

    powers = "durations, powers of two"
    variants = [
        Variant(NOTHING, "-", nullcontext),
        Variant("an empty program", "-", lambda: empty_uprobes(program, offset, False)),
        Variant(pair, "-", lambda: empty_uprobes(program, offset, True)),
        Variant(
            "probetop -f uprobe:PROGRAM:work",
            "durations within 3 %, calls and time by process; nested calls",
            lambda: probetop("latency", options=ours(f"uprobe:{place}")),
            pair,
        ),
        Variant(
            "probetop -f uprobe:PROGRAM:work+1",
            "calls, by process",
            lambda: probetop("latency", options=ours(inside)),
            "an empty program",
        ),
    ]
    variants += of_bpftrace(has, "hist()", both, powers, pair)
    variants += of_bpftrace(
        has, "count()", f"uprobe:{place} {{ @ = count(); }}", "calls", "an empty program"
    )
    variants += of_libbpf(has, "funclatency", ["-d", "999", place], powers, pair)
    return variants + of_bcc(has, "funclatency-bpfcc", ["-i", "999", place], powers, pair)


def of_cxx_function(program: Path) -> list[Variant]:
    """A call of the function work() of a C++ program, by each way to see its end."""
    spec = f"uprobe:{program}:_Z4workv"
    counted = "durations within 3 %, calls and time by process; nested calls"

    def ours(force: bool) -> dict[str, dict[str, object]]:
        return {"latency": {"force": force, "targets": (spec,)}}

    return [
        Variant(NOTHING, "-", nullcontext),
        Variant(
            "by a return probe (--force-timing)",
            counted,
            lambda: probetop("latency", options=ours(True)),
        ),
        Variant(
            "at its own return instructions",
            counted,
            lambda: probetop("latency", options=ours(False)),
            "by a return probe (--force-timing)",
        ),
    ]


def of_switches(has: Has) -> list[Variant]:
    """Context switches."""
    hooks = ("sched_switch", "sched_wakeup", "sched_wakeup_new")
    three, runqlat = "empty programs on the three hooks of runq", "runqlat (libbpf-tools)"
    runq = {"latency": {"targets": ("runq",)}}
    variants = [
        Variant(NOTHING, "-", nullcontext),
        Variant("one empty program", "-", lambda: bare((EMPTY, "sched_switch"))),
        Variant("one program that reads the clock", "-", lambda: bare((CLOCK, "sched_switch"))),
        Variant(three, "-", lambda: bare(*[(EMPTY, name) for name in hooks])),
        Variant(
            "probetop -f runq",
            "waits for a CPU within 3 %, by process",
            lambda: probetop("latency", options=runq),
            runqlat,
        ),
        Variant("probetop, PMC", "CPU time, switches, faults by process", lambda: probetop("pmc")),
        Variant(
            "probetop, PMC with four more events",
            "the same and four events by process",
            lambda: probetop("pmc", options={"pmc": {"events": FOUR}}),
        ),
        Variant(ALL, "all", lambda: probetop(*AT_START)),
    ]
    powers = "waits for a CPU, powers of two; no processes"
    variants += of_libbpf(has, "runqlat", ["999"], powers, "")
    variants += of_bcc(has, "runqlat-bpfcc", ["999"], powers, runqlat)
    if has("perf"):
        four = "four events, for the whole machine"
        variants.append(Variant("perf stat -a", four, lambda: perf_stat(FOUR)))
    return variants


def of_execs(has: Has) -> list[Variant]:
    """Starts of programs."""
    execsnoop = "execsnoop (libbpf-tools)"
    counts = "arguments, parent, cgroup, failures; exits, their codes and durations"
    variants = [
        Variant(NOTHING, "-", nullcontext),
        Variant("probetop, execs", counts, lambda: probetop("execs"), execsnoop),
        Variant(ALL, "all", lambda: probetop(*AT_START), execsnoop),
    ]
    variants += of_libbpf(has, "execsnoop", [], "arguments, parent; no exits", "")
    variants += of_bpftrace(has, "join(args->argv)", _EXECS, "arguments; no exits", execsnoop)
    return variants + of_bcc(has, "execsnoop-bpfcc", [], "arguments, parent; no exits", execsnoop)
