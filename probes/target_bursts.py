# SPDX-License-Identifier: Apache-2.0
"""What the bursts of one latency target stand for; see `probes.estimates` for the estimator.

Attaching takes so long that there is one burst in a second or two. An estimate is made of each, so
that there are new numbers often; how much bursts differ is known from it and those before it:

    N = T * y / t
    v(N) = (T / t)^2 * (1 - f) * sum((y_i - R * t_i)^2) / (n - 1)
    with R = sum(y_i) / sum(t_i), f = sum(t_i) / sum(T_i), over the last n <= KEPT bursts

Estimates of several bursts add up to the ratio estimator, and so do their variances.

A call is seen if it begins and ends within a burst: one of d ns in a burst of t ns only with the
probability (t - d) / t. Each call seen counts for the reciprocal of that, at most LONGEST times;
half of what that adds is taken to be off. Calls longer than a burst are not seen at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from math import ceil, hypot, sqrt
from typing import Any, NamedTuple

from probes import hdr
from probes.messages import BurstReport
from probes.samples import NOT_ESTIMATED, Duty, Estimate
from probes.slowdown import slowdown

KEPT = 8
"""Bursts by which it is known how much they differ."""
FEWEST = 2
"""Bursts from which something is estimated at least."""
LONGEST = 10.0
"""So many calls one that was seen stands for at most, because it was long."""
MOST_ROWS = 4000
"""Processes, or texts, whose calls are estimated; the newest stay."""


class _Burst(NamedTuple):
    """One burst: seconds attached, those that it stands for, uncertain ones, and calls seen.

    `more` is how many calls there were for each one seen, and `off` by how much that may be wrong.
    """

    on: float
    seconds: float
    edges: float
    n: int
    rows: Mapping[Any, int]
    more: float
    off: float


class TargetBursts:
    """Cumulative estimates of one target: of all its calls, and by process or text (`rows`)."""

    def __init__(self) -> None:
        self.duty = Duty()
        self.estimated = NOT_ESTIMATED
        self.rows: dict[Any, Estimate] = {}
        self._recent: deque[_Burst] = deque(maxlen=KEPT)
        self._waiting: list[_Burst] = []
        self._peaks: deque[Mapping[int, float]] = deque(maxlen=KEPT)
        self._rows: dict[Any, int] = {}
        self._cpus: dict[int, int] = {}

    def see(self, who: Any, n: int, cpu: int) -> None:
        """Note calls of the present burst."""
        self._rows[who] = self._rows.get(who, 0) + n
        self._cpus[cpu] = self._cpus.get(cpu, 0) + n

    def add(self, report: BurstReport, n: int, buckets: Mapping[int, int], price: float) -> None:
        """Take in a burst, within which `n` calls ended, with durations in `buckets` if known.

        `price` are the ns that a call takes longer while it is traced.
        """
        on = max(1, report.end - report.begin) / 1e9
        rows, self._rows = self._rows, {}
        cpus, self._cpus = self._cpus, {}
        self._peaks.append({cpu: count / on for cpu, count in cpus.items()})
        peaks = {cpu: max([one.get(cpu, 0.0) for one in self._peaks]) for cpu in cpus}
        slowed = slowdown(cpus, peaks, price)
        cut = _cut(buckets, on)
        more = slowed.factor * cut
        off = hypot(slowed.error / slowed.factor, (cut - 1) / 2 / cut)
        seconds = (report.until - report.since) / 1e9
        burst = _Burst(on, seconds, report.edges / 1e9, n, rows, more, off)
        self._recent.append(burst)
        self._waiting.append(burst)
        if len(self._recent) >= FEWEST:
            self._estimate()

    def _estimate(self) -> None:
        """Make estimates of the bursts that wait for that."""
        waiting, self._waiting = self._waiting, []
        recent = list(self._recent)
        on, seconds = sum([one.on for one in recent]), sum([one.seconds for one in recent])
        left_out = max(0.0, 1 - on / seconds)
        spread = _spread([(one.n, one.on) for one in recent])
        keys = {key for one in recent for key in one.rows}
        spreads = {key: _spread([(one.rows.get(key, 0), one.on) for one in recent]) for key in keys}
        for one in waiting:
            self.estimated = _added(self.estimated, one, one.n, spread * left_out, left_out)
            for key in keys:
                n = one.rows.get(key, 0)
                old = self.rows.pop(key, NOT_ESTIMATED)
                self.rows[key] = _added(old, one, n, spreads[key] * left_out, left_out)
            old_duty = self.duty
            self.duty = Duty(
                old_duty.bursts + 1,
                old_duty.on + one.on,
                old_duty.seconds + one.seconds,
                old_duty.edges + hypot(one.edges, one.off * one.on * sqrt(12)),
                old_duty.freedom,
            )
        self.duty = self.duty._replace(freedom=self.duty.freedom + len(recent) - 1)
        for key in list(self.rows)[:-MOST_ROWS]:
            del self.rows[key]


def _added(old: Estimate, one: _Burst, n: int, spread: float, left_out: float) -> Estimate:
    """An estimate with that of one burst, which is no more certain than of events at random."""
    times = one.seconds / one.on * one.more
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
        left = 1 - hdr.bounds(bucket)[0] / 1e9 / on
        meant += n * min(LONGEST, 1 / left if left > 0 else LONGEST)
    return meant / whole
