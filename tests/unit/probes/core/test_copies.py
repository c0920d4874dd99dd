# SPDX-License-Identifier: Apache-2.0
"""What differs between two copies of a mapping, of copies that know it and of those that do not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from probes.core.changes import changed, gone, loses
from probes.core.copies import Copies, Copy, keys_set_between

steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 5)),
        st.tuples(st.sampled_from(["drop", "copy", "again"]), st.integers(0, 5)),
    ),
    max_size=40,
)


@given(steps)
def test_what_copies_know_is_what_a_comparison_finds(played: list[tuple[str, int]]) -> None:
    mapping: dict[int, tuple[int, int]] = {}
    copies: Copies[int, tuple[int, int]] = Copies()
    made: list[Copy[int, tuple[int, int]]] = [copies.of(mapping)]
    for number, (what, key) in enumerate(played):
        if what == "set":
            mapping[key] = (number, key)
            copies.set([key])
        elif what == "again" and key in mapping:
            # The same object once more is no change.
            copies.set([key])
        elif what == "drop" and key in mapping:
            del mapping[key]
            copies.replaced()
        elif what == "copy":
            made.append(copies.of(mapping))
            assert made[-1] == mapping
    made.append(copies.of(mapping))
    for before in made:
        for after in made:
            plain = dict(before), dict(after)
            assert sorted(changed(before, after)) == sorted(changed(*plain))
            assert gone(before, after) == gone(*plain)
            assert loses(before, after) == loses(*plain)


def test_nothing_set_is_the_same_copy() -> None:
    mapping, copies = {1: "a"}, Copies[int, str]()
    first = copies.of(mapping)
    copies.set([])
    assert copies.of(mapping) is first
    mapping[1] = "b"
    copies.set([1])
    second = copies.of(mapping)
    assert (first, second) == ({1: "a"}, {1: "b"})
    assert keys_set_between(first, second) == [1]


def test_only_neighbours_know_what_was_set() -> None:
    mapping, copies = {1: "a"}, Copies[int, str]()
    made = []
    for key in range(3):
        mapping[key] = str(key)
        copies.set([key])
        made.append(copies.of(mapping))
    assert keys_set_between(made[0], made[1]) == [1]
    assert keys_set_between(made[0], made[2]) is None
    assert keys_set_between(made[1], made[0]) is None
    other = Copies[int, str]()
    assert keys_set_between(made[0], other.of(mapping)) is None


def test_what_was_set_and_is_gone_again_is_no_change() -> None:
    copies: Copies[int, int] = Copies()
    table = {1: 10}
    before = copies.of(table)
    table[2] = 20
    copies.set([2])
    del table[2]
    assert changed(before, copies.of(table)) == []
