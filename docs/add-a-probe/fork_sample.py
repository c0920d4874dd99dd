# SPDX-License-Identifier: Apache-2.0
"""The Sample of created threads, and its sum over many intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from probes.limits import Count, Cpu
from probes.model import int_delta
from probes.samples import Sample
from probes.sums import SUMS, SampleSum, Tick


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkSample(Sample):
    """Threads created since the probe was switched on, cumulative, by CPU."""

    created: Mapping[Cpu, Count] = field(default_factory=dict)


class ForkSum(SampleSum):
    """Threads created in a span, by CPU."""

    def __init__(self, kind: type[Sample] = ForkSample) -> None:
        super().__init__(kind)
        self._created: Counter[int] = Counter()

    def _take(self, old: Sample, after: Sample, tick: Tick) -> None:
        """Add one interval."""
        assert isinstance(old, ForkSample)
        assert isinstance(after, ForkSample)
        self._created.update(int_delta(old.created, after.created))

    def _own(self) -> dict[str, Any]:
        """The fields that ForkSample adds to Sample."""
        return {"created": dict(self._created)}


SUMS[ForkSample] = ForkSum
