# SPDX-License-Identifier: Apache-2.0
"""The few immutable shapes that every pane, stream, recording and export is made of.

A Sample holds *cumulative* counters of one probe; a Frame holds the Samples of one tick.
Rates come from two Frames (see `probes.model`), so live, replayed and remote data are
shown by the same code. Mappings in a Sample are never changed after it was made: a reader
may keep them, and an entry that did not change is the very same object in both Samples.

The types of fields name the values that a decoder accepts, see `probes.limits`.
"""

from __future__ import annotations

from probes.exec_sample import MAX_EVENTS, ExecEvent, ExecSample, ExitEvent
from probes.frame import NO_FILTERS, Filters, Frame, Host, Notice
from probes.latency_sample import LatencySample, Spent, Target
from probes.pmc_sample import CpuTimes, PmcSample, Reading, TaskTimes
from probes.sample import (
    EMPTY,
    NO_COST,
    NO_HISTOGRAM,
    NONE_ESTIMATED,
    NOT_ESTIMATED,
    Budget,
    Cost,
    Counts,
    Duty,
    Estimate,
    Estimates,
    Histogram,
    Sample,
    State,
)
from probes.syscall_sample import SyscallSample

__all__ = [
    "EMPTY",
    "MAX_EVENTS",
    "NONE_ESTIMATED",
    "NOT_ESTIMATED",
    "NO_COST",
    "NO_FILTERS",
    "NO_HISTOGRAM",
    "Budget",
    "Cost",
    "Counts",
    "CpuTimes",
    "Duty",
    "Estimate",
    "Estimates",
    "ExecEvent",
    "ExecSample",
    "ExitEvent",
    "Filters",
    "Frame",
    "Histogram",
    "Host",
    "LatencySample",
    "Notice",
    "PmcSample",
    "Reading",
    "Sample",
    "Spent",
    "State",
    "SyscallSample",
    "Target",
    "TaskTimes",
]
