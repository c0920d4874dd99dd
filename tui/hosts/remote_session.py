# SPDX-License-Identifier: Apache-2.0
"""A machine elsewhere that Frames come from: what is known of it while it is not shown."""

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
from tui.shared.theme import Look

PATIENCE = 2.0
"""Seconds of silence beside two intervals that are not worth a word."""
CONNECTING = "connecting"
WAITING = "waiting for what the other machine sends"


class LinkedSource(Source, Protocol):
    """A Source over a link: how that stands, and who is told of what was refused.

    `refused` is called from another thread, with one line, when the far side would not do what
    it was asked for. `title` is what was typed until there is a Frame, then the host's name.
    """

    refused: Callable[[str], None]

    @property
    def link(self) -> LinkState:
        """How the link stands; it changes in another thread."""


class Figures(NamedTuple):
    """What the line of hosts says of the last interval: rates by second, None for unknown.

    `failed` counts probes that failed, `given_up` those that do without something.
    """

    calls: float | None = None
    errors: float | None = None
    load: float | None = None
    failed: int = 0
    given_up: int = 0


def figures_of(before: Frame | None, after: Frame) -> Figures:
    """What two Frames that follow each other say of the time between them."""
    calls = errors = None
    old, new = _syscalls(before), _syscalls(after)
    # What had been counted before the link was there is no rate of this interval.
    if old is not None and new is not None and old.generation == new.generation:
        made = calls_made(old, new)
        seconds = counted_seconds(old, new, seconds_between(before, after))
        calls, errors = made.n / seconds, made.errors / seconds
    samples = after.samples.values()
    failed = sum([sample.state == "failed" and not sample.given_up for sample in samples])
    return Figures(calls, errors, after.load, failed, sum([bool(s.given_up) for s in samples]))


def _syscalls(frame: Frame | None) -> SyscallSample | None:
    """The counters of system calls, where they are being counted."""
    sample = None if frame is None else frame.samples.get("syscalls")
    return sample if isinstance(sample, SyscallSample) and sample.state == "on" else None


class RemoteSession(Session):
    """A Session of another machine."""

    far = True

    def __init__(self, source: LinkedSource, look: Look, history: History) -> None:
        super().__init__(source, look, history)
        for pane in self.panes:
            pane.awaited, pane.here = WAITING, False
        self.remote = source
        self.figures: Figures | None = None
        self._last: Frame | None = None

    @property
    def name(self) -> str:
        """What the machine calls itself, what was typed until it has told."""
        return self.remote.title

    def keep(self, frame: Frame) -> str | None:
        """Take a Frame in, and note what the line of hosts says of it."""
        self.figures = figures_of(self._last, frame)
        self._last = frame
        return super().keep(frame)

    def silence(self, now: float | None = None) -> int | None:
        """Whole seconds without a Frame once they are worth a word, else None; also before any.

        `now` are this machine's monotonic seconds.
        """
        heard, last = self.remote.link.heard, self._last
        if heard is None or last is None:
            return None
        passed = (time.monotonic() if now is None else now) - heard
        # A link that is known to be lost need not be waited for as long as the next Frame.
        lost = self.remote.link.state == "lost"
        interval = min(last.interval, 1.0) if lost else last.interval
        return int(passed) if passed >= 2 * interval + PATIENCE else None

    def troubles(self) -> list[str]:
        """What the header says where no Frames come, in ever fewer words; nothing if they do."""
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
        """The same for the line of hosts, "" while all is well."""
        if self.ended is not None:
            return f"ended: {self.ended}"
        if self._last is None:
            return "no link" if self.remote.link.why else CONNECTING
        seconds = self.silence()
        return "" if seconds is None else f"{fmt_age(seconds)} old"


def fmt_age(seconds: int) -> str:
    """How long ago something was, in at least 4 cells: " 7 s", "12 s", "17 min", " 3 h"."""
    if seconds < 1000:
        return f"{seconds:>2} s"
    return f"{seconds // 60} min" if seconds < 6000 else f"{seconds // 3600:>2} h"
