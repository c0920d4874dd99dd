# SPDX-License-Identifier: Apache-2.0
"""A Source whose commands may be refused for the moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from probes.core.frame import Filters, Frame
from probes.source import Found, Source


class Guard:
    """Another Source, to which commands go only where `check` raises no ProbeError."""

    def __init__(self, source: Source, check: Callable[[], None]) -> None:
        self.source = source
        self.live, self.title, self.lifts = source.live, source.title, source.lifts
        self._check = check

    def start(self, on_frame: Callable[[Frame], None], on_end: Callable[[str], None]) -> None:
        """Begin."""
        self.source.start(on_frame, on_end)

    def stop(self) -> None:
        """End."""
        self.source.stop()

    def toggle(self, probe: str, on: bool) -> None:
        """Attach or detach a probe."""
        self._check()
        self.source.toggle(probe, on)

    def set_option(self, probe: str, option: str, value: Any) -> None:
        """Change a probe's option."""
        self._check()
        self.source.set_option(probe, option, value)

    def set_filters(self, filters: Filters) -> None:
        """Change what is counted."""
        self._check()
        self.source.set_filters(filters)

    def set_interval(self, seconds: float) -> None:
        """Change the time between Frames."""
        self._check()
        self.source.set_interval(seconds)

    def lift_budget(self, seconds: float) -> None:
        """Give up nothing for a while."""
        self._check()
        self.source.lift_budget(seconds)

    def one_off(self, seconds: float) -> None:
        """So many seconds of a CPU went into something done once; only who measures that asks."""
        told: Callable[[float], None] | None = getattr(self.source, "one_off", None)
        if told is not None:
            told(seconds)

    def search(self, query: str, on_found: Callable[[Sequence[Found]], None]) -> None:
        """Ask what can be traced, which changes nothing."""
        self.source.search(query, on_found)
