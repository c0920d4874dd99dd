# SPDX-License-Identifier: Apache-2.0
"""Frames without what only their owner may see: arguments and files of programs, and texts.

Any local user may read the name and cgroup of every process in /proc, so those stay. Arguments
are in /proc as well, but only while a process runs; texts (of SQL, for example) are nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from probes.samples import ExecEvent, ExecSample, Frame, LatencySample, Sample

NOTHING: Mapping[Any, Any] = {}


def public(frame: Frame) -> Frame:
    """The Frame as anybody on this machine may have it."""
    samples = {name: _public(sample) for name, sample in frame.samples.items()}
    return replace(frame, samples=samples)


def _public(sample: Sample) -> Sample:
    if isinstance(sample, LatencySample) and sample.texts:
        return replace(sample, texts=NOTHING)
    if isinstance(sample, ExecSample) and sample.events:
        events = [
            replace(event, args=None, args_hidden=True, path=None, truncated=False)
            if isinstance(event, ExecEvent)
            else event
            for event in sample.events
        ]
        return replace(sample, events=tuple(events))
    return sample
