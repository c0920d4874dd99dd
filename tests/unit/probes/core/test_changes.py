# SPDX-License-Identifier: Apache-2.0
"""Entries that changed: the same whichever way they are found."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from probes.core.changes import changed, gone
from probes.core.readings import Key, Reading, Readings, Row

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
    before: dict[tuple[int, str], int], left: set[tuple[int, str]]
) -> None:
    after = {key: value for key, value in before.items() if key not in left}
    assert changed(before, after) == []
    assert gone(before, after) == [key for key in before if key in left]
    back = after | dict.fromkeys(sorted(left), 7)
    assert changed(after, back) == [(key, None, 7) for key in sorted(left)]
    assert gone(after, back) == []


EVENTS = ("cycles", "faults")
rows = st.dictionaries(
    st.integers(300, 310),
    st.tuples(*[st.none() | st.builds(Reading, *[st.integers(0, 9)] * 3)] * 2),
)


@given(rows, rows, st.sets(st.integers(300, 310)))
def test_readings_are_a_mapping_like_any_other(
    first: dict[int, Row], more: dict[int, Row], left: set[int]
) -> None:
    before = Readings(EVENTS, first)
    after = Readings(EVENTS, {pid: row for pid, row in (first | more).items() if pid not in left})
    flat: Mapping[Key, Reading] = dict(before.items())
    new: Mapping[Key, Reading] = dict(after.items())
    assert (before, after) == (flat, new)
    assert (len(before), list(before)) == (len(flat), list(flat))
    assert all(before[key] is value and key in before for key, value in flat.items())
    assert (300, "branches") not in before
    assert (999, "cycles") not in before
    assert before.get((999, "cycles"), 7) == 7
    assert changed(before, after) == changed(flat, new)
    assert sorted(gone(before, after)) == sorted(gone(flat, new))
    # What the one has kept apart, and the other has not, is compared as well.
    assert changed(flat, after) == changed(before, new) == changed(flat, new)
    few = after.of_events(("faults", "branches"))
    assert few == {key: value for key, value in new.items() if key[1] == "faults"}
    assert after.of_processes({300: 0}) == {k: v for k, v in new.items() if k[0] == 300}
