# SPDX-License-Identifier: Apache-2.0
"""A Source that can refuse commands for a while."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from probes.core.frame import Filters, Frame
from probes.source import Found, Source


class GuardedSource:
    """Wraps a Source; `check` runs before each command and raises ProbeError to refuse it."""

    def __init__(self, source: Source, check: Callable[[], None]) -> None:
        self.source = source
        self.live, self.title, self.lifts = source.live, source.title, source.lifts
        self._check = check

    def start(self, on_frame: Callable[[Frame], None], on_end: Callable[[str], None]) -> None:
        """Start the source."""
        self.source.start(on_frame, on_end)

    def stop(self) -> None:
        """Stop the source."""
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
        """Suspend the budget for some seconds."""
        self._check()
        self.source.lift_budget(seconds)

    def one_off(self, seconds: float) -> None:
        """Exclude CPU seconds of a one-off task from the budget; does nothing for other sources
        than Live."""
        told: Callable[[float], None] | None = getattr(self.source, "one_off", None)
        if told is not None:
            told(seconds)

    def search(self, query: str, on_found: Callable[[Sequence[Found]], None]) -> None:
        """Search for targets, which needs no check because it changes nothing."""
        self.source.search(query, on_found)
