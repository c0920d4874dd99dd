# SPDX-License-Identifier: Apache-2.0
"""The latency probe's part of a stream object."""

from __future__ import annotations

from typing import Any

from probes.core import histogram
from probes.core.estimates import duty_object, known_error
from probes.core.sample import Duty
from probes.latency.sample import LatencySample
from probes.latency.view import LatencyView, SpentRow, TargetRow, latency_view


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
    who = {"text": "comm"} if row.target.by_text else {"pid": "pid", "comm": "comm"}
    fields = {**who, "count": "count", "total": "total"}
    return [
        {
            **{name: getattr(one, field) for name, field in fields.items()},
            **_estimate(one, row.duty),
        }
        for one in found
    ]


def _estimate(row: TargetRow | SpentRow, duty: Duty | None) -> dict[str, Any]:
    """How much of a row is estimated from bursts, and the standard error; of others nothing."""
    if duty is None or row.error is None:
        return {}
    error = known_error(row.count or 0, row.error, duty)
    return {"estimated": row.estimated, "error": error}


def _bucket(index: int, count: int) -> list[int | None]:
    low, high = histogram.bounds(index)
    return [low, None if index == histogram.LAST else high, count]


def _target_object(row: TargetRow) -> dict[str, Any]:
    """One target as the contract has it.

    `buckets` are [from, to, count] in ns; the last there is has no end, and None for it.
    Where `max_exact` is false, `max` is a bound that no duration exceeds; of a target that is
    attached in bursts, which has a `duty`, it is the longest that they saw. `count` is null while
    there is no estimate: an interval may have no burst.
    """
    target = row.target
    return {
        "spec": target.spec,
        "mechanism": target.mechanism,
        "state": target.state,
        "why": target.why,
        "fix": target.fix,
        "given_up": target.given_up,
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
        **({"duty": duty_object(row.duty)} if target.duty is not None else {}),
        **_estimate(row, row.duty),
    }
