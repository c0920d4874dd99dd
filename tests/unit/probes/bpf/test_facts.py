# SPDX-License-Identifier: Apache-2.0
"""What a loader tells a probe crosses from root to user: it is checked before it is used."""

from __future__ import annotations

import os
from typing import Any

import pytest

from probes.bpf.plan import Loaded
from probes.core.errors import ProbeError
from probes.execs.probe import ExecProbe
from probes.latency.probe import LatencyProbe
from probes.pmc.probe import PmcProbe
from probes.probe import Probe
from probes.syscalls.probe import SyscallProbe

SIZES = {"PT_CPUS": 2, "PT_ROWS": 16, "PT_SLICES": 1, "PT_HISTS": 2}
COUNTERS = {
    "PT_CPUS": 2, "PT_ROWS": 16, "PT_SLOTS": 0, "wish": ["base", "all", []], "events": [],
    "hardware": False, "reason": None, "absent": {}, "partly": {}, "online": "0-1", "wait": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("probe", "facts"),
    [
        (SyscallProbe, {**SIZES, "latency": "yes"}),
        (SyscallProbe, {**SIZES, "PT_CPUS": -1, "latency": False}),
        (SyscallProbe, {"latency": False}),
        (ExecProbe, {"cpus": 0, "ring": 4096}),
        (ExecProbe, {"cpus": 2, "ring": 1 << 40}),
        (PmcProbe, {**COUNTERS, "wish": ["base", "everything", []]}),
        (PmcProbe, {**COUNTERS, "absent": [1]}),
        (LatencyProbe, {**SIZES, "errors": [], "targets": [{"spec": "runq"}]}),
        (LatencyProbe, {**SIZES, "errors": [], "targets": [], "floors": {"uprobe": -1.0}}),
    ],
)
def test_malformed_facts_are_refused_before_a_map_is_taken(
    probe: type[Probe], facts: dict[str, Any]
) -> None:
    read_end, write_end = os.pipe()
    loaded = Loaded(facts, {"control": read_end})
    try:
        with pytest.raises(ProbeError, match="what the loader tells of the probe is malformed"):
            probe().adopt(loaded)
        assert loaded.maps == {"control": read_end}
        loaded.close()
    finally:
        os.close(write_end)
