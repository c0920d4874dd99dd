# SPDX-License-Identifier: Apache-2.0
"""What tests of the latency probe stand on: targets that are added, waited for, and read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from probes.core import histogram
from probes.core.delta import histogram_delta
from probes.core.frame import Frame
from probes.core.sample import Histogram
from probes.latency.sample import LatencySample, Target
from probes.latency.view import TargetRow, latency_view
from tests.kernel.harness import Live

STEP = 1 / 32
"""The width of a bucket of durations, by its lower end."""
DISPLACED = 3
"""Calls of one run that interrupts may make longer."""
PATHS = {"latency": "probes.latency.probe:LatencyProbe"}


class Timing(Live):
    """A source with the latency probe and these targets, each of which has been decided."""

    def __init__(self, *targets: str, **settings: Any) -> None:
        settings.setdefault("options", {"latency": {"targets": list(targets)}})
        settings.setdefault("paths", PATHS)
        super().__init__("latency", **settings)

    def __enter__(self) -> Timing:
        return self

    def latency(self) -> LatencySample:
        """The settled counters."""
        return cast(LatencySample, self.settled().samples["latency"])

    def now(self) -> Mapping[str, Target]:
        """The settled targets."""
        return self.latency().targets

    def decided(self, *specs: str) -> list[Target]:
        """Wait until these targets are on, or have failed."""

        def judge(frame: Frame) -> list[Target]:
            known = targets_of(frame)
            found = [known[spec] for spec in specs if spec in known]
            done = len(found) == len(specs) and all(t.state in ("on", "failed") for t in found)
            return found if done else []

        return judge(self.wait(f"{specs} are decided", judge))

    def add(self, *specs: str) -> list[Target]:
        """Add targets and wait until they are on."""
        for spec in specs:
            self.source.set_option("latency", "add", spec)
        found = self.decided(*specs)
        assert all(target.state == "on" for target in found), found
        return found

    def remove(self, spec: str) -> None:
        """Remove a target and wait until it is gone."""
        self.source.set_option("latency", "remove", spec)
        self.wait(f"{spec} is gone", lambda frame: spec not in targets_of(frame))


def targets_of(frame: Frame) -> Mapping[str, Target]:
    """The latency targets in a Frame."""
    return cast(LatencySample, frame.samples["latency"]).targets


def rows(before: LatencySample, after: LatencySample) -> dict[str, TargetRow]:
    """Every target in the interval between two Samples."""
    return {row.target.spec: row for row in latency_view(before, after, 1).targets}


def since(before: LatencySample, after: LatencySample, spec: str) -> tuple[Histogram, int, int]:
    """A target's durations between two Samples, what was missed, and what found no space."""
    old, new = before.targets[spec], after.targets[spec]
    return (
        histogram_delta(old.histogram, new.histogram),
        new.missed - old.missed,
        new.overflow - old.overflow,
    )


def durations(record: Path, depth: int | None = None) -> list[int]:
    """What a workload wrote of its calls (at one depth), ascending ns."""
    lines = [line.split() for line in record.read_text().splitlines()]
    return sorted(int(line[0]) for line in lines if depth is None or int(line[1]) == depth)


def rank(values: Sequence[int], fraction: float) -> int:
    """The value that `fraction` of them do not exceed."""
    return values[min(len(values), max(1, math.ceil(len(values) * fraction))) - 1]


class Spent(Protocol):
    """A row of a view, with durations of an interval."""

    p50: float | None
    p99: float | None
    maximum: float | None
    total: int | None


def sleeps_asked_for(n: int) -> list[int]:
    """What `calls sleeps N` asks for, ascending ns."""
    return sorted(1_000_000 + i * 7919 % 5 * 1_000_000 for i in range(n))


def assert_sleeps(row: Spent, n: int, said: Sequence[int]) -> None:
    """Durations of `calls sleeps N` lie between what it asked for and what it says that they took.

    Each sleep is no shorter than was asked for, and no longer than between the clocks around it;
    so neither is any rank of them, whatever else takes the CPU before and behind. A percentile
    is within a bucket's width.
    """
    asked = sleeps_asked_for(n)
    p50, p99, longest, total = said
    for name, found, low, high in (
        ("p50", row.p50, rank(asked, 0.50), p50),
        ("p99", row.p99, rank(asked, 0.99), p99),
        ("maximum", row.maximum, asked[-1], longest),
    ):
        assert found is not None
        assert low * (1 - STEP) <= found <= high * (1 + STEP), (name, low, found, high)
    assert row.total is not None
    # The kernel's clock and the program's are set right at different moments.
    assert sum(asked) * 0.999 <= row.total <= total * 1.001


def assert_between(
    found: Histogram,
    record: Path,
    depths: Sequence[int] = (),
    fractions: Sequence[float] = (0.5, 0.9, 0.99),
    slack: float = 0.002,
) -> None:
    """No call missing, none too many; each as long as the workload says, whoever has the CPU.

    Its last column is the time around a call, as long as what was not the workload's own took as
    well: what interrupts or another program put between the probe's clock and the workload's. What
    a call has least of that is the mechanism itself, and belongs to no duration but for 4 %.
    `slack` is the part of a step between two ranks.
    """
    lines = [[int(word) for word in line.split()] for line in record.read_text().splitlines()]
    spans = [(line[0], line[-1]) for line in lines if not depths or line[1] in depths]
    assert found.n == len(spans)
    mechanism = min(around - inside for inside, around in spans)
    low = sorted(inside for inside, _ in spans)
    high = sorted(round(around - mechanism + 0.04 * inside) for inside, around in spans)
    for fraction in fractions:
        value = histogram.percentile(found.buckets, fraction)
        assert value is not None
        assert rank(low, fraction - slack) * (1 - STEP) <= value, fraction
        assert value <= rank(high, fraction + slack), fraction
    assert sum(low) <= found.total <= sum(high)


def assert_agree(
    found: Histogram,
    truth: Sequence[int],
    fractions: Sequence[float] = (0.5, 0.9, 0.99),
    slack: float = 0.002,
) -> None:
    """No call missing, none too many; percentiles and the sum as the workload's own clock has them.

    That clock is read within the call, so that no call took less. An interrupt between the probe's
    clock and the workload's makes a call longer, and moves it to another rank: `slack` is the share
    of calls that may be so, and a few always may.
    """
    assert found.n == len(truth)
    behind = max(slack * len(truth), DISPLACED) / len(truth)
    for fraction in fractions:
        value = histogram.percentile(found.buckets, fraction)
        assert value is not None
        assert rank(truth, fraction - slack) * (1 - STEP) <= value, fraction
        assert value <= rank(truth, fraction + behind) * 1.04, fraction
    assert sum(truth) <= found.total <= 1.04 * sum(truth)


def by_pid(before: LatencySample, after: LatencySample, spec: str) -> dict[int, int]:
    """Calls of a target between two Samples, by process."""
    found = latency_view(before, after, 1).behind(spec)
    return {row.pid: row.count for row in found if row.count and row.pid is not None}


def by_text(before: LatencySample, after: LatencySample, spec: str) -> dict[str, int]:
    """Calls of a target between two Samples, by the text of its argument."""
    found = latency_view(before, after, 1).behind(spec)
    return {row.comm: row.count for row in found if row.count and row.pid is None}
