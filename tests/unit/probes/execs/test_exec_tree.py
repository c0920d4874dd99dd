# SPDX-License-Identifier: Apache-2.0
"""Rows of executions below those that started them."""

from __future__ import annotations

from probes.execs.process_log import ExecRow
from probes.execs.tree import exec_rows


def test_a_program_is_below_the_one_that_started_it() -> None:
    shell = ExecRow(1, 1.0, 7, "sh", ended=9.0)
    child = ExecRow(2, 2.0, 8, "ls", ppid=7, ended=3.0)
    assert [(row["pid"], row["depth"]) for row in exec_rows([shell, child], 100)] == [
        (7, 0),
        (8, 1),
    ]


def test_what_has_ended_starts_nothing_any_more() -> None:
    gone = ExecRow(1, 1.0, 7, "sh", ended=1.5)
    child = ExecRow(2, 2.0, 8, "ls", ppid=7)
    assert [(row["pid"], row["depth"]) for row in exec_rows([gone, child], 100)] == [
        (7, 0),
        (8, 0),
    ]
