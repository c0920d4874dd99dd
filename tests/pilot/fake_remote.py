# SPDX-License-Identifier: Apache-2.0
"""Other machines with made-up data and links that break when told to, for tests only."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from probes.link import LinkState
from probes.samples import Frame
from tests.pilot.fake import FakeSource


class FakeRemote(FakeSource):
    """A machine called `name`, reached as `target`, whose Frames come when pushed."""

    def __init__(self, name: str, target: str = "", skip: int = 0) -> None:
        """`skip` Frames went before, so that its data are not those of another."""
        super().__init__(target or f"ssh://{name}")
        self.name = name
        self.link = LinkState()
        self.refused: Callable[[str], None] = lambda line: None
        for _ in range(skip):
            super().frame()

    def frame(self) -> Frame:
        frame = super().frame()
        self.title = self.name
        self.link = LinkState("live", time.monotonic(), None, self.link.received + 1000)
        return replace(frame, host=frame.host._replace(name=self.name))

    def cut(self, seconds: float, why: str = "timed out") -> None:
        """Break the link as if that long ago."""
        self.link = LinkState("lost", time.monotonic() - seconds - 0.5, why, self.link.received)
