# SPDX-License-Identifier: Apache-2.0
"""Opening counters on the CPUs of this machine, and what a refusal means."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from probes.bpf import bpf_syscall
from probes.core import kernel
from probes.pmc.events import Event, core_pmus


class Offer(NamedTuple):
    """What this machine counts of some events; `absent` has why not, `reason` why no hardware."""

    events: tuple[Event, ...]
    absent: dict[str, str]
    reason: str | None


def offered(events: Iterable[Event]) -> Offer:
    """Try each event on a CPU of each kind, and close it again."""
    present: list[Event] = []
    refused: dict[str, OSError] = {}
    asked = list(events)
    for event in asked:
        refusal = _try(event)
        if refusal is None:
            present.append(event)
        else:
            refused[event.name] = refusal
    reason = None
    if not any(event.hardware for event in present):
        errors = [refused[e.name] for e in asked if e.hardware and e.name in refused]
        reason = _reason(errors)
    return Offer(tuple(present), {name: why(error) for name, error in refused.items()}, reason)


def fill(events: Sequence[Event], array: int, stride: int) -> dict[str, str]:
    """Open events on all CPUs that run, each into the map `array` at slot * stride + CPU.

    The map keeps them. Returns why some CPUs have not all of them, by event.
    """
    missing: dict[str, str] = {}
    for slot, event in enumerate(events):
        failed: dict[int, OSError] = {}
        for cpu in kernel.online_cpus():
            counter = event.on(cpu)
            if counter is None:
                continue
            try:
                fd = counter.open(cpu)
                try:
                    bpf_syscall.map_update(array, slot * stride + cpu, fd)
                finally:
                    os.close(fd)
            except OSError as refusal:
                if refusal.errno != errno.ENODEV:  # it has gone offline just now
                    failed[cpu] = refusal
        if failed:
            cpu, error = next(iter(failed.items()))
            others = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
            missing[event.name] = f"not on CPU {cpu}{others}: {why(error)}"
    return missing


def _try(event: Event) -> OSError | None:
    """Why an event cannot be opened on any kind of CPU; None if it can."""
    first: OSError | None = None
    online = kernel.online_cpus()
    for counter in event.counters:
        cpus = [cpu for cpu in online if counter.cpus is None or cpu in counter.cpus]
        if not cpus:
            continue
        try:
            os.close(counter.open(cpus[0]))
        except OSError as error:
            first = first or error
        else:
            return None
    return first or OSError(errno.ENODEV, os.strerror(errno.ENODEV))


def why(error: OSError) -> str:
    """What it means that perf_event_open refused an event, with the errno's name."""
    number = error.errno or 0
    return f"{_meaning(number)} ({_name(number)})"


def _name(number: int) -> str:
    # Two names have this number, and Python takes the one that perf does not.
    known = errno.errorcode.get(number, str(number))
    return "EOPNOTSUPP" if number == errno.EOPNOTSUPP else known


def _meaning(number: int) -> str:
    if number in (errno.EACCES, errno.EPERM):
        if kernel.lockdown() not in (None, "none"):
            return f"kernel lockdown ({kernel.lockdown()}) or kernel.perf_event_paranoid forbids it"
        level = kernel.read_text("/proc/sys/kernel/perf_event_paranoid")
        return f"kernel.perf_event_paranoid = {level} or a security module forbids it"
    if number == errno.EBUSY:
        if kernel.read_text("/proc/sys/kernel/nmi_watchdog") == "1":
            return "the NMI watchdog holds a counter: sysctl kernel.nmi_watchdog=0"
        return "somebody else holds the counter"
    meanings = {
        errno.ENOENT: "the CPU has no such counter",
        errno.EOPNOTSUPP: "the CPU's PMU does not support it",
        errno.EINVAL: "the CPU's PMU does not take it",
        errno.ENODEV: "none of the CPUs that run has such a PMU",
        errno.ENOSYS: "this kernel has no perf events (CONFIG_PERF_EVENTS)",
        errno.ENOSPC: "more events than the PMU can ever hold",
    }
    return meanings.get(number, os.strerror(number))


def _reason(errors: Sequence[OSError]) -> str:
    """One sentence: why there is no hardware counter."""
    if not errors:
        return "no hardware counter was asked for"
    number = errors[0].errno
    if number in (errno.ENOENT, errno.EOPNOTSUPP, errno.ENODEV) and not core_pmus():
        machine = kernel.virtual_machine()
        name = _name(number)
        if machine is None:
            return f"this machine shows no hardware counters (PMU): perf_event_open says {name}"
        kind = "" if machine == "unknown" else f" ({machine})"
        return f"this virtual machine{kind} was given no hardware counters (PMU): {name}"
    return f"no hardware counter can be opened: {why(errors[0])}"
