# SPDX-License-Identifier: Apache-2.0
"""Rows that are made when they are looked at: the same as all of them, sorted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from probes.core.lazy_rows import Ranked

ranks = st.lists(st.tuples(st.integers(-3, 3), st.floats(-2, 2)), max_size=120)


@given(ranks, st.lists(st.integers(-5, 130), max_size=3))
def test_any_part_is_that_of_the_sorted_rows(
    values: list[tuple[int, float]], ns: list[int]
) -> None:
    made = [(*value, pid) for pid, value in enumerate(values)]
    wanted = [f"row {rank[-1]}" for rank in sorted(made)]
    rows = Ranked(list(made), lambda pid: f"row {pid}")
    assert len(rows) == len(wanted)
    for n in ns:
        assert rows[:n] == wanted[:n]
        assert rows[n : n + 4] == wanted[n : n + 4]
    assert rows[:] == wanted
    assert rows[0:] == wanted
    assert list(rows) == wanted
    assert rows == wanted
    assert rows != [*wanted, "another"]
    assert sorted(rows.ids()) == list(range(len(wanted)))
    if wanted:
        assert (rows[0], rows[-1]) == (wanted[0], wanted[-1])


def test_only_what_is_looked_at_is_made_and_once() -> None:
    made: list[int] = []

    def make(pid: int) -> int:
        made.append(pid)
        return pid

    rows = Ranked([(-pid % 7, pid) for pid in range(1000)], make)
    assert rows[:5] == [0, 7, 14, 21, 28]
    assert rows[:2] == [0, 7]
    assert rows.row(500) == 500
    assert made == [0, 7, 14, 21, 28, 500]
