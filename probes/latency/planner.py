# SPDX-License-Identifier: Apache-2.0
"""From targets as users write them to programs and events. Runs in the loader, as root."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from probes.bpf import btf
from probes.bpf.plan import Attach, Mechanism
from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.suggestions import quote
from probes.host.filter_watch import check_started
from probes.host.traced_files import identify
from probes.symbols import binaries, kernel_functions, target_spec, tracepoints
from probes.symbols.usdt_operands import LOW, RECORD, SIGNED, Operand
from probes.uprobes import empty_functions, nops, timing_ends

MOST_TARGETS = 127
"""Most targets that are loaded together."""

_PATCH = 0x50544F5000000000
TARGET, HOW_A, AT_A, HOW_B, AT_B, HOW_TEXT, AT_TEXT = range(_PATCH + 1, _PATCH + 8)
"""The constants of include/target.h."""
NO_VALUES = dict.fromkeys((HOW_A, AT_A, HOW_B, AT_B, HOW_TEXT, AT_TEXT), 0)
"""The thread is the key of a pair, and the process is charged."""

PARTS = {
    "function_leave": "USE_FUNCTIONS",
    "own_leave": "USE_OWN",
    "go_leave": "USE_GO",
    "trampoline_leave": "USE_TRAMPOLINES",
    "event": "USE_EVENTS",
    "value_event": "USE_VALUES",
    "untimed": "USE_UNTIMED",
    "nest_end": "USE_NEST",
    "pair_begin": "USE_PAIRS",
    "pair_end": "USE_PAIRS",
    "block_end": "USE_BLOCK",
    "runq_switch": "USE_RUNQ",
    "offcpu_switch": "USE_OFFCPU",
}
"""A program -> the part of latency.bpf.c that it is compiled with."""

DEFAULTS = ("runq", "blockio", "softirq", "irq")
"""What is shown when nobody asked for anything, as far as this kernel has it."""

_RAW = {
    "blockio": (("block_end", "block_rq_complete"), ("pair_begin", "block_rq_issue")),
    "softirq": (("pair_end", "softirq_exit"), ("pair_begin", "softirq_entry")),
    "irq": (("pair_end", "irq_handler_exit"), ("pair_begin", "irq_handler_entry")),
    "runq": (
        ("runq_wakeup", "sched_wakeup"),
        ("runq_wakeup", "sched_wakeup_new"),
        ("runq_switch", "sched_switch"),
    ),
    "offcpu": (("offcpu_switch", "sched_switch"),),
}
"""Presets as programs on raw tracepoints.

