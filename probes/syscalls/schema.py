# SPDX-License-Identifier: Apache-2.0
"""What the probe of system calls measures, see `probes.core.schema`."""

from __future__ import annotations

from probes.core.schema import (
    ComparedRows,
    KeyColumn,
    MeasureColumn,
    Percentile,
    Rate,
    RateLine,
    Schema,
    TableSchema,
)

PROCESS = KeyColumn(name="process", process=True)
COUNTS = (
    MeasureColumn(name="count", title="calls"),
    MeasureColumn(name="errors", help="calls that returned an error"),
)

SYSCALLS = Schema(
    title="system calls",
    tables=(
        TableSchema(
            name="rows",
            title="By call",
            item="syscall",
            key=(KeyColumn(name="syscall", title="call"),),
            measures=(
                *COUNTS,
                MeasureColumn(name="total", unit="ns", help="all its calls together"),
            ),
            limit="calls",
        ),
        TableSchema(name="processes", title="By process", key=(PROCESS,), measures=COUNTS),
        TableSchema(
            name="matrix",
            title="By process and call",
            key=(PROCESS, KeyColumn(name="syscall", title="call")),
            measures=COUNTS,
            limit="matrix",
        ),
    ),
    lines=(RateLine("calls"), RateLine("errors"), RateLine("estimated", optional=True)),
    figures=(
        ComparedRows(
            table="rows",
            what="syscall",
            item="syscall",
            duty="duty",
            figures=(
                Rate(quantity="calls/s", field="count", error="error"),
                Rate(quantity="errors/s", field="errors", error="errors_error", weight=3.0),
                Percentile(quantity="p50", field="p50", weight=1.5),
                Percentile(quantity="p99", field="p99", weight=2.0),
            ),
        ),
    ),
    sum_path="probes.syscalls.sum:SyscallSum",
    records_path="probes.syscalls.totals:Syscalls",
    heavy=("matrix", "errnos", "latency"),
    spreads=("latency",),
)
