# SPDX-License-Identifier: Apache-2.0
"""What an almost empty call shows as its duration, by mechanism: measured, not known by heart."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from probes.bpf.control_page import Control
from probes.bpf.histograms import Histograms, slices_for
from probes.bpf.plan import Attach
from probes.budget import attach_overhead
from probes.core import histogram, kernel
from probes.core.errors import ProbeError
from probes.core.frame import Filters
from probes.core.sample import NO_HISTOGRAM
from probes.latency import planner
from probes.symbols import binaries, target_spec
from probes.uprobes import empty_functions


def measured(mechanisms: Iterable[str], slot: int) -> Callable[..., Mapping[str, Any]]:
    """A calibration (see Plan): the floor of each mechanism in ns, from an almost empty call.

    And what such a call takes beside the programs, which is "outside". It takes the slot of the
    histograms behind those of the targets.
    """
    wanted = sorted(set(mechanisms))

    def calibrate(maps: Mapping[str, int], attach: Callable[[Attach], int]) -> Mapping[str, Any]:
        control = Control(os.dup(maps["control"]))
        hists = Histograms(os.dup(maps["hists"]), slices_for(kernel.possible_cpus()), slot + 1)
        control.set_filters(Filters(pid=os.getpid()))
        control.next_epoch()
        floors: dict[str, float] = {}
        outside: dict[str, float] = {}
        seen = NO_HISTOGRAM
        for mechanism in wanted:
            with suppress(ProbeError, OSError):
                outside[mechanism] = _call(mechanism, attach, slot, control)
            found = hists.read(slot, seen)
            if found is not seen:
                new = {i: n - seen.buckets.get(i, 0) for i, n in found.buckets.items()}
                floor = histogram.percentile(new, 0.5)
                if floor is not None:
                    floors[mechanism] = floor
            seen = found
        control.set_filters(Filters())
        control.close()
        hists.close()
        return {"floors": floors, "outside": outside}

    return calibrate


def _empty_calls(place: binaries.FilePlace, return_at: int | None) -> tuple[Attach, ...]:
    """Programs for an empty function, which end at its own return if that is given."""
    if return_at is None:
        _, leave, enter = planner.RETURNS["uprobe"]
        ends = [replace(one, kind="uretprobe") for one in planner.places_of([place], leave)]
    else:
        enter, leave = planner.OWN["own returns"]
        ends = [*planner.places_of([replace(place, offset=return_at)], leave)]
    return (*ends, *planner.places_of([place], enter))


def _call(
    mechanism: str,
    attach: Callable[[Attach], int],
    slot: int,
    control: Control,
    times: int = 400,
) -> float:
    """Attach to something that does next to nothing, and have it done.

    Returns the ns that a call takes longer with programs that return at once.
    """
    function: Callable[[], object] = os.getpid
    kind = mechanism.removesuffix(empty_functions.OWN)
    if kind in empty_functions.KINDS:
        place, function = empty_functions.function(kind)
        made = _empty_calls(place, None if kind == mechanism else empty_functions.return_at(kind))
    elif mechanism in ("kprobe", "fentry"):
        prefix = "x64" if kernel.arch() == "x86_64" else "arm64"
        made = planner.kernel_function(
            target_spec.parse(f"{mechanism}:__{prefix}_sys_getpid")
        ).attach
    else:
        made = planner.system_call("getpid").attach
    links: list[int] = []
    try:
        patch = {planner.TARGET: slot, **planner.NO_VALUES}
        bare = attach_overhead.fastest(function)
        links.extend(attach(replace(one, patch=patch)) for one in made)
        outside = max(0.0, attach_overhead.fastest(function) - bare)
        control.enable(True)
        for _ in range(times):
            function()
        return outside
    finally:
        control.enable(False)
        for fd in links:
            os.close(fd)
