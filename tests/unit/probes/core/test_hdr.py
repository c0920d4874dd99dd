# SPDX-License-Identifier: Apache-2.0
"""The log-linear buckets: layout, percentiles, and the kernel's copy of the formula."""

from __future__ import annotations

import math
import random
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.core import histogram
from tests.paths import INCLUDE

INCLUDE = INCLUDE


@given(st.integers(0, 2**44 - 1))
def test_a_value_lies_in_its_bucket(value: int) -> None:
    low, high = histogram.bounds(histogram.index(value))
    assert low <= value < high
    # 32 buckets a power of two: no wider than a 32nd of what they hold.
    assert high - low == 1 or (high - low) * 32 <= low


def test_buckets_adjoin_and_end_where_they_should() -> None:
    ends = [histogram.bounds(bucket) for bucket in range(histogram.BUCKETS)]
    assert ends[0] == (0, 1)
    assert all(before[1] == after[0] for before, after in pairwise(ends))
    assert ends[-1][1] == 2**44
    assert histogram.index(2**44) == histogram.index(2**63) == histogram.BUCKETS - 1
    assert histogram.index(-5) == 0


@given(st.lists(st.integers(1, 2**40), min_size=1, max_size=200), st.floats(0.01, 1))
def test_percentile_is_near_the_exact_one(values: list[int], fraction: float) -> None:
    buckets: dict[int, int] = {}
    for value in values:
        buckets[histogram.index(value)] = buckets.get(histogram.index(value), 0) + 1
    exact = sorted(values)[max(1, math.ceil(len(values) * fraction)) - 1]
    shown = histogram.percentile(buckets, fraction)
    assert shown is not None
    assert abs(shown - exact) <= exact / 32
    longest = histogram.maximum(buckets, sum(values))
    assert longest is not None
    assert max(values) <= longest <= max(values) * 33 / 32
    assert longest <= sum(values)


def test_nothing_counted_is_unknown() -> None:
    assert histogram.percentile({}, 0.5) is None
    assert histogram.percentile({3: 0}, 0.5) is None
    assert histogram.maximum({}, 0) is None
    assert histogram.maximum({7: 0}, 0) is None


@given(st.integers(0, 2**63))
def test_a_single_duration_is_known_exactly(value: int) -> None:
    assert histogram.maximum({histogram.index(value): 1}, value) == float(value)


@given(st.lists(st.integers(0, 2**60), min_size=1, max_size=50))
def test_nothing_exceeds_the_longest_and_the_mean_does_not_either(values: list[int]) -> None:
    buckets: dict[int, int] = {}
    for value in values:
        buckets[histogram.index(value)] = buckets.get(histogram.index(value), 0) + 1
    longest = histogram.maximum(buckets, sum(values))
    assert longest is not None
    assert longest >= float(max(values))
    assert longest >= sum(values) / len(values) * (1 - 1e-9)


def test_sums_that_were_read_at_another_moment_move_it_within_its_bucket_only() -> None:
    bucket = histogram.index(1000)
    low, high = histogram.bounds(bucket)
    assert histogram.maximum({bucket: 1}, 3) == low
    assert histogram.maximum({bucket: 1}, 10**9) == high - 1


def test_the_last_bucket_has_no_upper_end() -> None:
    low = histogram.bounds(histogram.LAST)[0]
    assert histogram.percentile({histogram.LAST: 2}, 0.5) == low
    assert histogram.maximum({histogram.LAST: 1, 5: 1}, 2**50 + 5) == 2**50


def test_percentiles_of_known_counts() -> None:
    buckets = {1: 50, 2: 49, 31: 1}
    assert [histogram.percentile(buckets, f) for f in (0.5, 0.51, 0.99, 0.991, 1)] == [
        1,
        2,
        2,
        31,
        31,
    ]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")
def test_the_kernels_formula_is_the_same(tmp_path: Path) -> None:
    """The function in the header, cut out and compiled for this machine."""
    text = "\n".join(path.read_text() for path in sorted(INCLUDE.glob("*.h")))
    start = text.index("static __always_inline u64 pt_bucket")
    function = text[start : text.index("\n}", start) + 2]
    source = tmp_path / "bucket.c"
    source.write_text(
        "#include <stdio.h>\ntypedef unsigned long long u64;\n"
        "#define __always_inline inline\n#define PT_BUCKETS 1280\n"
        + function
        + '\nint main(void)\n{\n\tu64 v;\n\twhile (scanf("%llu", &v) == 1)\n'
        '\t\tprintf("%llu\\n", pt_bucket(v));\n\treturn 0;\n}\n'
    )
    subprocess.run(["gcc", "-O1", str(source), "-o", str(tmp_path / "bucket")], check=True)
    rng = random.Random(1)
    values = [*range(5000), *(2**e + d for e in range(3, 64) for d in (-1, 0, 1))]
    values += [rng.getrandbits(rng.randint(1, 63)) for _ in range(5000)]
    done = subprocess.run(
        [str(tmp_path / "bucket")],
        input="\n".join(map(str, values)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert [int(line) for line in done.stdout.split()] == [histogram.index(v) for v in values]
