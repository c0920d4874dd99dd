# SPDX-License-Identifier: Apache-2.0
"""Entries that changed: the same whichever way they are found."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from probes.changes import changed

keys = st.tuples(st.integers(300, 320), st.sampled_from(["read", "write"]))


@given(st.dictionaries(keys, st.integers(300, 400)), st.dictionaries(keys, st.integers(300, 400)))
def test_changes_of_a_copy_are_those_of_any_mapping(
    before: dict[tuple[int, str], int], more: dict[tuple[int, str], int]
) -> None:
    after = before.copy()
    after.update(more)
    # As decoded: equal keys that are other objects.
    decoded = {(pid, name): value for (pid, name), value in before.items()}
    wanted = [
        (key, before.get(key), value)
        for key, value in after.items()
        if before.get(key) is not value
    ]
    assert changed(before, after) == wanted
    assert changed(decoded, after) == wanted
    assert changed(before, before) == []


@given(st.dictionaries(keys, st.integers(300, 400)), st.sets(keys))
def test_what_is_gone_is_no_change(
    before: dict[tuple[int, str], int], gone: set[tuple[int, str]]
) -> None:
    after = {key: value for key, value in before.items() if key not in gone}
    assert changed(before, after) == []
    back = after | dict.fromkeys(sorted(gone), 7)
    assert changed(after, back) == [(key, None, 7) for key in sorted(gone)]
