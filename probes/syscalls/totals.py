# SPDX-License-Identifier: Apache-2.0
"""System calls of a recording, without making its Frames, see `probes.report.recording_totals`."""

from __future__ import annotations

from probes.core.sample import Counts
from probes.sums.accumulators import MOST_KEYS, SampleSum
from probes.sums.counter_tables import Histograms, Table, Unusual, Waiting
from probes.sums.record_fields import TIMED, Fields
from probes.sums.recorded_counts import Counted
from probes.syscalls.sample import SyscallSample
from probes.syscalls.sum import SyscallSum


class Syscalls(Counted):
    """System calls: counts, errors and durations by call."""

    kind = SyscallSample

    def __init__(self) -> None:
        super().__init__()
        self.tables = {"calls": Table(1, MOST_KEYS // 2)}
        self.later("calls")
        self._latency = Histograms()
        self._timed = Waiting(self._take_timed)

    def _take(self, fields: Fields, whole: bool) -> None:
        data = bytes(fields.latency)
        if data == b"null" or (whole and not data):
            self._timed.catch_up()
            self._latency.replace({})
        elif whole:
            timed = TIMED.decode(data)
            self._timed.skip_to(self._latency.names() <= set(timed.keys))
            self._latency.replace(dict(zip(timed.keys, timed.values, strict=True)))
        elif data:
            self._timed.add(data)

    def _take_timed(self, data: bytes) -> None:
        timed = TIMED.decode(data)
        if timed.gone and not set(timed.gone).isdisjoint(timed.keys):
            raise Unusual("another order of keys")
        for name in timed.gone:
            self._latency.close(name)
        for name, histogram in zip(timed.keys, timed.values, strict=True):
            self._latency.change(name, histogram)

    def begin(self) -> None:
        super().begin()
        self._latency.begin()

    def sum(self) -> SampleSum:
        total = SyscallSum()
        self._timed.catch_up()
        total._calls = {key: Counts(*n) for key, n in self.tables["calls"].sums().items()}
        total._latency = {name: h for name, h in self._latency.sums().items() if h.n}
        return total
