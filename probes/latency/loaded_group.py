# SPDX-License-Identifier: Apache-2.0
"""Targets of the latency probe that were loaded together."""

from __future__ import annotations

from contextlib import suppress

from probes.bpf.control_page import Control
from probes.bpf.histograms import Histograms
from probes.bpf.peaks import Peaks
from probes.bpf.plan import Loaded
from probes.bpf.row_table import RowTable
from probes.budget.meter import Meter
from probes.budget.policy import Level
from probes.core.errors import ProbeError
from probes.core.frame import Filters
from probes.core.sample import NO_HISTOGRAM, Histogram
from probes.host.traced_files import Files
from probes.ipc.messages import BurstReport
from probes.latency.facts import LatencyFacts
from probes.latency.target_bursts import TargetBursts

LATE = 10_000_000
"""Nanoseconds after a burst until its programs are called no more, on the average."""


class Unit:
    """Targets that were loaded together: their maps, and the number that they are detached by.

    One that is attached in bursts is alone: `bursts` has its estimates, `seen` the calls that
    began and ended within them. What switching takes is `switching` per cent of one CPU.
    """

    def __init__(
        self,
        loaded: Loaded,
        facts: LatencyFacts,
        filters: tuple[Filters, int | None],
        meter: Meter,
        bursts: TargetBursts | None = None,
    ) -> None:
        """`facts` are those of `loaded`.

        `filters` are those that hold, and when the process that they name started.

        In `bursts` its programs count when the broker says so, else at once.
        """
        maps = loaded.maps
        self.meter = meter
        self.facts = facts
        self.slots = {target.slot: target for target in facts.targets}
        self.files: dict[int, Files] = {slot: t.files for slot, t in self.slots.items()}
        self.per_call = facts.per_call
        self.control = Control(maps.pop("control"))
        self.rows = RowTable(maps, facts.cpus, facts.rows, facts.wide, texts=True)
        peaks = Peaks(maps.pop("peaks"), facts.cpus, facts.histograms)
        self.hists = Histograms(maps.pop("hists"), facts.slices, facts.histograms, peaks)
        self.number = loaded.unit
        self.bursts, self.seen, self.switching = bursts, NO_HISTOGRAM, 0.0
        self._taken: Histogram = NO_HISTOGRAM
        meter.adopt(loaded)
        with suppress(ProbeError):  # a cgroup that has gone matches nothing
            self.control.set_filters(*filters)
        self.control.next_epoch()
        if bursts is None:
            self.control.enable(True)

    def attach_in(self, slot: int, level: Level) -> None:
        """Have it attached in bursts as a level says."""
        self.meter.attach_in(self.number, slot, level.on, level.period)

    def look(self, slot: int, counts_only: bool) -> int:
        """Read what bursts have counted; returns how many calls are new."""
        before = self.seen
        if counts_only:
            count = self.hists.counters()[slot][0]
            self.seen = before if count == before.n else Histogram({}, count, 0)
        else:
            self.seen = self.hists.read(slot, before)
        return max(0, self.seen.n - before.n)

    def take(self, report: BurstReport, price: float) -> None:
        """Take in a burst; `price` are the ns that each call takes longer within one."""
        assert self.bursts is not None
        new = {
            bucket: n - self._taken.buckets.get(bucket, 0)
            for bucket, n in self.seen.buckets.items()
        }
        n = self.seen.n - self._taken.n
        self._taken = self.seen
        self.bursts.add(report, n, new, price)
        period = max(1, report.until - report.since)
        # Until the kernel has detached them, programs are called by calls that nobody counts.
        late = n * price * LATE / max(1, report.end - report.begin)
        self.switching = 100 * (report.cost + late) / period

    def drop(self, slot: int) -> None:
        """Detach one target."""
        if self.slots.pop(slot, None) is not None:
            self.rows.forget_keys()
            self.meter.drop(self.number, [slot])

    def close(self) -> None:
        """Detach all and unmap."""
        self.control.enable(False)
        self.slots.clear()
        self.control.close()
        self.rows.close()
        self.hists.close()
        self.meter.forget(self.number)
