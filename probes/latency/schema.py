# SPDX-License-Identifier: Apache-2.0
"""What the probe of latencies measures, see `probes.core.schema`."""

from __future__ import annotations

from probes.core.schema import (
    ComparedRows,
    KeyColumn,
    MeasureColumn,
    Percentile,
    Rate,
    Schema,
    SpreadLines,
    TableSchema,
)

LATENCY = Schema(
    title="latency",
    tables=(
        TableSchema(
            name="targets",
            title="Targets",
            item="target",
            key=(KeyColumn(name="spec", title="target"),),
            measures=(MeasureColumn(name="count", kind="histogram", unit="ns", title="calls"),),
            limit="",
        ),
    ),
    lines=(SpreadLines(),),
    figures=(
        ComparedRows(
            table="targets",
            what="target",
            item="spec",
            needs="count",
            closes=False,
            duty="duty",
            figures=(
                Rate(quantity="calls/s", field="count", error="error"),
                Percentile(quantity="p50", field="p50", weight=1.5),
                Percentile(quantity="p99", field="p99", weight=2.0),
            ),
        ),
    ),
    sum_path="probes.latency.sum:LatencySum",
    records_path="probes.latency.totals:Latency",
    heavy=("processes", "texts"),
    spreads=("targets",),
)
