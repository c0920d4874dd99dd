# SPDX-License-Identifier: Apache-2.0
"""What makes one probe's metrics of its successive Samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from probes.core.sample import Sample
from probes.core.schema import Schema
from tui.agent.metrics.families import Family
from tui.agent.metrics.top_series import Crowd
from tui.agent.state.client_view import View


class Collector(ABC):
    """One probe's metrics. Their number is bounded, and counters only rise.

    `comes_first` says that its Samples tell the control groups of processes that have ended, for
    collectors that count by process.
    """

    comes_first: ClassVar[bool] = False

    def __init__(self, name: str, schema: Schema, crowd: Crowd) -> None:
        """`name` and `schema` are the probe's; `crowd` counts by process."""
        self.name, self.schema, self.crowd = name, schema, crowd

    @abstractmethod
    def add(self, new: Sample, now: float) -> None:
        """Take in the next Sample, of any class or state; `now` are monotonic seconds."""

    @abstractmethod
    def families(self, view: View) -> Iterator[Family]:
        """What there is to expose, as a kind of client sees it."""

    def knows(self, pid: int) -> bool:
        """Whether the last Sample has this process."""
        return False
