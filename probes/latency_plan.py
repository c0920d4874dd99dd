# SPDX-License-Identifier: Apache-2.0
"""From targets as users write them to programs and events. Runs in the loader, as root."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from probes import binaries, empty, hdr, kernel, resolve, specs, tracepoints
from probes.base import Attach, ProbeError
from probes.control import Control
from probes.rows import Histograms, slices_for
from probes.samples import NO_HISTOGRAM, Filters

MOST_TARGETS = 127
"""Most targets that are loaded together."""

_PATCH = 0x50544F5000000000
TARGET, FIELDS, OFFSET_A, SIZE_A, OFFSET_B, SIZE_B = range(_PATCH + 1, _PATCH + 7)
"""The constants of latency.bpf.c."""
NO_KEY = {FIELDS: 0, OFFSET_A: 0, SIZE_A: 8, OFFSET_B: 0, SIZE_B: 8}
"""The thread is the key; fields that are not used have sizes that the verifier takes."""

DEFAULTS = ("runq", "blockio", "softirq", "irq")
"""What is shown when nobody asked for anything, as far as this kernel has it."""

_RAW = {
    "blockio": (("pair_end", "block_rq_complete"), ("pair_begin", "block_rq_issue")),
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
_RETURNS = {
    "kprobe": ("kretprobe", "function_leave", "function_enter"),
    "uprobe": ("uretprobe", "function_leave", "function_enter"),
    "fentry": ("fexit", "trampoline_leave", "trampoline_enter"),
}


@dataclass(frozen=True, slots=True)
class Wish:
    """How one target is measured.

    `foreign`: the process that is charged is not the one that runs when the time is taken,
    so its name has to be looked up. `floor` names the calibration that tells what an empty
    call of it would show; "" is the mechanism's own.
    """

    mechanism: str
    attach: tuple[Attach, ...]
    functions: int = 1
    counts_only: bool = False
    foreign: bool = False
    floor: str = ""

    def facts(self, spec: str, slot: int) -> dict[str, Any]:
        """What the dashboard is told of the target."""
        return {
            "spec": spec,
            "slot": slot,
            "mechanism": self.mechanism,
            "functions": self.functions,
            "counts_only": self.counts_only,
            "foreign": self.foreign,
            "floor": self.floor or self.mechanism,
        }


def wish(text: str, slot: int, pid: int | None = None) -> Wish:
    """What to attach for a target; raises ProbeError if this machine has it not."""
    spec = specs.parse(text)
    made = _wish(spec, pid)
    attach = tuple(
        replace(one, group=slot, patch={TARGET: slot, **NO_KEY, **one.patch}) for one in made.attach
    )
    return replace(made, attach=attach)


def _wish(spec: specs.Spec, pid: int | None) -> Wish:
    if spec.kind == "preset":
        return _preset(spec.name)
    if spec.kind == "syscall":
        resolve.syscall_number(spec.name)
        return _syscall(spec.name)
    if spec.kind == "tracepoint":
        return _tracepoints(spec)
    if spec.kind in ("uprobe", "usdt"):
        return _user(spec, pid)
    return _function(spec)


def _preset(name: str) -> Wish:
    attach = [
        Attach(kind="raw_tracepoint", function=function, target=target)
        for function, target in _RAW[name]
    ]
    if name == "blockio":
        # The request itself is the key: the first argument, before Linux 5.11 of issue the second.
        attach = [
            replace(one, patch={FIELDS: 1, OFFSET_A: _request_offset(one.target), SIZE_A: 8})
            for one in attach
        ]
    return Wish("tracepoint", tuple(attach), foreign=True)


def _request_offset(target: str) -> int:
    old = tuple(int(n) for n in re.findall(r"\d+", kernel.release())[:2]) < (5, 11)
    return 8 if old and target == "block_rq_issue" else 0


def _syscall(name: str) -> Wish:
    start, end = f"syscalls:sys_enter_{name}", f"syscalls:sys_exit_{name}"
    attach = (
        Attach(kind="tracepoint", function="pair_end", target=end),
        Attach(kind="tracepoint", function="pair_begin", target=start),
    )
    return Wish("syscall", attach)


def _tracepoints(spec: specs.Spec) -> Wish:
    tracefs = kernel.tracefs()
    halves = [spec] if spec.end is None else [spec.end, spec]
    attach = []
    for half in halves:
        function = "event" if spec.end is None else "pair_end" if half is spec.end else "pair_begin"
        tracepoints.tracepoint_format(tracefs, half.provider, half.name)
        keys = tracepoints.key_fields(tracefs, half.provider, half.name, spec.fields)
        if len(keys) > 2:
            raise ProbeError(f"{spec} is joined by {len(keys)} fields", "name two at most")
        patch = {FIELDS: len(keys)}
        for field, offset, size in zip(keys, (OFFSET_A, OFFSET_B), (SIZE_A, SIZE_B), strict=False):
            patch |= {offset: field.offset, size: field.size}
        target = f"{half.provider}:{half.name}"
        attach.append(Attach(kind="tracepoint", function=function, target=target, patch=patch))
    return Wish(
        "tracepoint", tuple(attach), counts_only=spec.end is None, foreign=bool(spec.fields)
    )


def _user(spec: specs.Spec, pid: int | None) -> Wish:
    found = binaries.places(spec, pid)
    if spec.end is not None:
        ends = _places(binaries.places(spec.end, pid), "pair_end")
        attach = (*ends, *_places(found, "pair_begin"))
        return Wish("usdt", attach, len(found), floor=empty.PUSH)
    if any(place.no_return for place in found):
        return Wish(spec.kind, _places(found, "event"), len(found), counts_only=True)
    _, leave, enter = _RETURNS["uprobe"]
    # Returns first: a call that begins between the two is missed, not half seen.
    attach = (
        _THREAD_END,
        *(replace(one, kind="uretprobe") for one in _places(found, leave)),
        *_places(found, enter),
    )
    return Wish("uprobe", attach, len(found), floor=empty.kind_of(found[0].path, found[0].offset))


def _places(found: Iterable[binaries.Place], function: str) -> tuple[Attach, ...]:
    return tuple(
        Attach(
            kind="uprobe",
            function=function,
            path=place.path,
            name=place.name,
            offset=place.offset,
            counter=place.semaphore,
        )
        for place in found
    )


def _function(spec: specs.Spec) -> Wish:
    """A kernel function, or up to 64 by a wildcard, by the mechanism that is there."""
    mechanism = spec.kind
    if mechanism == "func":
        mechanism = "fentry" if fentry_works() else "kprobe"
    wanted: Any = mechanism
    known = resolve.this_kernel()
    if spec.wildcard:
        names = [f.name for f in known.expand(spec.symbol, wanted)]
    else:
        names = [known.function(spec.symbol, wanted).name]
    back, leave, enter = _RETURNS[mechanism]
    attach = [_THREAD_END]
    for name in names:
        attach.append(Attach(kind=back, function=leave, target=name))  # type: ignore[arg-type]
        attach.append(Attach(kind=mechanism, function=enter, target=name))  # type: ignore[arg-type]
    return Wish(mechanism, tuple(attach), len(names))


@cache
def fentry_works() -> bool:
    """Whether this kernel lets us attach by fentry, found out by trying."""
    from probes import trials

    try:
        trials.fentry()
    except (OSError, trials.Unavailable, trials.Untried):
        return False
    return True


def measured(mechanisms: Iterable[str], slot: int) -> Callable[..., Mapping[str, Any]]:
    """A calibration (see Plan): the floor of each mechanism in ns, from an almost empty call.

    It takes the slot of the histograms behind those of the targets.
    """
    wanted = sorted(set(mechanisms))

    def calibrate(maps: Mapping[str, int], attach: Callable[[Attach], int]) -> Mapping[str, Any]:
        control = Control(os.dup(maps["control"]))
        hists = Histograms(os.dup(maps["hists"]), slices_for(kernel.possible_cpus()), slot + 1)
        control.set_filters(Filters(pid=os.getpid()))
        control.next_epoch()
        control.enable(True)
        floors: dict[str, float] = {}
        seen = NO_HISTOGRAM
        for mechanism in wanted:
            with suppress(ProbeError, OSError):
                _call(mechanism, attach, slot)
            found = hists.read(slot, seen)
            if found is not seen:
                new = {i: n - seen.buckets.get(i, 0) for i, n in found.buckets.items()}
                floor = hdr.percentile(new, 0.5)
                if floor is not None:
                    floors[mechanism] = floor
            seen = found
        control.enable(False)
        control.set_filters(Filters())
        control.close()
        hists.close()
        return {"floors": floors}

    return calibrate


def _call(mechanism: str, attach: Callable[[Attach], int], slot: int, times: int = 400) -> None:
    """Attach to something that does next to nothing, and have it done."""
    function: Callable[[], object] = os.getpid
    if mechanism in empty.KINDS:
        place, function = empty.function(mechanism)
        _, leave, enter = _RETURNS["uprobe"]
        made: tuple[Attach, ...] = (
            *(replace(one, kind="uretprobe") for one in _places([place], leave)),
            *_places([place], enter),
        )
    elif mechanism in ("kprobe", "fentry"):
        prefix = "x64" if kernel.arch() == "x86_64" else "arm64"
        made = _function(specs.parse(f"{mechanism}:__{prefix}_sys_getpid")).attach
    else:
        made = _syscall("getpid").attach
    links: list[int] = []
    try:
        patch = {TARGET: slot, **NO_KEY}
        links.extend(attach(replace(one, patch=patch)) for one in made)
        for _ in range(times):
            function()
    finally:
        for fd in links:
            os.close(fd)
