# SPDX-License-Identifier: Apache-2.0
"""What the probe of hardware and software counters measures, see `probes.core.schema`."""

from __future__ import annotations

from probes.core.schema import (
    ComparedRows,
    KeyColumn,
    MeasureColumn,
    Rate,
    Ratio,
    RatioLine,
    Schema,
    TableSchema,
)

TIMES = (
    MeasureColumn(name="context_switches", title="switches"),
    MeasureColumn(name="wait", unit="ns", help="runnable, but without a CPU"),
)

PMC = Schema(
    title="PMC",
    tables=(
        TableSchema(
            name="cpus",
            title="CPUs",
            key=(KeyColumn(name="cpu", title="CPU"),),
            measures=(
                MeasureColumn(name="busy", unit="ns", help="with a process"),
                MeasureColumn(name="idle", unit="ns", help="without a process"),
                *TIMES,
            ),
            limit="",
        ),
        TableSchema(
            name="processes",
            title="Processes",
            item="process",
            key=(KeyColumn(name="process", process=True),),
            measures=(
                MeasureColumn(name="task_clock", unit="ns", title="time", help="on a CPU"),
                *TIMES,
                MeasureColumn(name="migrations"),
            ),
            summed=("task_clock",),
        ),
    ),
    lines=(
        RatioLine("busy", "busy", ("busy", "idle")),
        RatioLine("ipc", "instructions", ("cycles",)),
    ),
    figures=(
        ComparedRows(
            table="processes",
            what="process",
            item="comm",
            duty="duty",
            figures=(
                Rate(
                    quantity="% of a CPU", field="task_clock", error="error", scale=1e7, weight=1.5,
                    percent=True,
                ),
                # One is the least that can be counted: a quotient by less may be any number.
                Ratio(
                    quantity="IPC", part="instructions", whole=("cycles",), events="cycles",
                    least=1.0, weight=1.5,
                ),
            ),
        ),
        ComparedRows(
            table="cpus",
            what="machine",
            all_items="all CPUs",
            closes=False,
            figures=(
                Ratio(
                    quantity="% busy", part="busy", whole=("busy", "idle"), events="busy",
                    weight=2.0, percent=True,
                ),
            ),
        ),
    ),
    sum_path="probes.pmc.sum:PmcSum",
    records_path="probes.pmc.totals:Pmc",
)  # fmt: skip
