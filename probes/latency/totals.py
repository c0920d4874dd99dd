# SPDX-License-Identifier: Apache-2.0
"""Latency targets of a recording, without making its Frames.

See `probes.report.recording_totals`.
"""

from __future__ import annotations

from dataclasses import replace

from probes.core.elapsed import target_part
from probes.core.sample import NO_HISTOGRAM
from probes.latency.sample import LatencySample, Target
from probes.latency.sum import LatencySum
from probes.recording import bounded_json
from probes.recording.codec import codec_for
from probes.sums.accumulators import MOST_TIMED, SampleSum
from probes.sums.counter_tables import Histograms, Unusual
from probes.sums.record_fields import HISTOGRAM, TARGETS, EncodedTargets, Fields
from probes.sums.recorded_counts import Counted

TARGET = codec_for(Target)


class Latency(Counted):
    """Latency targets: calls and durations."""

    kind = LatencySample

    def __init__(self) -> None:
        super().__init__()
        self._real: dict[str, Target] = {}
        self._seen: dict[str, Target] = {}
        self._counting: dict[str, float] = {}
        self._spent = Histograms()

    def _take(self, fields: Fields, whole: bool) -> None:
        data = bytes(fields.targets)
        if not data and not whole:
            return
        targets = TARGETS.decode(data) if data else EncodedTargets([], [])
        histograms = {
            spec: HISTOGRAM.decode(target.pop("histogram"))
            for spec, target in zip(targets.keys, targets.values, strict=True)
            if "histogram" in target
        }
        if whole:
            self._real = {}
            self._spent.replace(histograms)
        else:
            if targets.gone and not set(targets.gone).isdisjoint(targets.keys):
                raise Unusual("another order of keys")
            for spec in targets.gone:
                self._real.pop(spec, None)
                self._spent.close(spec)
            for spec, histogram in histograms.items():
                self._spent.change(spec, histogram)
        if len(self._seen.keys() | self._real.keys() | set(targets.keys)) > MOST_TIMED:
            raise Unusual("too many targets")
        for spec, target in zip(targets.keys, targets.values, strict=True):
            changes = {name: bounded_json.decode(bytes(data)) for name, data in target.items()}
            self._real[spec] = TARGET.decode(changes, self._real.get(spec))
            if self._real[spec].duty is not None:
                raise Unusual("estimates from bursts")

    def begin(self) -> None:
        self._spent.begin()

    def counted(self, seconds: float) -> None:
        self._seen.update(self._real)
        for spec, target in self._real.items():
            if target.state == "on":
                own = target_part(target.began, self.since, seconds)
                self._counting[spec] = self._counting.get(spec, 0.0) + own

    def sum(self) -> SampleSum:
        total, spent = LatencySum(), self._spent.sums()
        total._targets = {
            spec: replace(
                target,
                histogram=spent.get(spec, NO_HISTOGRAM),
                began=max(0.0, self.seconds - self._counting.get(spec, 0.0)),
            )
            for spec, target in self._seen.items()
        }
        return total
