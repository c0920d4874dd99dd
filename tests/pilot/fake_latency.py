# SPDX-License-Identifier: Apache-2.0
"""Made-up, repeatable latencies: what a probe of functions would count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import exp, sin

from probes.core import histogram
from probes.core.peak_values import with_peak
from probes.core.sample import Cost, Histogram
from probes.latency.sample import LatencySample, Spent, Target
from probes.source import Found

BROKEN = Target(
    spec="uprobe:/opt/shop/bin/checkout:charge_crad",
    mechanism="uprobe",
    state="failed",
    why="/opt/shop/bin/checkout has no symbol 'charge_crad'",
    fix="near names: charge_card, charge_cart",
)
TARGETS = (
    # (target, calls a second, [(share, median ns, how far the duration spreads, octaves)])
    (Target(spec="runq", mechanism="tracepoint"), 18_200, ((0.97, 2_100, 5), (0.03, 90_000, 6))),
    (Target(spec="blockio", mechanism="tracepoint"), 412, ((0.6, 88_000, 3), (0.4, 1.3e6, 3))),
    (Target(spec="softirq", mechanism="tracepoint"), 3_300, ((1.0, 4_000, 6),)),
    (
        Target(spec="uprobe:libc:malloc", mechanism="uprobe", floor=830.0, functions=1),
        61_000,
        ((0.99, 1_020, 2), (0.01, 9_000, 6)),
    ),
    (
        Target(spec="fentry:vfs_*", mechanism="fentry", floor=96.0, functions=64),
        22_400,
        ((0.9, 610, 4), (0.1, 14_000, 6)),
    ),
    (
        Target(spec="tracepoint:sched:sched_switch", mechanism="tracepoint", counts_only=True),
        9_400,
        (),
    ),
    (
        Target(
            spec="uprobe:/usr/lib/postgresql/15/bin/postgres:exec_simple_query", mechanism="uprobe"
        ),
        38,
        ((1.0, 6.1e6, 6),),
    ),
    (BROKEN, 0, ()),
    (Target(spec="usdt:python3:gc__start,gc__done", state="starting"), 0, ()),
)
FOUND = (
    Found("uprobe:libc:malloc", "uprobe", "libc.so.6", 1240.0),
    Found("uprobe:libc:malloc_trim", "uprobe", "libc.so.6", 1240.0),
    Found("fentry:vfs_read", "fentry", "ssize_t vfs_read(struct file *, char *, ...)", 96.0),
    Found("kprobe:vfs_readv", "kprobe", "not in the kernel's types", None),
    Found("runq", "tracepoint", "from wakeup to running", 310.0),
    Found("uprobe:/srv/\x1b[31mapp\x07:[red]main[/]", "uprobe", "\u202e4 symbols", 1240.0),
)


def wobble(tick: int, salt: int) -> float:
    """A factor from 0.95 to 1.05 that looks random and is not."""
    return 0.95 + ((tick * 7919 + salt * 104_729) % 1000) / 10_000


def _shape(calls: int, median: float, octaves: int, salt: int) -> tuple[dict[int, int], int, int]:
    """Buckets of `calls` durations in a bell with a tail; their sum, and the longest."""
    parts = 32 * octaves
    weights = [exp(-(((at - parts / 3) / (parts / 6)) ** 2)) for at in range(parts)]
    weights = [w + 0.002 / (1 + at) for at, w in enumerate(weights)]
    whole = sum(weights)
    buckets: dict[int, int] = {}
    total = longest = 0
    for at, weight in enumerate(weights):
        value = median * wobble(salt, 3) * 2 ** ((at - parts / 3) / 32)
        count = int(calls * weight / whole * wobble(salt, at) + (at * 31 + salt * 17) % 97 / 97)
        if count:
            bucket = histogram.index(int(value))
            buckets[bucket] = buckets.get(bucket, 0) + count
            total += count * int(value)
            longest = int(value)
    return buckets, total, longest


class FakeLatency:
    """Targets that can be added and removed, and their counters so far."""

    def __init__(self, comms: Mapping[int, str]) -> None:
        self.comms = comms
        self.targets = list(TARGETS)
        self._spent: dict[str, Target] = {}
        self._behind: dict[tuple[str, int], Spent] = {}

    def add(self, spec: str) -> None:
        self.targets.append((Target(spec=spec, mechanism="uprobe"), 7, ((1.0, 5e3, 2),)))

    def remove(self, spec: str) -> None:
        self.targets = [entry for entry in self.targets if entry[0].spec != spec]
        self._spent.pop(spec, None)

    def mark(self, spec: str, file: str) -> None:
        """From now on the file of a target is said to be so."""
        self._spent[spec] = replace(self._spent[spec], file=file)

    def sample(self, tick: int) -> LatencySample:
        """The cumulative counters after one more interval."""
        for salt, (wanted, rate, shapes) in enumerate(self.targets):
            before = self._spent.get(wanted.spec)
            if before is None or wanted.state == "failed" or not rate:
                started = "on" if rate else wanted.state
                self._spent[wanted.spec] = replace(wanted, state=started)
                continue
            calls = round(rate * wobble(tick, salt) * (1 + (tick // 20 + salt) % 3))
            buckets, total = dict(before.histogram.buckets), before.histogram.total
            n = calls if wanted.counts_only else 0
            longest = 0
            for share, median, octaves in shapes:
                # Durations drift up and down within a minute, and double in bursts.
                drift = 2 ** (sin((tick + 9 * salt) / 9) + ((tick + salt) % 23 in (0, 1, 2)))
                part = round(calls * share)
                more, spent, most = _shape(part, median * drift, octaves, tick + salt)
                for bucket, count in more.items():
                    buckets[bucket] = buckets.get(bucket, 0) + count
                n, total = n + sum(more.values()), total + spent
                longest = max(longest, most)
            peaks = with_peak(before.histogram.peaks, before.histogram.n + n, longest)
            grown = Histogram(buckets, before.histogram.n + n, total, peaks)
            missed = before.missed + (3 if wanted.functions > 1 else 0)
            self._spent[wanted.spec] = replace(before, histogram=grown, missed=missed)
            mean = (total - before.histogram.total) // max(1, n)
            rest = n
            for at, pid in reversed(list(enumerate(list(self.comms)[: 3 + salt]))):
                # The first has what the others leave: rows of processes make up the whole.
                part = n // (at + 7) if at else rest
                rest -= part
                if part:
                    old = self._behind.get((wanted.spec, pid), Spent(0, 0))
                    spent = part * mean * (1 + at % 3)
                    self._behind[wanted.spec, pid] = Spent(old.n + part, old.total + spent)
        return LatencySample(
            state="on",
            generation=1,
            cost=Cost(sum([t.histogram.n for t in self._spent.values()]), 210.0, 1.31, 4_194_304),
            targets={wanted.spec: self._spent[wanted.spec] for wanted, _, _ in self.targets},
            processes=dict(self._behind),
            comms=dict(self.comms),
        )
