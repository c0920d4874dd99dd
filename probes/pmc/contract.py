# SPDX-License-Identifier: Apache-2.0
"""The counters' part of a stream object."""

from __future__ import annotations

from typing import Any

from probes.core.sample import Duty
from probes.pmc.bursts import IPC
from probes.pmc.sample import PmcSample
from probes.pmc.view import Counters, CpuRow, TaskRow, pmc_view

_OWN_FIELDS = frozenset((
    "pid", "comm", "cpu", "kind", "socket", "ipc", "running", "busy", "idle", "wait",
    "task_clock", "context_switches", "migrations",
))  # fmt: skip


def field_name(event: str) -> str:
    """The stream's name of an event: "cache-misses" is cache_misses."""
    name = event.replace("-", "_")
    return f"event_{name}" if name in _OWN_FIELDS else name


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _estimate_fields(row: Counters, duty: Duty | None) -> dict[str, Any]:
    """Of a row that is estimated in part: how much of each number, and the standard errors."""
    if not row.estimates:
        return {}
    names = {
        quantity: quantity if quantity in _OWN_FIELDS else field_name(quantity)
        for quantity in row.estimates
    }
    errors = {names[quantity]: row.error(quantity, duty) for quantity in names}
    parts = {names[quantity]: one.n for quantity, one in row.estimates.items() if quantity != IPC}
    return {"estimated": parts, "error": {name: e for name, e in errors.items() if e is not None}}


def _row_fields(row: Counters, sample: PmcSample) -> dict[str, Any]:
    """What rows of CPUs and of processes have in common; those that must be there are."""
    return {
        "cycles": None,
        "instructions": None,
        **{field_name(event): _whole(row.count(event)) for event in sample.events},
        "ipc": row.ipc,
        "running": row.running if sample.hardware else None,
        "context_switches": row.switches,
        "wait": row.wait,
    }


def _cpu_fields(row: CpuRow, sample: PmcSample, duty: Duty | None) -> dict[str, Any]:
    return {
        "cpu": row.cpu,
        **_row_fields(row, sample),
        "busy": row.clock,
        "idle": row.idle,
        "kind": row.kind,
        "socket": row.socket,
        **_estimate_fields(row, duty),
    }


def _process_fields(row: TaskRow, sample: PmcSample, duty: Duty | None) -> dict[str, Any]:
    return {
        "pid": row.pid,
        "comm": row.comm,
        "page_faults": None,
        **_row_fields(row, sample),
        "task_clock": row.clock,
        "migrations": row.migrations,
        **_estimate_fields(row, duty),
    }


def pmc_contract(before: PmcSample | None, after: PmcSample, seconds: float) -> dict[str, Any]:
    """The probe's own fields of a stream object.

    `cpus` and `processes` have every event by its name, whole numbers, scaled where `running`
    is below 1; `shares` has that by event, of the whole machine. Times are ns. What is not
    known, or has no counter, is None. A row of which bursts stand for a part has, by the names of
    its numbers, how much of each is `estimated`, and the standard `error` of each.
    """
    view = pmc_view(before, after, seconds)
    return {
        "hardware": after.hardware,
        "reason": after.reason,
        "event_set": after.event_set,
        "mode": after.mode,
        "events": list(after.events),
        "absent": dict(after.absent),
        "shares": {event: count.share for event, count in view.machine.counts.items()},
        "cpus": [_cpu_fields(row, after, view.duty) for row in view.cpus],
        "processes": [_process_fields(row, after, view.duty) for row in view.processes],
        "unattributed": view.unattributed,
    }
