# SPDX-License-Identifier: Apache-2.0
"""Targets of the latency probe that were loaded together."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from probes.base import Loaded, ProbeError
from probes.control import Control
from probes.cost import Meter
from probes.histograms import Histograms
from probes.peaks import Peaks
from probes.rows import RowTable
from probes.samples import Filters
from probes.traced_files import Files


def _files(facts: Mapping[str, Any]) -> Files:
    return tuple((path, device, inode) for path, device, inode in facts.get("files", ()))


class Unit:
    """Targets that were loaded together: their maps, and the number that they are detached by."""

    def __init__(self, loaded: Loaded, filters: tuple[Filters, int | None], meter: Meter) -> None:
        """`filters` are those that hold, and when the process that they name started."""
        facts, maps = loaded.facts, loaded.maps
        self.meter = meter
        self.slots: dict[int, Mapping[str, Any]] = {t["slot"]: t for t in facts["targets"]}
        self.files = {slot: _files(facts) for slot, facts in self.slots.items()}
        self.per_call: float = facts.get("per_call", 0.0)
        self.control = Control(maps.pop("control"))
        sizes = facts["PT_CPUS"], facts["PT_ROWS"], facts.get("PT_WIDE", 0)
        self.rows = RowTable(maps, *sizes, texts=True)
        slices, slots = facts["PT_SLICES"], facts["PT_HISTS"]
        peaks = Peaks(maps.pop("peaks"), facts["PT_CPUS"], slots)
        self.hists = Histograms(maps.pop("hists"), slices, slots, peaks)
        self._number = loaded.unit
        meter.adopt(loaded)
        with suppress(ProbeError):  # a cgroup that has gone matches nothing
            self.control.set_filters(*filters)
        self.control.next_epoch()
        self.control.enable(True)

    def drop(self, slot: int) -> None:
        """Detach one target."""
        if self.slots.pop(slot, None) is not None:
            self.rows.forget_keys()
            self.meter.drop(self._number, [slot])

    def close(self) -> None:
        """Detach all and unmap."""
        self.control.enable(False)
        self.slots.clear()
        self.control.close()
        self.rows.close()
        self.hists.close()
        self.meter.forget(self._number)
