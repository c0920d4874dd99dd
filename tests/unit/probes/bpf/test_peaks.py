# SPDX-License-Identifier: Apache-2.0
"""The longest durations: read between rounds, kept in Samples, and exact in any interval."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.bpf import peaks
from probes.bpf.control_page import Control
from probes.bpf.histograms import Histograms
from probes.bpf.peaks import Peaks
from probes.core import histogram as hdr
from probes.core import peak_values
from probes.core.adding import add_histogram
from probes.core.delta import histogram_delta
from probes.core.peak_values import maximum, with_peak
from probes.core.sample import NO_HISTOGRAM, Histogram
from probes.recording.codec import codec_for

CPUS, SLOTS, SLOT = 2, 3, 1
HIST = 32 + 4 * hdr.BUCKETS


class Kernel:
    """The maps, and `event` as pt_record of include/hist.h: in steps that a reader may part."""

    def __init__(self) -> None:
        sizes = {"control": 4096, "hists": CPUS * SLOTS * HIST, "peaks": CPUS * SLOTS * peaks.SIZE}
        self.fds = {name: os.memfd_create(name) for name in sizes}
        for name, size in sizes.items():
            os.ftruncate(self.fds[name], -(-size // 4096) * 4096)
        self.control = Control(os.dup(self.fds["control"]))
        found = Peaks(os.dup(self.fds["peaks"]), CPUS, SLOTS)
        self.hists = Histograms(os.dup(self.fds["hists"]), CPUS, SLOTS, found)

    def close(self) -> None:
        self.hists.close()
        self.control.close()
        for fd in self.fds.values():
            os.close(fd)

    def peak(self, cpu: int, ns: int, number: int | None = None) -> None:
        number = self.control.round if number is None else number
        at = peaks.SIZE * (SLOT * CPUS + cpu) + 16 * (number & (peaks.ROUNDS - 1))
        before, value = struct.unpack("=2Q", os.pread(self.fds["peaks"], 16, at))
        if before != number or value < ns:
            os.pwrite(self.fds["peaks"], struct.pack("=2Q", number, ns), at)

    def count(self, cpu: int, ns: int) -> None:
        at = HIST * (cpu * SLOTS + SLOT)
        total, n = struct.unpack("=2Q", os.pread(self.fds["hists"], 16, at))
        os.pwrite(self.fds["hists"], struct.pack("=2Q", total + ns, n + 1), at)
        at += 32 + 4 * hdr.index(ns)
        (n,) = struct.unpack("=I", os.pread(self.fds["hists"], 4, at))
        os.pwrite(self.fds["hists"], struct.pack("=I", n + 1), at)

    def event(self, cpu: int, ns: int) -> None:
        self.peak(cpu, ns)
        self.count(cpu, ns)

    def read(self, old: Histogram, meanwhile: Sequence[int] = ()) -> Histogram:
        """A reading; what happens meanwhile comes behind the slot's own."""
        with self.hists.reading(self.control):
            found = self.hists.read(SLOT, old)
            for ns in meanwhile:
                self.event(0, ns)
        return found


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    made = Kernel()
    yield made
    made.close()


def between(before: Histogram, after: Histogram) -> tuple[float | None, bool | None]:
    return maximum(histogram_delta(before, after))


@pytest.mark.parametrize("seed", range(10))
def test_the_maximum_of_any_interval_is_exact(kernel: Kernel, seed: int) -> None:
    chance = random.Random(seed)
    readings, longest = [NO_HISTOGRAM], []
    left: list[int] = []
    for _ in range(60):
        now = [chance.randrange(100_000, 110_000) for _ in range(chance.randrange(6))]
        for ns in now:
            kernel.event(chance.randrange(CPUS), ns)
        # Half of the readings are disturbed by durations that no other is in a bucket with.
        extra = [chance.randrange(1 << 30, 1 << 40)] if chance.random() < 0.5 else []
        readings.append(kernel.read(readings[-1], extra))
        longest.append(max([*left, *now], default=None))
        left = extra
    for begin in range(len(longest)):
        for end in range(begin + 1, len(longest) + 1):
            known = [ns for ns in longest[begin:end] if ns is not None]
            wanted = (max(known), True) if known else (None, None)
            assert between(readings[begin], readings[end]) == wanted


def test_a_long_duration_while_it_is_read_hides_nothing_that_comes_later(kernel: Kernel) -> None:
    kernel.event(0, 1000)
    first = kernel.read(NO_HISTOGRAM, meanwhile=[5_000_000])
    kernel.event(0, 1001)
    second = kernel.read(first)
    kernel.event(0, 1_234_567)
    third = kernel.read(second)
    found = [between(*pair) for pair in ((NO_HISTOGRAM, first), (first, second), (second, third))]
    assert found == [(1000, True), (5_000_000, True), (1_234_567, True)]


