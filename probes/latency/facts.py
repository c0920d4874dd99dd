# SPDX-License-Identifier: Apache-2.0
"""What the loader tells the dashboard of latency targets: types, and checks, of the values."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from probes.ipc.messages import CpuCount, MapEntries, NanosecondsOfCall, Number


class TargetFacts(Struct, kw_only=True):
    """One target, as `probes.latency.planner.Wish` has it.

    `slot` is its number in the maps, `watches` that it makes every system call cost more, `floor`
    the calibration that tells what an empty call shows, `countable` that its calls can be counted
    without being timed. `files` are path, device and inode of what it is attached to.
    """

    spec: str
    slot: Number
    mechanism: str
    functions: Number
    counts_only: bool
    watches: bool
    unit: Literal["ns", ""]
    by_text: bool
    floor: str
    countable: bool
    files: tuple[tuple[str, int, int], ...] = ()
    why: str | None = None
    fix: str | None = None

    @property
    def is_timed(self) -> bool:
        """Whether it has durations: not where events are counted, or values measured."""
        return bool(not self.counts_only and self.unit)


class LatencyFacts(
    Struct,
    rename={"cpus": "PT_CPUS", "rows": "PT_ROWS", "slices": "PT_SLICES", "histograms": "PT_HISTS",
            "wide": "PT_WIDE"},
):  # fmt: skip
    """All targets of one load, sizes of the maps, and what was measured while it was loaded.

    `errors` are (spec, why, fix) of targets that cannot be attached. `floors` and `outside` are
    ns by mechanism: what an empty call shows, and takes beside the programs. `per_call` are the ns
    that each system call of the machine pays; `wide` are words of a row for a text.
    """

    cpus: CpuCount
    rows: MapEntries
    slices: MapEntries
    histograms: MapEntries
    targets: list[TargetFacts]
    errors: list[tuple[str, str, str]]
    wide: Number = 0
    floors: dict[str, NanosecondsOfCall] = {}
    outside: dict[str, NanosecondsOfCall] = {}
    per_call: NanosecondsOfCall = 0.0
