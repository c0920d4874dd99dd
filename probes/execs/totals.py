# SPDX-License-Identifier: Apache-2.0
"""Program executions of a recording, without making its Frames.

See `probes.report.recording_totals`.
"""

from __future__ import annotations

import msgspec

from probes.execs.sample import MAX_EVENTS, ExecEvent, ExecSample, ExitEvent
from probes.execs.sum import ExecSum
from probes.sums.accumulators import SampleSum
from probes.sums.counter_tables import Unusual
from probes.sums.record_fields import EVENTS, Fields
from probes.sums.recorded_counts import Counted

MOST_EVENT = 100_000
"""Bytes of an execution: its arguments are 4096 bytes, each of them escaped at worst."""


class Execs(Counted):
    """Program executions: their rows and programs, which `probes.sums.accumulators` counts."""

    kind = ExecSample

    def __init__(self) -> None:
        super().__init__()
        self._events: list[ExecEvent | ExitEvent] = []
        self._sum = ExecSum()

    def _take(self, fields: Fields, whole: bool) -> None:
        if bytes(fields.failed_duty):
            raise Unusual("estimates from bursts")
        data = bytes(fields.events)
        if data or whole:
            events = EVENTS.decode(data) if data else ()
            if len(events) > MAX_EVENTS:
                raise Unusual("more events than a Frame may have")
            if any(len(bytes(event)) > MOST_EVENT for _, event in events):
                raise Unusual("an event that is too large")
            self._events = [EVENT[kind].decode(event) for kind, event in events]

    def counted(self, seconds: float) -> None:
        if self._events:
            now = max([event.time for event in self._events])
            self._sum.log.add(self._events, now or None)
            self._sum.programs.take(self._sum.log, now)

    def sum(self) -> SampleSum:
        return self._sum


EVENT: dict[str, msgspec.json.Decoder[ExecEvent] | msgspec.json.Decoder[ExitEvent]] = {
    "ExecEvent": msgspec.json.Decoder(ExecEvent),
    "ExitEvent": msgspec.json.Decoder(ExitEvent),
}
