# SPDX-License-Identifier: Apache-2.0
"""The written out codecs against those that are put together from the types."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.core.limits import U64, Between, CodecError, Count, Id
from probes.core.sample import Counts
from probes.recording.codec import _Mapping, codec_for
from probes.recording.codec_rows import Buckets, Rows

NUMBERS = st.integers(0, 2**64 - 1)
TEXTS = st.text(max_size=4)
COUNTS = st.builds(Counts, NUMBERS, NUMBERS)
BY_PID = st.dictionaries(st.tuples(st.integers(0, 99), TEXTS), COUNTS)
BY_NAME = st.dictionaries(st.tuples(TEXTS, st.integers(0, 99)), COUNTS)
BUCKETS = st.dictionaries(st.integers(0, 99), NUMBERS)
KINDS: tuple[tuple[Any, Any, st.SearchStrategy[Any]], ...] = (
    (Rows(Counts, 0), _Mapping(codec_for(tuple[int, str]), codec_for(Counts)), BY_PID),
    (Rows(Counts, 1), _Mapping(codec_for(tuple[str, int]), codec_for(Counts)), BY_NAME),
    (Buckets(Between(0, 99), Between(0, U64)), _Mapping(codec_for(Id), codec_for(Count)), BUCKETS),
)


@given(st.data())
def test_written_out_is_what_types_would_give(data: st.DataObject) -> None:
    for own, general, mappings in KINDS:
        old, new = data.draw(mappings), data.draw(mappings)
        # Some rows stay as they were, and some change.
        new = {**new, **dict(list(old.items())[:2])}
        for before in (None, old):
            encoded = own.encode(new, before)
            assert encoded == general.encode(new, before)
            encoded = copy.deepcopy(encoded)
            assert own.decode(encoded, before) == general.decode(encoded, before) == new


def test_types_find_them() -> None:
    assert isinstance(codec_for(dict[int, int]), Buckets)
    assert isinstance(codec_for(dict[tuple[int, str], Counts]), Rows)
    assert isinstance(codec_for(dict[str, int]), _Mapping)


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        {},
        [[], [], [], []],
        [[1], []],
        ["ab", "cd"],
        [[1], [True]],
        [[[1, "a"]], [[1]]],
        [[[1, "a"]], [[1, 2, 3]]],
        [[[1, "a"]], [7]],
        [[[1, "a"]], [{}]],
        [[[1, "a"]], ["ab"]],
        [[[1, "a"]], [[1.5, 2]]],
        [[[1, "a"]], [[1, 1 << 90]]],
        [[[1, 2]], [[1, 2]]],
        [[[1 << 90, "a"]], [[1, 2]]],
        [[["a"]], [[1, 2]]],
        [["a"], [[1, 2]]],
        [[[[], {}]], [[1, 2]]],
        [[], [], [None]],
        [[], [], [[1 << 90, "a"]]],
    ],
)
def test_what_is_broken_raises_codec_error(broken: Any) -> None:
    for own, _, _ in KINDS:
        with pytest.raises(CodecError):
            own.decode(broken, None)
        with pytest.raises(CodecError):
            own.decode(broken, {})


@given(st.dictionaries(TEXTS, COUNTS), st.dictionaries(TEXTS, COUNTS), st.randoms())
def test_texts_keep_the_order_that_they_are_given(
    old: dict[str, Counts], more: dict[str, Counts], chance: Any
) -> None:
    codec = _Mapping(codec_for(str), codec_for(Counts))
    new = {**old, **more}
    names = list(new)
    chance.shuffle(names)
    for after in (new, {name: new[name] for name in names}):
        decoded = codec.decode(copy.deepcopy(codec.encode(after, old)), old)
        assert list(decoded.items()) == list(after.items())
