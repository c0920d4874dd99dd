# SPDX-License-Identifier: Apache-2.0
"""What can be left out of sums over a long time: rows of what has ended that no table will show.

Tables have their first rows by what was counted. What has ended counts no more, so a row of it
that is behind the first KEPT stays behind them: only how many there are and what their numbers
add up to is told of it. A storm of short processes would need a row each otherwise.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from heapq import nsmallest

from probes.core.sample import Counts

KEPT = 500
"""Rows that stay of each table; no table is longer."""


ROOM = 20_000
"""Rows that come before it is worth looking again."""


Left = dict[str, dict[str, int]]


def leave(left: Left, table: str, rows: int, **numbers: int) -> None:
    """Note what was left out of a table."""
    known = left.setdefault(table, {})
    for name, number in {"rows": rows, **numbers}.items():
        known[name] = known.get(name, 0) + number


def without_first(
    matrix: Mapping[tuple[int, str], Counts], alive: Container[int]
) -> tuple[dict[int, Counts], int]:
    """Dead processes that have no first rows, neither by themselves nor by call.

    With what they counted, and how many calls by name that was.
    """
    dead = {key: n for key, n in matrix.items() if key[0] not in alive}
    sums: dict[int, Counts] = {}
    for (pid, _), n in dead.items():
        old = sums.get(pid)
        sums[pid] = n if old is None else Counts(old.n + n.n, old.errors + n.errors)
    # The first of the dead alone: those that are the first of all are among them.
    first = set(nsmallest(KEPT, sums, key=lambda pid: (-sums[pid].n, pid)))
    first |= {pid for pid, _ in nsmallest(KEPT, dead, key=lambda key: (-dead[key].n, key))}
    gone = {pid: n for pid, n in sums.items() if pid not in first}
    return gone, sum([pid in gone for pid, _ in dead])
