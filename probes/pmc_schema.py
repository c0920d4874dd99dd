# SPDX-License-Identifier: Apache-2.0
"""What the probe of hardware and software counters measures, see `probes.schema`."""

from __future__ import annotations

from probes.schema import Figures, Key, Measure, Rate, Ratio, RatioLine, Schema, Table

TIMES = (
    Measure(name="context_switches", title="switches"),
    Measure(name="wait", unit="ns", help="runnable, but without a CPU"),
)

PMC = Schema(
    title="PMC",
    tables=(
        Table(
            name="cpus",
            title="CPUs",
            key=(Key(name="cpu", title="CPU"),),
            measures=(
                Measure(name="busy", unit="ns", help="with a process"),
                Measure(name="idle", unit="ns", help="without a process"),
                *TIMES,
            ),
            limit="",
        ),
        Table(
            name="processes",
            title="Processes",
            item="process",
            key=(Key(name="process", process=True),),
            measures=(
                Measure(name="task_clock", unit="ns", title="time", help="on a CPU"),
                *TIMES,
                Measure(name="migrations"),
            ),
            summed=("task_clock",),
        ),
    ),
    lines=(
        RatioLine("busy", "busy", ("busy", "idle")),
        RatioLine("ipc", "instructions", ("cycles",)),
    ),
    figures=(
        Figures(
            table="processes",
            what="process",
            item="comm",
            figures=(
                Rate(
                    quantity="% of a CPU", field="task_clock", scale=1e7, weight=1.5, percent=True
                ),
                # One is the least that can be counted: a quotient by less may be any number.
                Ratio(
                    quantity="IPC", part="instructions", whole=("cycles",), events="cycles",
                    least=1.0, weight=1.5,
                ),
            ),
        ),
        Figures(
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
    sum_path="probes.pmc_sum:PmcSum",
)  # fmt: skip
