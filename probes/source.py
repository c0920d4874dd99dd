# SPDX-License-Identifier: Apache-2.0
"""Where Frames come from: the live kernel, a recording, another machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from probes.core.frame import Filters, Frame


class Found(NamedTuple):
    """Something that can be traced here: the target `spec`, how, and a word about it.

    `cost` is what a call of it will cost more, in ns, as measured on this machine; None when
    unknown.
    """

    spec: str
    mechanism: str
    note: str = ""
    cost: float | None = None


class Source(Protocol):
    """Where Frames come from: the live kernel, a recording, another machine.

    `on_frame` is called from the source's own thread, once an interval, and must return at
    once. Commands return immediately; their effect shows in a later Frame. A command that
    this source cannot carry out raises ProbeError.
    """

    live: bool
    title: str
    lifts: bool

    def start(self, on_frame: Callable[[Frame], None], on_end: Callable[[str], None]) -> None:
        """Begin. `on_end` is called once, with one sentence, if no Frame will follow."""

    def stop(self) -> None:
        """End within 0.2 seconds, everything released."""

    def toggle(self, probe: str, on: bool) -> None:
        """Attach or truly detach a probe."""

    def set_option(self, probe: str, option: str, value: Any) -> None:
        """Change a probe's option: syscalls' latency, latency's add and remove (of a target)."""

    def set_filters(self, filters: Filters) -> None:
        """Change what is counted."""

    def set_interval(self, seconds: float) -> None:
        """Change the time between Frames."""

    def lift_budget(self, seconds: float) -> None:
        """Give up nothing for so many seconds; 0: the budget holds again."""

    def search(self, query: str, on_found: Callable[[Sequence[Found]], None]) -> None:
        """What can be traced here and fits `query`, best first; answers from another thread."""
