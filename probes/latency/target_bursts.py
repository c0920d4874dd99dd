# SPDX-License-Identifier: Apache-2.0
"""What the bursts of one latency target stand for; see `probes.core.estimates` for the estimator.

Attaching takes so long that there is one burst in a second or two. An estimate is made of each, so
that there are new numbers often; how much bursts differ is known from it and those before it:

    N = T * y / t
    v(N) = (T / t)^2 * (1 - f) * sum((y_i - R * t_i)^2) / (n - 1)
    with R = sum(y_i) / sum(t_i), f = sum(t_i) / sum(T_i), over the last n <= KEPT bursts

Estimates of several bursts add up to the ratio estimator, and so do their variances.

A call is seen if it begins and ends within a burst: one of d ns in a burst of t ns only with the
probability (t - d) / t. Each call seen counts for the reciprocal of that, at most LONGEST times;
half of what that adds is taken to be off. Calls longer than a burst are not seen at all.

Tracing a call takes the process time in which it would have made others, see
`probes.budget.slowdown`. Where that may be nearly all the time it has, nobody knows how many: the
error is made so large that the interval of confidence begins at zero (see
`probes.core.estimates.known_error`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from heapq import nlargest
from math import ceil, hypot, sqrt
from typing import Any, NamedTuple

from probes.budget.slowdown import UNKNOWN, Slowdown, Threads, slowdown, together
from probes.core import histogram
from probes.core.sample import NOT_ESTIMATED, Duty, Estimate
from probes.ipc.messages import BurstReport

KEPT = 8
"""Bursts by which it is known how much they differ."""
FEWEST = 2
"""Bursts from which something is estimated at least."""
LONGEST = 10.0
"""So many calls one that was seen stands for at most, because it was long."""
MOST_ROWS = 4000
"""Processes, or texts, whose calls are estimated; the newest stay."""
LOOKED_AT = 32
"""Processes of which it is known what their threads do."""
INSIDE, TRACING = 0.6, 0.1
"""A process that is within traced calls for more than the first part of the time may be slowed by
any factor, if tracing them takes more than the second part of that."""
ANY = 10.0
"""The error of such a factor, as a part of it."""
Row = tuple[int, int]
"""Calls of a process or text, and the ns that they took."""


class _Burst(NamedTuple):
    """One burst: seconds attached, those that it stands for, uncertain ones, and calls seen.

    `more` is how many calls there were for each one seen, and `off` by how much that may be wrong;
    `rows` are the calls and how many there were for each, by process or text.
    """

    on: float
    seconds: float
    edges: float
    n: int
    rows: Mapping[Any, tuple[int, float]]
    more: float
    off: float


class TargetBursts:
    """Cumulative estimates of one target: of all its calls, and by process or text (`rows`)."""

    def __init__(
        self,
        by_text: bool = False,
        threads: Threads | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` gives monotonic seconds."""
        self.duty = Duty()
        self.estimated = NOT_ESTIMATED
        self.rows: dict[Any, Estimate] = {}
        self._by_text = by_text
        self._threads, self._clock = threads or Threads(), clock
        self._recent: deque[_Burst] = deque(maxlen=KEPT)
        self._waiting: list[_Burst] = []
        self._seen: dict[Any, Row] = {}

    def see(self, who: Any, n: int, total: int) -> None:
        """Note calls of the present burst, and the ns that they took."""
        old = self._seen.get(who, (0, 0))
        self._seen[who] = (old[0] + n, old[1] + total)

    def add(self, report: BurstReport, n: int, buckets: Mapping[int, int], price: float) -> None:
        """Take in a burst, within which `n` calls ended, with durations in `buckets` if known.

        `price` are the ns that a call takes longer while it is traced.
        """
        on = max(1, report.end - report.begin) / 1e9
        seconds = (report.until - report.since) / 1e9
        seen, self._seen = self._seen, {}
        slowed = self._slowed(seen, on, price, on / seconds)
        whole = together((row[0], slowed[who]) for who, row in seen.items())
        cut = _cut(buckets, on)
        off = hypot(whole.error / whole.factor, (cut - 1) / 2 / cut)
        rows = {who: (row[0], slowed[who].factor * cut) for who, row in seen.items()}
        burst = _Burst(on, seconds, report.edges / 1e9, n, rows, whole.factor * cut, off)
        self._recent.append(burst)
        self._waiting.append(burst)
        if len(self._recent) >= FEWEST:
            self._estimate()

    def _slowed(
        self, seen: Mapping[Any, Row], on: float, price: float, part: float
    ) -> dict[Any, Slowdown]:
        """How much each process was slowed; texts are taken to be of one of which nothing is known.

        The bursts are `part` of the time.
        """
        if self._by_text:
            n, total = (sum([row[at] for row in seen.values()]) for at in (0, 1))
            return dict.fromkeys(seen, _slowdown((n, total), on, price, part, UNKNOWN))
        most = nlargest(LOOKED_AT, seen, key=lambda who: seen[who])
        threads = self._threads.since(most, self._clock())
        return {
            who: _slowdown(row, on, price, part, threads.get(who, UNKNOWN))
            for who, row in seen.items()
        }

    def _estimate(self) -> None:
        """Make estimates of the bursts that wait for that."""
        waiting, self._waiting = self._waiting, []
        recent = list(self._recent)
        on, seconds = sum([one.on for one in recent]), sum([one.seconds for one in recent])
        left_out = max(0.0, 1 - on / seconds)
        spread = left_out * _spread([(one.n, one.on) for one in recent])
        keys = {key for one in recent for key in one.rows}
        for one in waiting:
            self.estimated = _added(self.estimated, one, one.n, one.more, (spread, left_out))
            hidden = hypot(one.edges, one.off * one.on * sqrt(12))
            duty = self.duty
            self.duty = Duty(
                duty.bursts + 1,
                duty.on + one.on,
                duty.seconds + one.seconds,
                duty.edges + hidden,
                duty.freedom,
            )
        for key in keys:
            pairs = [(one.rows.get(key, (0, 1.0))[0], one.on) for one in recent]
            between = left_out * _spread(pairs)
            for one in waiting:
                n, more = one.rows.get(key, (0, one.more))
                old = self.rows.pop(key, NOT_ESTIMATED)
                self.rows[key] = _added(old, one, n, more, (between, left_out))
        self.duty = self.duty._replace(freedom=self.duty.freedom + len(recent) - 1)
        for key in list(self.rows)[:-MOST_ROWS]:
            del self.rows[key]


