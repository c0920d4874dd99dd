# SPDX-License-Identifier: Apache-2.0
"""Differences between Samples that are never below zero."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from probes.core.sample import Counts, Histogram
from probes.core.tables import comparable
from probes.latency.sample import LatencySample
from probes.syscalls.sample import SyscallSample
from tui.agent.metrics.increases import more, more_counts, more_of, more_spent

few = st.integers(0, 3)
buckets = st.dictionaries(few, st.integers(1, 5))
histograms = st.builds(lambda b, total: Histogram(b, sum(b.values()), total), buckets, few)


def test_only_samples_of_one_kind_and_generation_are_compared() -> None:
    one = SyscallSample(generation=1, missed=5)
    assert comparable(one, SyscallSample(generation=1)) is one
    for before in (None, SyscallSample(generation=2, missed=5), LatencySample(generation=1)):
        assert comparable(before, one) == SyscallSample(generation=1)


def test_numbers() -> None:
    assert (more(None, 7), more(3, 7), more(7, 7), more(8, 7)) == (7, 4, 0, 7)
    assert dict(more_of({"a": 1, "b": 9, "c": 4}, {"a": 3, "b": 2, "c": 4, "d": 5})) == {
        "a": 2, "b": 2, "d": 5,
    }  # fmt: skip


def test_calls_whose_errors_alone_are_fewer() -> None:
    before = {"a": Counts(5, 5), "b": Counts(5, 1), "c": Counts(5, 1)}
    after = {"a": Counts(9, 2), "b": Counts(2, 1), "c": Counts(5, 3), "d": Counts(0, 0)}
    assert list(more_counts(before, after)) == [("a", 4, 0), ("b", 2, 1), ("c", 0, 2)]


def test_a_histogram_of_which_a_part_is_less_began_anew() -> None:
    before = Histogram({1: 3, 2: 3}, 6, 10)
    for after in (Histogram({1: 2, 2: 9}, 11, 20), Histogram({1: 9, 2: 9}, 18, 5)):
        assert more_spent(before, after) is after
    risen = more_spent(before, Histogram({1: 4, 2: 3}, 7, 12))
    assert (risen.buckets, risen.total) == ({1: 1}, 2)


@given(histograms, histograms)
def test_nothing_is_below_zero(before: Histogram, after: Histogram) -> None:
    risen = more_spent(before, after)
    assert risen.total >= 0
    assert all(n >= 0 for n in risen.buckets.values())


@given(
    st.dictionaries(few, st.builds(Counts, few, few)),
    st.dictionaries(few, st.builds(Counts, few, few)),
)
def test_no_count_is_below_zero(before: dict[int, Counts], after: dict[int, Counts]) -> None:
    assert all(n >= 0 and errors >= 0 for _, n, errors in more_counts(before, after))
