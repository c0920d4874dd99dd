# SPDX-License-Identifier: Apache-2.0
"""Tables rest: order, cursor and columns change only when they must."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tui.panes.table import PEAK, SLACK, Column, Table, sticky_order
from tui.shared.styled_lines import compose, line_text, line_width
from tui.shared.theme import Theme


@dataclass
class Item:
    name: str
    value: float | None


def table(sort: int | None = 1) -> Table[Item]:
    return Table(
        [
            Column("name", 8, lambda r: (r.name, ""), lambda r: r.name, right=False),
            Column(
                "n",
                6,
                lambda r: (f"{r.value:.0f}" if r.value is not None else "-", ""),
                lambda r: r.value,
            ),
            Column("extra", 10, lambda r: ("x", ""), None, right=False, drop=2),
            Column("more", 10, lambda r: ("y", ""), None, right=False, drop=1),
        ],
        lambda r: r.name,
        lambda r: r.name,
        sort,
    )


def names(of: Table[Item]) -> list[str]:
    return [row.name for row in of.rows]


def test_a_row_moves_up_only_when_it_is_more_than_ten_per_cent_ahead() -> None:
    assert sticky_order(["a", "b"], {"a": 100, "b": 109}) == ["a", "b"]
    assert sticky_order(["a", "b"], {"a": 100, "b": 111}) == ["b", "a"]
    assert sticky_order([], {"a": 100, "b": 101}) == ["b", "a"]


def test_small_steps_cannot_pile_up_to_a_wrong_order() -> None:
    values = {"a": 100.0, "b": 108.0, "c": 117.0, "d": 126.0}
    assert sticky_order(["a", "b", "c", "d"], values)[0] in ("c", "d")


@given(st.dictionaries(st.integers(0, 400), st.floats(0, 1e9), max_size=400), st.randoms())
def test_any_order_holds_every_key_and_is_right_but_for_near_ties(
    values: dict[int, float], random: object
) -> None:
    before = list(values)
    random.shuffle(before)  # type: ignore[attr-defined]
    order = sticky_order(before[: len(before) // 2], values)
    assert sorted(order) == sorted(values)
    # A further pass changes nothing: the order rests when the values do.
    assert sticky_order(order[:300], {k: values[k] for k in order[:300]}) == order[:300]


def test_the_cursor_stays_at_the_top_until_moved_and_then_follows_its_row() -> None:
    rows = table()
    rows.feed([Item("a", 30), Item("b", 20), Item("c", 10)])
    assert rows.current() == Item("a", 30)
    rows.feed([Item("a", 10), Item("b", 60), Item("c", 5)])
    assert rows.current() == Item("b", 60)
    rows.move("down")
    rows.feed([Item("a", 900), Item("b", 9), Item("c", 5)])
    assert rows.current() == Item("a", 900)
    assert names(rows)[0] == "a"
    rows.move("home")
    rows.feed([Item("a", 1), Item("b", 9000), Item("c", 5)])
    assert rows.current() == Item("b", 9000)


def test_a_dip_does_not_move_a_row_but_a_fall_does() -> None:
    rows = table()
    rows.feed([Item("a", 100), Item("b", 50)])
    for _ in range(2):
        rows.feed([Item("a", 80), Item("b", 95)])
        assert names(rows) == ["a", "b"]
    rows.feed([Item("a", 80), Item("b", 95)])
    assert names(rows) == ["b", "a"]


def test_a_row_of_few_is_not_above_one_of_many_whatever_it_was() -> None:
    rows = table()
    rows.feed([Item("a", 9000), Item("b", 5000)])
    rows.feed([Item("a", 20), Item("b", 5000)])
    assert names(rows) == ["b", "a"]


def test_rows_of_nothing_sink_at_once_and_rest_there() -> None:
    rows = table()
    rows.feed([Item("a", 9000), Item("b", 5000), Item("c", 3), Item("d", 1)])
    rows.feed([Item("a", 0), Item("b", 0), Item("c", 3), Item("d", 1)])
    assert names(rows) == ["c", "d", "a", "b"]
    rows.feed([Item("b", 0), Item("a", 0), Item("d", 1), Item("c", 0)])
    assert names(rows) == ["d", "c", "a", "b"]
    rows.feed([Item("b", 5), Item("a", 0), Item("d", 1), Item("c", 0)])
    assert names(rows) == ["b", "d", "c", "a"]


@given(st.lists(st.lists(st.floats(0, 1e6), min_size=6, max_size=6), min_size=1, max_size=12))
def test_whatever_was_no_row_is_above_one_of_many_more(
    intervals: list[list[float]],
) -> None:
    rows = table()
    for values in intervals:
        rows.feed([Item(str(at), value) for at, value in enumerate(values)])
    shown = [row.value or 0.0 for row in rows.rows]
    for above, below in pairwise(shown):
        assert below <= above * PEAK * SLACK * 1.0001


def test_a_row_that_goes_leaves_the_cursor_where_it_was() -> None:
    rows = table()
    rows.feed([Item("a", 300), Item("b", 200), Item("c", 100)])
    rows.move("down")
    rows.feed([Item("a", 300), Item("c", 100)])
    assert rows.current() == Item("c", 100)
    rows.feed([])
    assert rows.current() is None


def test_sorting_goes_through_the_columns_and_turns_round() -> None:
    rows = table()
    rows.feed([Item("b", 30), Item("a", 20), Item("c", None)])
    assert names(rows) == ["b", "a", "c"]
    rows.sort(reverse=True)
    assert names(rows) == ["a", "b", "c"]
    rows.sort()
    assert names(rows) == ["a", "b", "c"]
    rows.sort(reverse=True)
    assert names(rows) == ["c", "b", "a"]


def test_a_filter_ignores_case_and_says_when_nothing_matches() -> None:
    rows = table()
    rows.feed([Item("Read", 1), Item("write", 2)])
    rows.set_filter("rea")
    assert names(rows) == ["Read"]
    rows.set_filter("[red]\x1b")
    text = [line_text(line) for line in rows.lines(40, 5, Theme(), False)]
    assert text[1].strip() == "nothing matches /[red]\\e"


def test_columns_go_in_the_order_given_and_lines_fit() -> None:
    rows = table()
    rows.feed([Item("a", 1)])
    heads = {n: line_text(rows.lines(n, 5, Theme(), False)[0]).split() for n in (60, 35, 20)}
    assert heads[60] == ["name", "▾n", "extra", "more"]
    assert heads[35] == ["name", "▾n", "more"]
    assert heads[20] == ["name", "▾n"]
    for line in rows.lines(35, 5, Theme(), True):
        assert line_width(compose(line, 35)) == 35


def test_the_row_under_the_cursor_is_always_in_view() -> None:
    rows = table()
    rows.feed([Item(f"r{at:03}", 1000 - at) for at in range(100)])
    rows.lines(30, 11, Theme(), True)
    rows.move("end")
    assert "r099" in line_text(rows.lines(30, 11, Theme(), True)[-1])
    rows.move("pageup")
    assert rows.index == 90
    rows.move("home")
    assert "r000" in line_text(rows.lines(30, 11, Theme(), True)[1])