Those have a guard against recursion each, where programs on tracepoints share one: a hard
interrupt within a soft one would be lost there.
"""
_THREAD_END = Attach(kind="raw_tracepoint", function="thread_end", target="sched_process_exit")
RETURNS = {
    "kprobe": ("kretprobe", "function_leave", "function_enter"),
    "uprobe": ("uretprobe", "function_leave", "function_enter"),
    "fentry": ("fexit", "trampoline_leave", "trampoline_enter"),
}


OWN = {"own returns": ("own_enter", "own_leave"), "goroutine": ("go_enter", "go_leave")}
"""Programs where functions begin and at their own returns, by what tells calls apart."""
SHARED = {HOW_A: 1}
"""At such a return others end as well."""

_BEGINS = frozenset(
    {
        "function_enter",
        "own_enter",
        "go_enter",
        "trampoline_enter",
        "pair_begin",
        "nest_begin",
        "untimed",
    }
)
"""Programs at the beginnings of calls: in their place, calls can be counted."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How one target is measured.

    `floor` names the calibration that tells what an empty call of it would show; "" is the
    mechanism's own. `unit` is "" for values that are no durations; `by_text` says that texts are
    charged instead of processes. `why` and `fix` are what to tell of a target of which all or some
    functions are only counted.
    """

    mechanism: str
    attach: tuple[Attach, ...]
    functions: int = 1
    counts_only: bool = False
    floor: str = ""
    unit: Literal["ns", ""] = "ns"
    by_text: bool = False
    why: str | None = None
    fix: str | None = None

    def facts(self, spec: str, slot: int) -> dict[str, Any]:
        """What the dashboard is told of the target."""
        return {
            "spec": spec,
            "slot": slot,
            "mechanism": self.mechanism,
            "functions": self.functions,
            "counts_only": self.counts_only,
            "watches": any(map(watches_calls, self.attach)),
            "unit": self.unit,
            "by_text": self.by_text,
            "floor": self.floor or self.mechanism,
            "countable": any(one.function in _BEGINS for one in self.attach),
            "files": identify(one.file for one in self.attach if one.file),
            "why": self.why,
            "fix": self.fix,
        }

    def counted(self) -> Wish:
        """The same with nothing but a counter at its beginnings."""
        begins = [one for one in self.attach if one.function in _BEGINS]
        attach = tuple(replace(one, function="event") for one in begins)
        return replace(self, attach=attach, counts_only=True, by_text=False)


def wish(
    text: str,
    slot: int,
    pid: int | None = None,
    started: int | None = None,
    *,
    counted: bool = False,
    force: bool = False,
) -> Wish:
    """What to attach for a target; raises ProbeError if this machine does not have it.

    A file is looked up as process `pid` sees it, which is to have `started` then (ns since boot).
    With `force`, return probes are placed where they could harm (see `probes.uprobes.timing_ends`).
    """
    spec = target_spec.parse(text)
    if pid is not None and spec.kind in ("uprobe", "usdt"):
        check_started(pid, started)
    made = _wish(spec, pid, force)
    made = made.counted() if counted else made
    attach = tuple(
        replace(one, group=slot, patch={TARGET: slot, **NO_VALUES, **one.patch})
        for one in made.attach
    )
    return replace(made, attach=attach)


def _wish(spec: target_spec.Spec, pid: int | None, force: bool) -> Wish:
    if spec.kind == "preset":
        return _preset(spec.name)
    if spec.kind == "syscall":
        kernel_functions.syscall_number(spec.name)
        return system_call(spec.name)
    if spec.kind == "tracepoint":
        return _tracepoints(spec)
    if spec.kind == "usdt":
        return _usdt(spec, pid)
    if spec.kind == "uprobe":
        return _user(spec, pid, force)
    return kernel_function(spec)


def _preset(name: str) -> Wish:
    # Those of the scheduler read its tasks directly, which takes programs that know types.
    kind: Mechanism = "btf_tracepoint" if name in ("runq", "offcpu") else "raw_tracepoint"
    attach = [
        Attach(kind=kind, function=function, target=target) for function, target in _RAW[name]
    ]
    if name == "blockio":
        # The request itself is the key: the first argument, or the second behind its queue.
        attach = [
            replace(one, patch={HOW_A: RECORD | 8, AT_A: _request_offset(one.target)})
            for one in attach
        ]
    return Wish("tracepoint", tuple(attach))


def _request_offset(target: str) -> int:
    version = tuple(int(n) for n in re.findall(r"\d+", kernel.release())[:2])
    if target != "block_rq_issue" or version >= (5, 11):
        return 0
    # Linux 5.11 removed the queue, and so did later releases of 5.10.
    return 8 if btf.KernelBTF().tracepoint_arguments(target) == 2 else 0


def system_call(name: str) -> Wish:
    """A system call, from its entry to its exit."""
    start, end = f"syscalls:sys_enter_{name}", f"syscalls:sys_exit_{name}"
    attach = (
        Attach(kind="tracepoint", function="pair_end", target=end),
        Attach(kind="tracepoint", function="pair_begin", target=start),
    )
    return Wish("syscall", attach)


def _tracepoints(spec: target_spec.Spec) -> Wish:
    tracefs = kernel.tracefs()
    halves = [spec] if spec.end is None else [spec.end, spec]
    attach = []
    for half in halves:
        single = spec.end is None
        keys = tracepoints.key_fields(tracefs, half.provider, half.name, spec.fields, single)
        patch: dict[int, int] = {}
        for field, how, at in zip(keys, (HOW_A, HOW_B), (AT_A, AT_B), strict=False):
            kind = RECORD | field.size | SIGNED * field.signed | LOW * field.low
            patch |= {how: kind, at: field.offset}
        function = "pair_end" if half is spec.end else "pair_begin"
        if spec.end is None:
            function = "value_event" if spec.fields else "event"
        target = f"{half.provider}:{half.name}"
        attach.append(Attach(kind="tracepoint", function=function, target=target, patch=patch))
    return Wish("tracepoint", tuple(attach), **_measures(spec))


def _measures(spec: target_spec.Spec) -> dict[str, Any]:
    """What the histogram of a static probe or tracepoint, or of a pair of them, holds."""
    single = spec.end is None
    return {
        "counts_only": single and not spec.fields,
        "unit": "" if single and spec.fields else "ns",
        "by_text": bool(spec.text_field),
    }


def watches_calls(one: Attach) -> bool:
    """Whether the kernel looks at each system call of the machine for this one."""
    return one.kind == "tracepoint" and one.target.startswith("syscalls:")


def _usdt(spec: target_spec.Spec, pid: int | None) -> Wish:
    """One static probe, counted or measured by an argument, or a pair of them."""
    starts = nops.checked(binaries.places(spec, pid))
    if spec.end is None:
        function = "value_event" if spec.fields else "event"
        attach = _arguments(starts, function, spec.fields, spec.text_field)
        return Wish("usdt", attach, len(starts), **_measures(spec))
    begin, end = ("pair_begin", "pair_end") if spec.fields else ("nest_begin", "nest_end")
    ends = nops.checked(binaries.places(spec.end, pid))
    attach = (
        # The text is read where the duration is known: at the end.
        *_arguments(ends, end, spec.fields, spec.text_field),
        *_arguments(starts, begin, spec.fields, ""),
    )
    if not spec.fields:
        attach = (replace(_THREAD_END, function="nest_thread_end"), *attach)
    return Wish("usdt", attach, len(starts), floor=empty_functions.PUSH, **_measures(spec))


def _arguments(
    found: Iterable[binaries.FilePlace], function: str, fields: Sequence[str], text_field: str
) -> tuple[Attach, ...]:
    """Programs at places of a static probe, which read their arguments; raises ProbeError."""
    made = []
    for place, attach in zip(found, places_of(found, function), strict=True):
        patch: dict[int, int] = {}
        wanted = [*zip(fields, (HOW_A, HOW_B), (AT_A, AT_B), strict=False)]
        wanted += [(text_field, HOW_TEXT, AT_TEXT)] if text_field else []
        for name, how, at in wanted:
            operand = _operand(place, name)
            patch |= {how: operand.how, at: operand.at}
        made.append(replace(attach, patch=patch))
    return tuple(made)


def _operand(place: binaries.FilePlace, name: str) -> Operand:
    number = int(name.removeprefix("arg"))
    known = place.arguments
    if number >= len(known):
        has = ", ".join(f"arg{at} {one.describe()}" for at, one in enumerate(known))
        why = f"the static probe {quote(place.name)} has no {name}"
        raise ProbeError(why, f"choose from {has}" if has else "it carries no arguments")
    argument = known[number]
    if argument.operand is None:
        what = "a floating-point number" if "f@" in argument.text else quote(argument.text)
        why = f"{name} of the static probe {quote(place.name)} is {what}, which cannot be read"
        raise ProbeError(why, "name another argument, or none")
    return argument.operand


def _user(spec: target_spec.Spec, pid: int | None, force: bool) -> Wish:
    calls = timing_ends.choose(binaries.places(spec, pid), force)
    found = nops.behind(calls.begins)
    if calls.how == "counted":
        attach = places_of(found, "event")
        return Wish("uprobe", attach, len(found), counts_only=True, why=calls.why, fix=calls.fix)
    others = places_of(nops.behind(calls.counted), "untimed") if calls.counted else ()
    kind = empty_functions.kind_of(found[0].file or found[0].path, found[0].offset)
    if calls.how == "return probe":
        _, leave, enter = RETURNS["uprobe"]
        ends = tuple(replace(one, kind="uretprobe") for one in places_of(found, leave))
    else:
        enter, leave = OWN[calls.how]
        kind += empty_functions.OWN
        shared = (replace(one, patch=SHARED) for one in places_of(calls.shared, leave))
        ends = (*places_of(calls.ends, leave), *shared)
    # Returns first: a call that begins between the two is missed, not half seen.
    thread = () if calls.how == "goroutine" else (_THREAD_END,)
    attach = (*thread, *ends, *places_of(found, enter), *others)
    many = len(found) + len(others)
    return Wish("uprobe", attach, many, floor=kind, why=calls.why, fix=calls.fix)


def places_of(found: Iterable[binaries.FilePlace], function: str) -> tuple[Attach, ...]:
    """A program at each of some places."""
    return tuple(
        Attach(
            kind="uprobe",
            function=function,
            path=place.file.link if place.file else place.path,
            file=place.file,
            name=place.name,
            offset=place.offset,
            counter=place.semaphore,
        )
        for place in found
    )


def kernel_function(spec: target_spec.Spec) -> Wish:
    """A kernel function, or up to 64 by a wildcard, by the mechanism that is there."""
    mechanism = spec.kind
    if mechanism == "func":
        mechanism = "fentry" if fentry_works() else "kprobe"
    wanted: Any = mechanism
    known = kernel_functions.this_kernel()
    if spec.wildcard:
        names = [f.name for f in known.expand(spec.symbol, wanted)]
    else:
        names = [known.function(spec.symbol, wanted).name]
    back, leave, enter = RETURNS[mechanism]
    attach = [_THREAD_END]
    for name in names:
        attach.append(Attach(kind=back, function=leave, target=name))  # type: ignore[arg-type]
        attach.append(Attach(kind=mechanism, function=enter, target=name))  # type: ignore[arg-type]
    return Wish(mechanism, tuple(attach), len(names))


def parts(attach: Iterable[Attach], floors: Iterable[str]) -> dict[str, int]:
    """The macros of the source's parts that are wanted, by targets and to find floors."""
    used = {one.function for one in attach}
    for mechanism in floors:
        if mechanism in empty_functions.KINDS or mechanism == "kprobe":
            used.add("function_leave")
        elif mechanism.endswith(empty_functions.OWN):
            used.add("own_leave")
        else:
            used.add("trampoline_leave" if mechanism == "fentry" else "pair_end")
    return {PARTS[function]: 1 for function in sorted(used) if function in PARTS}


@cache
def fentry_works() -> bool:
    """Whether this kernel lets us attach by fentry, found out by trying."""
    from probes.uprobes import kernel_trials

    try:
        kernel_trials.fentry()
    except (OSError, kernel_trials.Unavailable, kernel_trials.Untried):
        return False
    return True
