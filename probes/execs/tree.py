# SPDX-License-Identifier: Apache-2.0
"""Rows of executions as a tree: a program below the one whose process started it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from probes.core.cgroup_names import CgroupName
from probes.execs.process_log import NO_NAMES, ExecRow, group_of


def exec_rows(
    rows: Sequence[ExecRow], text: int, names: Mapping[str, CgroupName] = NO_NAMES
) -> list[dict[str, Any]]:
    """JSON objects of the rows, each followed by those below it; `depth` is 0 at the top.

    The fields are those of ExecRow, and `outcome` says how it ended. Of `args` the first `text`
    characters are kept (`truncated`). `group` is the word for the control group, from `names`
    where a container runtime told of it.
    """
    below: dict[int, list[ExecRow]] = {}
    latest: dict[int, ExecRow] = {}
    for row in sorted(rows, key=lambda row: (row.time, row.serial)):
        # Of a process that executed several programs, the last one until then started it.
        parent = latest.get(row.ppid) if row.ppid is not None else None
        # A parent lives when its child executes: an older one had the same pid.
        if parent is not None and parent.ended is not None and parent.ended < row.time:
            parent = None
        below.setdefault(parent.serial if parent else 0, []).append(row)
        if not row.failed:
            latest[row.pid] = row
    out: list[dict[str, Any]] = []
    left = [(row, 0) for row in reversed(below.get(0, []))]
    while left:
        row, depth = left.pop()
        out.append(_object(row, depth, text) | {"group": group_of(row.cgroup, names)})
        left += [(child, depth + 1) for child in reversed(below.get(row.serial, []))]
    return out


def _object(row: ExecRow, depth: int, text: int) -> dict[str, Any]:
    args, whole = _cut_args(row.args, text)
    return {
        "depth": depth,
        "time": round(row.time, 6),
        "pid": row.pid,
        "ppid": row.ppid,
        "uid": row.uid,
        "euid": row.euid,
        "comm": row.comm,
        "parent": row.parent,
        "args": args,
        "truncated": row.truncated or not whole,
        "path": row.path,
        "path_truncated": row.path_truncated,
        "cgroup": row.cgroup,
        "tries": row.tries,
        "ret": row.ret,
        "outcome": row.outcome(),
        "exit_code": row.exit_code,
        "signal": row.signal,
        "duration": row.duration,
    }


def _cut_args(args: tuple[str, ...] | None, text: int) -> tuple[list[str] | None, bool]:
    """As many characters of the arguments as are wanted, and whether that is all."""
    if args is None:
        return None, True
    out: list[str] = []
    for arg in args:
        if len(arg) > text:
            return [*out, arg[:text]], False
        out.append(arg)
        text -= len(arg)
    return out, True