def _slowdown(row: Row, on: float, price: float, part: float, threads: Any) -> Slowdown:
    """How much a process was slowed that was seen to make these calls in a burst."""
    n, total = row
    found = slowdown(n / on, price, threads, part)
    inside = (total + n * price) / 1e9 / on / len(threads)
    if inside >= INSIDE and n * price >= TRACING * (total + n * price):
        return Slowdown(found.factor, ANY * found.factor)
    return found


def _added(old: Estimate, one: _Burst, n: int, more: float, off: tuple[float, float]) -> Estimate:
    """An estimate with that of one burst, which is no more certain than of events at random.

    `off` has the variance between bursts, and the part of the time that is not seen.
    """
    spread, left_out = off
    times = one.seconds / one.on * more
    variance = times * times * max(spread, n * left_out)
    return Estimate(old.n + round(n * times), old.variance + ceil(variance))


def _spread(pairs: list[tuple[int, float]]) -> float:
    """The variance of what bursts saw, beside what follows from their lengths."""
    rate = sum([n for n, _ in pairs]) / sum([on for _, on in pairs])
    return sum([(n - rate * on) ** 2 for n, on in pairs]) / max(1, len(pairs) - 1)


def _cut(buckets: Mapping[int, int], on: float) -> float:
    """How many calls there were for each one that a burst of `on` seconds saw from end to end."""
    whole = sum(buckets.values())
    if not whole:
        return 1.0
    meant = 0.0
    for bucket, n in buckets.items():
        left = 1 - histogram.bounds(bucket)[0] / 1e9 / on
        meant += n * min(LONGEST, 1 / left if left > 0 else LONGEST)
    return meant / whole
