# SPDX-License-Identifier: Apache-2.0
"""HDR histograms as classic and native buckets of Prometheus."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.core import histogram
from tui.agent.metrics.histogram import (
    DURATIONS,
    PLAIN,
    SCHEMA,
    SECONDS,
    VALUES,
    Layout,
    Spread,
    native_index,
)

LAYOUTS = pytest.mark.parametrize("layout", [DURATIONS, PLAIN])
durations = st.lists(st.integers(0, 2**44 - 1), max_size=60)


def spread(layout: Layout, numbers: list[int]) -> Spread:
    made = Spread(layout)
    for number in numbers:
        made.add({histogram.index(number): 1}, number)
    return made


def unpacked(made: Spread) -> dict[int, int]:
    """Native buckets by index, as a reader adds the differences up."""
    native, found = made.native(), {}
    at = count = 0
    deltas = iter(native.deltas)
    for span in native.spans:
        at += span.offset
        for _ in range(span.length):
            count += next(deltas)
            found[at] = count
            at += 1
    assert not list(deltas)
    return found


def test_bounds_are_what_people_write() -> None:
    assert SECONDS[:5] == (1e-07, 2.5e-07, 5e-07, 1e-06, 2.5e-06)
    assert SECONDS[-3:] == (2.5, 5.0, 10.0)
    assert list(SECONDS) == sorted(set(SECONDS))
    assert VALUES[:4] == (1, 4, 16, 64)


@given(durations)
def test_durations_never_look_better_than_they_were(numbers: list[int]) -> None:
    for bound, count in spread(DURATIONS, numbers).classic():
        sure = sum(n / 1e9 <= bound * (1 - 1 / 16) for n in numbers)
        assert sure <= count <= sum(n / 1e9 <= bound for n in numbers)


@given(durations)
def test_values_are_within_a_step_above_their_bound(numbers: list[int]) -> None:
    for bound, count in spread(PLAIN, numbers).classic():
        here = sum(n <= bound for n in numbers)
        assert here <= count <= sum(n <= bound * (1 + 1 / 32) for n in numbers)


def test_sizes_that_are_powers_of_two_are_exact() -> None:
    made = dict(spread(PLAIN, [4096] * 7 + [512, 8192, 0, 1]).classic())
    assert (made[1.0], made[256.0], made[1024.0], made[4096.0], made[16384.0]) == (2, 2, 3, 10, 11)


@LAYOUTS
@given(numbers=durations)
def test_every_kind_of_bucket_holds_all(layout: Layout, numbers: list[int]) -> None:
    made = spread(layout, numbers)
    assert made.count == len(numbers)
    assert made.sum == pytest.approx(sum(numbers) / layout.scale)
    assert made.native().zero == numbers.count(0)
    found = unpacked(made)
    assert sum(found.values()) + made.native().zero == len(numbers)
    assert all(count > 0 for count in found.values())
    cumulative = [count for _, count in made.classic()]
    assert cumulative == sorted(cumulative)


@given(st.integers(1, 2**44 - 1))
def test_native_bucket_is_the_number_s_own_or_the_next(number: int) -> None:
    (index,) = unpacked(spread(DURATIONS, [number]))
    low, high = (2 ** (i / 2**SCHEMA) for i in (index - 1, index))
    assert low * (1 - 1 / 32) <= number / 1e9 <= high * (1 + 1e-12)


@pytest.mark.parametrize("power", range(-30, 15))
def test_powers_of_two_end_their_native_bucket(power: int) -> None:
    assert native_index(2.0**power) == 8 * power
    assert native_index(2.0**power * 1.0001) == 8 * power + 1


def test_buckets_out_of_range_count_in_the_last() -> None:
    made = Spread()
    made.add({99_999: 2, -1: 1}, 5)
    assert made.buckets == {histogram.BUCKETS - 1: 2, 0: 1}
    assert made.classic()[-1] == (10.0, 1)


@given(durations, durations)
def test_counts_only_rise(first: list[int], second: list[int]) -> None:
    made = spread(DURATIONS, first)
    classic, native = made.classic(), unpacked(made)
    for number in second:
        made.add({histogram.index(number): 1}, number)
    later = unpacked(made)
    assert all(n <= later[index] for index, n in native.items())
    assert all(old[1] <= new[1] for old, new in zip(classic, made.classic(), strict=True))
