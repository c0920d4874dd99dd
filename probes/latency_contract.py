# SPDX-License-Identifier: Apache-2.0
"""The latency probe's part of a stream object."""

from __future__ import annotations

from typing import Any

from probes import hdr
from probes.model import LatencyView, TargetRow, latency_view
from probes.samples import LatencySample


def latency_contract(
    before: LatencySample | None, after: LatencySample, seconds: float
) -> dict[str, Any]:
    """`targets`, for the interval of `seconds` between two Samples."""
    view = latency_view(before, after, seconds)
    return {
        "targets": [
            {**_target_object(row), "behind": _behind_objects(view, row)} for row in view.targets
        ]
    }


def _behind_objects(view: LatencyView, row: TargetRow) -> list[dict[str, Any]]:
    """Who called a target: processes, or the texts that calls are told apart by."""
    found = view.behind(row.target.spec)
    if row.target.by_text:
        return [{"text": r.comm, "count": r.count, "total": r.total} for r in found]
    return [{"pid": r.pid, "comm": r.comm, "count": r.count, "total": r.total} for r in found]


def _bucket(index: int, count: int) -> list[int | None]:
    low, high = hdr.bounds(index)
    return [low, None if index == hdr.LAST else high, count]


def _target_object(row: TargetRow) -> dict[str, Any]:
    """One target as the contract has it.

    `buckets` are [from, to, count] in ns; the last there is has no end, and None for it.
    Where `max_exact` is false, `max` is a bound that no duration exceeds.
    """
    target = row.target
    return {
        "spec": target.spec,
        "mechanism": target.mechanism,
        "state": target.state,
        "why": target.why,
        "fix": target.fix,
        "functions": target.functions,
        "counts_only": target.counts_only,
        "unit": target.unit,
        "seconds": row.seconds if row.count is not None else None,
        "count": row.count,
        "p50": row.p50,
        "p90": row.p90,
        "p99": row.p99,
        "p999": row.p999,
        "max": row.maximum,
        "max_exact": row.exact,
        "mean": row.mean,
        "total": row.total,
        "missed": row.missed,
        "overflow": row.overflow,
        "floor": target.floor,
        "file": target.file,
        "buckets": [_bucket(i, n) for i, n in sorted(row.spent.buckets.items())],
    }
