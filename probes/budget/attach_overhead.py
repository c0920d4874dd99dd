# SPDX-License-Identifier: Apache-2.0
"""What tracing one call costs on this machine, by mechanism: tried out, not known by heart."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cache

from probes.bpf import bpf_syscall, btf
from probes.bpf.attach import Attacher
from probes.bpf.plan import Attach
from probes.core import kernel
from probes.core.errors import ProbeError
from probes.uprobes import empty_functions

CALLS, ROUNDS = 300, 3


def _wishes(mechanism: str) -> tuple[list[Attach], Callable[[], object]]:
    name = "__x64_sys_getpid" if kernel.arch() == "x86_64" else "__arm64_sys_getpid"
    if mechanism in ("uprobe", "usdt"):
        place, function = empty_functions.function(empty_functions.PUSH)
        kinds = ("uprobe", "uretprobe") if mechanism == "uprobe" else ("uprobe",)
        return [
            Attach(kind="uretprobe" if kind == "uretprobe" else "uprobe", function="f",
                   path=place.path, offset=place.offset)
            for kind in kinds
        ], function  # fmt: skip
    if mechanism == "kprobe":
        return [
            Attach(kind="kretprobe", function="f", target=name),
            Attach(kind="kprobe", function="f", target=name),
        ], os.getpid
    if mechanism == "fentry":
        return [
            Attach(kind="fexit", function="f", target=name),
            Attach(kind="fentry", function="f", target=name),
        ], os.getpid
    sides = ("enter", "exit") if mechanism == "syscall" else ("enter",)
    return [
        Attach(kind="tracepoint", function="f", target=f"syscalls:sys_{side}_getpid")
        for side in sides
    ], os.getpid


def fastest(function: Callable[[], object]) -> float:
    """Nanoseconds of one call: the mean of the fastest of some rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter_ns()
        for _ in range(CALLS):
            function()
        best = min(best, (time.perf_counter_ns() - start) / CALLS)
    return best


def a_call() -> float:
    """Nanoseconds of a system call that does next to nothing, as this process makes it."""
    return fastest(os.getppid)


@cache
def price(mechanism: str) -> float | None:
    """Nanoseconds that an empty program adds to one call; None where it cannot be attached."""
    if mechanism not in ("uprobe", "usdt", "kprobe", "fentry", "syscall", "tracepoint"):
        return None
    links: list[int] = []
    try:
        wishes, function = _wishes(mechanism)
        types = btf.KernelBTF() if mechanism == "fentry" else None
        attacher = Attacher(
            lambda name: bpf_syscall.RETURN_0, types.function_id if types else lambda name: None
        )
        bare = fastest(function)
        links = [attacher.attach(wish) for wish in wishes]
        return max(0.0, fastest(function) - bare)
    except (ProbeError, OSError):
        return None
    finally:
        for fd in links:
            os.close(fd)
