# SPDX-License-Identifier: Apache-2.0
"""Log-linear buckets: 32 a power of two, so that a percentile is within about 3 %.

The layout is that of HdrHistogram (Gil Tene) with five significant bits: values below 32
have a bucket each; above, a value v with e = floor(log2 v) - 5 falls into bucket
32 * e + (v >> e). `include/probetop.h` computes the same index in the kernel.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate

SUB_BITS = 5
SUB = 1 << SUB_BITS
MAX_BITS = 44
BUCKETS = SUB * (MAX_BITS - SUB_BITS + 1)
"""1280 buckets reach 2**44 ns, 4.9 hours."""
LAST = BUCKETS - 1
"""What is longer counts in the last bucket, which has no upper end."""


def index(value: int) -> int:
    """The bucket of a duration in nanoseconds."""
    value = max(0, value)
    if value < SUB:
        return value
    shift = value.bit_length() - 1 - SUB_BITS
    return min(SUB * shift + (value >> shift), BUCKETS - 1)


def bounds(bucket: int) -> tuple[int, int]:
    """The lowest value of a bucket and the lowest of the next, in nanoseconds."""
    if bucket < SUB:
        return bucket, bucket + 1
    shift = bucket // SUB - 1
    low = (bucket - SUB * shift) << shift
    return low, low + (1 << shift)


def percentile(buckets: Mapping[int, int], fraction: float) -> float | None:
    """The duration in ns that `fraction` of the counted ones do not exceed.

    It is the middle of the bucket in which that rank falls, in the last one its lower end, which
    it reaches at least; None without any count.
    """
    return percentiles(buckets, (fraction,))[0]


def percentiles(buckets: Mapping[int, int], fractions: Sequence[float]) -> Sequence[float | None]:
    """The percentile for each of some rising fractions."""
    numbers = sorted(buckets)
    ranks = list(accumulate([buckets[number] for number in numbers]))
    count = ranks[-1] if ranks else 0
    if count <= 0:
        return (None,) * len(fractions)
    found, at = [], 0
    for fraction in fractions:
        at = bisect_left(ranks, max(1, -(-count * fraction // 1)), at)
        low, high = bounds(numbers[at])
        found.append(float(low) if high - low == 1 or numbers[at] == LAST else (low + high) / 2)
    return found


def maximum(buckets: Mapping[int, int], total: int) -> float | None:
    """The least that no duration exceeds, in ns, as the buckets and the sum of all tell.

    A single duration is known exactly. Of several, the longest is at most the upper end of the
    highest bucket, and at most what the lower ends of all others leave of the sum.
    """
    counted = {bucket: n for bucket, n in buckets.items() if n > 0}
    top = max(counted, default=None)
    if top is None:
        return None
    low, high = bounds(top)
    others = sum([bounds(bucket)[0] * n for bucket, n in counted.items()]) - low
    # Sums and buckets are not read at the same moment.
    most = max(low, total - others)
    return float(most if top == LAST else min(most, high - 1))
