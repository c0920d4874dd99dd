# SPDX-License-Identifier: Apache-2.0
"""A session with a remote host: its link and its figures while another host is shown."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from probes.core.delta import seconds_between
from probes.core.elapsed import counted_seconds
from probes.core.frame import Frame
from probes.recording.history import History
from probes.remote.state import LinkState
from probes.source import Source
from probes.syscalls.sample import SyscallSample
from probes.syscalls.view import calls_made
from tui.sessions.session import Session
from tui.shared.theme import Theme

PATIENCE = 2.0
"""Seconds of silence, beyond two intervals, that are not reported."""
CONNECTING = "connecting"
WAITING = "waiting for the other machine's first frame"


class LinkedSource(Source, Protocol):
    """A Source over a link, with the link's state and a callback for refused commands.

    `refused` is called from another thread with one line when the remote side refuses a command.
    `title` is the target that the user typed; the first Frame replaces it by the host's name.
    """

    refused: Callable[[str], None]

    @property
    def link(self) -> LinkState:
        """The link's state; another thread changes it."""


class Figures(NamedTuple):
    """The hosts bar's figures of the last interval: rates per second, None for unknown.

    `failed` counts failed probes; `given_up` counts probes that the budget has reduced.
    """

    calls: float | None = None
    errors: float | None = None
    load: float | None = None
    failed: int = 0
    given_up: int = 0


def figures_of(before: Frame | None, after: Frame) -> Figures:
    """The figures for the interval between two successive Frames."""
    calls = errors = None
    old, new = _syscalls(before), _syscalls(after)
    # Counts from before the connection would inflate this interval's rate.
    if old is not None and new is not None and old.generation == new.generation:
        made = calls_made(old, new)
        seconds = counted_seconds(old, new, seconds_between(before, after))
        calls, errors = made.n / seconds, made.errors / seconds
    samples = after.samples.values()
    failed = sum([sample.state == "failed" and not sample.given_up for sample in samples])
    return Figures(calls, errors, after.load, failed, sum([bool(s.given_up) for s in samples]))


def _syscalls(frame: Frame | None) -> SyscallSample | None:
    """The system-call counters; None while the probe does not count."""
    sample = None if frame is None else frame.samples.get("syscalls")
    return sample if isinstance(sample, SyscallSample) and sample.state == "on" else None


class RemoteSession(Session):
    """A Session with a remote host."""

    is_remote = True

    def __init__(self, source: LinkedSource, theme: Theme, history: History) -> None:
        super().__init__(source, theme, history)
        for pane in self.panes:
            pane.awaited, pane.here = WAITING, False
        self.remote = source
        self.figures: Figures | None = None
        self._last: Frame | None = None

    @property
    def name(self) -> str:
        """The host's own name; before the first Frame the target that the user typed."""
        return self.remote.title

    def keep(self, frame: Frame) -> str | None:
        """Store a Frame, and compute the hosts bar's figures."""
        self.figures = figures_of(self._last, frame)
        self._last = frame
        return super().keep(frame)

    def silence(self, now: float | None = None) -> int | None:
        """Whole seconds since the last Frame if that is worth a report, else None; also before any
        Frame.

        `now` is this machine's monotonic time in seconds.
        """
        heard, last = self.remote.link.heard, self._last
        if heard is None or last is None:
            return None
        passed = (time.monotonic() if now is None else now) - heard
        # A lost link is reported at once, without waiting for the next Frame to be late.
        lost = self.remote.link.state == "lost"
        interval = min(last.interval, 1.0) if lost else last.interval
        return int(passed) if passed >= 2 * interval + PATIENCE else None

    def troubles(self) -> list[str]:
        """The header's texts for a link without Frames, from long to short; empty while Frames
        come."""
        link = self.remote.link
        if self.ended is not None:
            return [f"ended: {self.ended}", "ended"]
        if self._last is None:
            start = f"{CONNECTING} to {self.name}"
            return [f"{start} ({link.why})", start] if link.why else [start]
        seconds = self.silence()
        if seconds is None:
            return []
        age = f"no data for {fmt_age(seconds)}"
        if link.state == "live":
            return [age]
        again = f"{age}: reconnecting"
        return [f"{again} ({link.why})", again, age] if link.why else [again, age]

    def state(self) -> str:
        """The hosts bar's text for the same; "" while Frames come."""
        if self.ended is not None:
            return f"ended: {self.ended}"
        if self._last is None:
            return "no link" if self.remote.link.why else CONNECTING
        seconds = self.silence()
        return "" if seconds is None else f"{fmt_age(seconds)} old"


def fmt_age(seconds: int) -> str:
    """An age in at least 4 cells: " 7 s", "12 s", "17 min", " 3 h"."""
    if seconds < 1000:
        return f"{seconds:>2} s"
    return f"{seconds // 60} min" if seconds < 6000 else f"{seconds // 3600:>2} h"
