# SPDX-License-Identifier: Apache-2.0
"""Does the budget hold? What loads on every CPU lose to probetop beside them.

What counts is the work that others still get done, whoever took the rest: programs in the
kernel, what it takes to call them, probetop's own processes, loading and trying again. Periods
with and without probetop take turns, and each with it is compared with the mean of the two beside
it without, so that a machine that becomes slower or faster by and by makes no difference. Periods
without it are compared in the same way with those beside them: what nothing loses is the noise.

probetop is there first, and then comes the load, at once and whole; the last period with it is a
long one, for what was given up is tried again after half a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.intervals import heading, of_median
from bench.measure import compiled
from bench.periods import Kind, Load, Object, Period, kinds, streaming
from bench.tables import NONE, Table, spread

OPTIONS: dict[str, tuple[str, ...]] = {
    "probetop --latency (budget 2, as it is by default)": ("--latency",),
    "probetop --latency --budget 0 (any)": ("--latency", "--budget", "0"),
}
DEFAULT, ANY = OPTIONS
NOTHING = "nothing"
LOST, WORST, SETTLED, SILENT = "% lost", "worst 10 s", "settled, s", "no numbers, s"
SETTLE = 3.0
"""Seconds from the step on in which the budget may be exceeded."""
WINDOW, ALLOWED = 10.0, 4.0
"""Seconds of a window once settled, and per cent that may be lost in each."""
IDLE_SECONDS = 2.0
"""Seconds between probetop's start and the step."""
CONTRAST = 4
"""One pair in so many is done again without a budget, to see what there is to lose; a short run
does without."""


class Lengths(NamedTuple):
    """How many pairs, and seconds: without probetop, with it, and the last one with it."""

    pairs: int
    off: float
    on: float
    last: float


WHOLE, SHORT = Lengths(20, 10.0, 16.0, 90.0), Lengths(3, 3.0, 7.0, 7.0)


class Lost(NamedTuple):
    """What the periods of one kind lost, in per cent, by period.

    `worst` is the most that was lost in any window once settled, None where periods are shorter.
    """

    each: list[float]
    worst: float | None


def lost(periods: Sequence[Period], bases: Sequence[float], since: float) -> Lost:
    """Each period beside the rate of its own base, from `since` seconds after its begin on."""
    each: list[float] = []
    worst: list[float] = []
    for period, base in zip(periods, bases, strict=True):
        each.append(100 * (1 - period.rate(since, period.length) / base))
        begins = [at for at in period.times if since <= at <= period.length - WINDOW]
        worst += [100 * (1 - period.rate(at, at + WINDOW) / base) for at in begins]
    return Lost(each, max(worst, default=None))


def settled(period: Period, base: float) -> float | None:
    """Seconds until the load loses no more than is allowed in the SETTLE seconds that follow.

    None if it never does.
    """
    enough = base * (1 - ALLOWED / 100)
    for at in period.times:
        if at + SETTLE > period.length:
            break
        if period.rate(at, at + SETTLE) >= enough:
            return at
    return None


def take_pairs(
    load: Load, options: Sequence[str], lengths: Lengths, say: Callable[[str], object]
) -> tuple[list[Period], list[Period]]:
    """Periods without probetop, one more, and those with it, by turns."""
    load.work(1.0)  # caches are warm from now on
    off, on = [load.work(lengths.off)], []
    for number in range(lengths.pairs):
        say(f"    pair {number + 1} of {lengths.pairs}")
        with streaming(options) as objects:
            time.sleep(IDLE_SECONDS)
            last = number == lengths.pairs - 1
            on.append(load.work(lengths.last if last else lengths.on, objects))
        off.append(load.work(lengths.off))
    return off, on


def _rates(periods: Sequence[Period]) -> list[float]:
    return [period.rate(0, period.length) for period in periods]


def rows_of(
    text: str,
    name: str,
    off: Sequence[Period],
    on: Sequence[Period],
    shown: Callable[[Object], bool],
) -> list[Sequence[str]]:
    """Two rows: what nothing loses, and what is lost with probetop."""
    rates = _rates(off)
    beside = [(a + b) / 2 for a, b in pairwise(rates)]
    around = [(a + b) / 2 for a, b in zip(rates, rates[2:], strict=False)]
    noise = lost(off[1:-1], around, 0.0)
    found = lost(on, beside, SETTLE)
    took = [settled(period, base) for period, base in zip(on, beside, strict=True)]
    times = [float("inf") if at is None else at for at in took]
    silent = max(period.silence(shown) for period in on)
    longest = f">{min(period.length for period in on):.0f}"
    when = [f"{at:.1f}" if at < float("inf") else longest for at in (median(times), max(times))]

    def row(who: str, rate: float, what: Lost, *more: str) -> Sequence[str]:
        interval = of_median(what.each)
        worst = NONE if what.worst is None else f"{what.worst:.1f}"
        cells = (f"{rate / 1e3:.1f}", str(len(what.each)), f"{interval.median:.2f}")
        return (text, who, *cells, spread(interval, ".2f"), worst, *more)

    with_it = median(period.rate(SETTLE, period.length) for period in on)
    return [
        row(NOTHING, median(rates), noise, NONE, NONE, NONE),
        row(name, with_it, found, *when, f"{silent:.1f}"),
    ]


def _of_one(
    folder: Path, kind: Kind, lengths: Lengths, say: Callable[[str], object]
) -> list[Sequence[str]]:
    functions = [word for spec in kind.functions for word in ("-f", spec)]
    load = Load(folder, kind.name)
    rows: list[Sequence[str]] = []
    try:
        for name, options in OPTIONS.items():
            if name == ANY:
                lengths = Lengths(lengths.pairs // CONTRAST, lengths.off, *[lengths.on / 2] * 2)
            if lengths.pairs == 0:
                break
            say(f"  {kind.text}, {name}")
            off, on = take_pairs(load, (*options, *functions), lengths, say)
            found = rows_of(kind.text, name, off, on, kind.shown)
            rows += found[0 if name == DEFAULT else 1 :]
    finally:
        load.close()
    return rows


def of_budget(folder: Path, lengths: Lengths, say: Callable[[str], object]) -> Table:
    """Each load, with nothing beside it and with probetop."""
    program = compiled(folder, "load")["load"]
    rows = [row for kind in kinds(program) for row in _of_one(folder, kind, lengths, say)]
    title = (
        f"A load on every CPU, {lengths.pairs} periods of {lengths.on:.0f} s (the last of "
        f"{lengths.last:.0f} s) with probetop and all its probes, between others without; lost is "
        f"from {SETTLE:.0f} s after the load's begin on"
    )
    head = (
        "load", "beside it", "thousand/s", "pairs", LOST, heading(lengths.pairs), WORST,
        SETTLED, "at most", SILENT,
    )  # fmt: skip
    return title, head, rows
