# SPDX-License-Identifier: Apache-2.0
"""Targets of the latency probe that were loaded together."""

from __future__ import annotations

from contextlib import suppress

from probes.base import Loaded, ProbeError
from probes.control import Control
from probes.cost import Meter
from probes.latency_facts import LatencyFacts
from probes.peaks import Peaks
from probes.rows import Histograms, RowTable
from probes.samples import Filters
from probes.traced_files import Files


class Unit:
    """Targets that were loaded together: their maps, and the number that they are detached by."""

    def __init__(self, loaded: Loaded, filters: tuple[Filters, int | None], meter: Meter) -> None:
        """`filters` are those that hold, and when the process that they name started."""
        facts, maps = loaded.facts_as(LatencyFacts), loaded.maps
        self.meter = meter
        self.facts = facts
        self.slots = {target.slot: target for target in facts.targets}
        self.files: dict[int, Files] = {slot: t.files for slot, t in self.slots.items()}
        self.per_call = facts.per_call
        self.control = Control(maps.pop("control"))
        self.rows = RowTable(maps, facts.cpus, facts.rows, facts.wide, texts=True)
        peaks = Peaks(maps.pop("peaks"), facts.cpus, facts.histograms)
        self.hists = Histograms(maps.pop("hists"), facts.slices, facts.histograms, peaks)
        self._number = loaded.unit
        meter.adopt(loaded)
        with suppress(ProbeError):  # a cgroup that has gone matches nothing
            self.control.set_filters(*filters)
        self.control.next_epoch()
        self.control.enable(True)

    def drop(self, slot: int) -> None:
        """Detach one target."""
        if self.slots.pop(slot, None) is not None:
            self.meter.drop(self._number, [slot])

    def close(self) -> None:
        """Detach all and unmap."""
        self.control.enable(False)
        self.slots.clear()
        self.control.close()
        self.rows.close()
        self.hists.close()
        self.meter.forget(self._number)