def test_what_is_seen_before_it_is_counted_is_of_the_next_interval(kernel: Kernel) -> None:
    kernel.event(0, 1000)
    kernel.peak(1, 70_001)
    first = kernel.read(NO_HISTOGRAM)
    kernel.count(1, 70_001)
    second = kernel.read(first)
    assert between(NO_HISTOGRAM, first) == (1000, True)
    assert between(first, second) == (70_001, True)


def test_what_was_read_already_is_of_no_other_interval(kernel: Kernel) -> None:
    with kernel.hists.reading(kernel.control):
        kernel.event(0, 2005)
        first = kernel.hists.read(SLOT, NO_HISTOGRAM)
    kernel.event(0, 2001)
    second = kernel.read(first)
    assert between(NO_HISTOGRAM, first) == (2005, True)
    assert between(first, second) == (2001, True)


def test_a_peak_that_is_not_of_the_highest_bucket_is_not_believed(kernel: Kernel) -> None:
    """One that a program of long ago stored is another's; then the bound is said to be one."""
    for ns in (100_000, 50_000):
        kernel.count(0, ns)
    kernel.peak(0, 50_000)
    found, exact = between(NO_HISTOGRAM, kernel.read(NO_HISTOGRAM))
    assert exact is False
    assert found is not None
    assert 100_000 <= found <= 100_000 * 33 / 32


def test_beyond_the_last_bucket_it_is_exact_too(kernel: Kernel) -> None:
    for ns in (1 << 50, (1 << 50) + 3, 5):
        kernel.event(1, ns)
    found = kernel.read(NO_HISTOGRAM)
    assert found.total == (1 << 51) + 8
    assert between(NO_HISTOGRAM, found) == ((1 << 50) + 3, True)


values = st.lists(st.integers(1, 2**45), min_size=1, max_size=8)


def histogram(durations: Sequence[int], old: Histogram = NO_HISTOGRAM) -> Histogram:
    """A histogram after one more reading."""
    buckets = dict(old.buckets)
    for ns in durations:
        buckets[hdr.index(ns)] = buckets.get(hdr.index(ns), 0) + 1
    n = old.n + len(durations)
    found = with_peak(old.peaks, n, max(durations))
    return Histogram(buckets, n, old.total + sum(durations), found)


@given(st.lists(values, min_size=1, max_size=peak_values.MOST))
def test_readings_give_each_interval_and_recordings_bring_them_back(
    readings: list[list[int]],
) -> None:
    codec = codec_for(Histogram)
    states, decoded, total = [NO_HISTOGRAM], [NO_HISTOGRAM], None
    for durations in readings:
        new = histogram(durations, states[-1])
        decoded.append(codec.decode(codec.encode(new, states[-1]), decoded[-1]))
        spent = histogram_delta(states[-1], new)
        total = add_histogram(total, spent)
        states.append(new)
        assert len(new.peaks) <= peak_values.MOST
    assert decoded == states
    assert [list(one.peaks) for one in decoded] == [list(one.peaks) for one in states]
    assert total is not None
    assert maximum(total) == (max(map(max, readings)), True)
    for begin in range(len(readings)):
        for end in range(begin + 1, len(states)):
            wanted = max(map(max, readings[begin:end]))
            assert between(decoded[begin], decoded[end]) == (wanted, True)


def test_falling_durations_are_bounds_where_they_are_too_many() -> None:
    states = [NO_HISTOGRAM]
    for number in range(3 * peak_values.MOST):
        states.append(histogram([int(2**40 * 0.9**number)], states[-1]))
    assert len(states[-1].peaks) == peak_values.MOST
    # Two durations: one alone would be known by the sum.
    for begin in range(len(states) - 2):
        wanted = int(2**40 * 0.9**begin)
        found, exact = between(states[begin], states[-1])
        assert found is not None
        assert found == wanted if exact else wanted <= found <= wanted * 33 / 32
    assert between(states[-3], states[-1])[1] is True


def test_without_peaks_it_is_a_bound() -> None:
    """As in recordings of earlier versions."""
    codec = codec_for(Histogram)
    old = codec.decode([[[200], [2]], 2, 2 * hdr.bounds(200)[0]], None)
    assert maximum(old) == (hdr.maximum(old.buckets, old.total), False)
    single = codec.decode([[[hdr.index(777)], [1]], 1, 777], None)
    assert maximum(single) == (777, True)
    assert maximum(Histogram({31: 5}, 5, 155)) == (31, True)
    assert maximum(NO_HISTOGRAM) == (None, None)


def test_the_sum_of_an_exact_and_an_inexact_interval_is_exact_only_if_it_is_higher() -> None:
    old = Histogram({300: 2}, 2, 2 * hdr.bounds(300)[0])
    for first, second in ((old, histogram([9**9, 5])), (histogram([9**9, 5]), old)):
        total = add_histogram(add_histogram(None, first), second)
        assert maximum(total) == (9**9, True)
    low = histogram([hdr.bounds(300)[0], hdr.bounds(300)[0] + 1])
    for first, second in ((old, low), (low, old), (old, histogram([5, 6]))):
        assert maximum(add_histogram(add_histogram(None, first), second))[1] is False
