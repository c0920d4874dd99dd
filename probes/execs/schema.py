# SPDX-License-Identifier: Apache-2.0
"""What the probe of program executions measures, see `probes.core.schema`."""

from __future__ import annotations

from probes.core.schema import (
    ComparedRows,
    KeyColumn,
    MeasureColumn,
    Rate,
    RateLine,
    Schema,
    TableSchema,
)

EXECS = Schema(
    title="executions",
    tables=(
        TableSchema(
            name="programs",
            title="By program",
            item="program",
            key=(KeyColumn(name="program"),),
            measures=(
                MeasureColumn(name="starts"),
                MeasureColumn(name="failed", help="searches that found no program to run"),
                MeasureColumn(name="nonzero", help="ends with an exit code other than 0"),
                MeasureColumn(name="killed", help="ends by a signal"),
            ),
            limit="programs",
            summed=("starts", "failed"),
        ),
    ),
    lines=(RateLine("execs"), RateLine("failed"), RateLine("estimated", optional=True)),
    figures=(
        ComparedRows(
            table="programs",
            what="program",
            item="program",
            figures=(
                Rate(quantity="starts/s", field="starts", weight=1.5),
                # What bursts saw of failing ones is told, but not how many of a program there were.
                Rate(quantity="not found/s", field="failed", weight=3.0, unless="failed_duty"),
                Rate(quantity="exit code not 0/s", field="nonzero", weight=2.0),
                Rate(quantity="killed/s", field="killed", weight=3.0),
            ),
        ),
    ),
    duties=("failed_duty",),
    in_bursts="{run} looked for failing executions in bursts for {length}: programs that were not "
    "found are not compared.",
    sum_path="probes.execs.sum:ExecSum",
    records_path="probes.execs.totals:Execs",
)
