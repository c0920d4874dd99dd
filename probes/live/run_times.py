# SPDX-License-Identifier: Apache-2.0
"""Asks the broker what programs ran and missed, and tells the probes' meters."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from probes.broker.client import BrokerLink
from probes.budget.meter import CostWindows
from probes.ipc.messages import Answer
from probes.probe import Probe

LEAD = 0.02
"""Seconds before a Frame at which the broker is asked what programs missed."""


class RunTimes:
    """Statistics of the programs of `running` probes, measured all the time if `always`."""

    def __init__(
        self, link: BrokerLink, always: bool, running: Callable[[], Sequence[Probe]]
    ) -> None:
        self.windows = CostWindows(always)
        self._link = link
        self._running = running
        self._asked: int | None = None

    def measure(self, now: float) -> None:
        """Have the kernel measure the programs' run times, or stop, as a window is due."""
        wish = self.windows.due(self._running(), now)
        if wish is not None:
            self.windows.request = self._link.tell("measure", on=wish == "on")

    def lead(self, due: float, interval: float, now: float) -> float:
        """Ask what programs missed, shortly before a Frame; seconds before `due` to be called."""
        if self._asked is not None:
            return 0.0
        lead = min(LEAD, interval / 4)
        if now < due - lead:
            return lead
        self._asked = self._link.tell("runs") if self._running() else 0
        return 0.0

    def framed(self) -> None:
        """A Frame was made: the next one is to have newer figures."""
        self._asked = None

    def answered(self, answer: Answer) -> bool:
        """Take in an answer, if it is one to these questions."""
        if answer.id == self.windows.request:
            runs = answer.runs if answer.ok else None
            self.windows.answered(runs, self._running(), time.monotonic())
        elif answer.id == self._asked:
            for probe in self._running():
                probe.meter.told(answer.runs)
        else:
            return False
        return True
