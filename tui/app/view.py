# SPDX-License-Identifier: Apache-2.0
"""The dashboard's shared state: the shown session, its shown Frame, and pending commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from textual.timer import Timer

from probes.core.frame import Filters, Frame
from tui.sessions.guarded_source import GuardedSource
from tui.sessions.session import Session
from tui.sessions.timeline_player import TimelinePlayer


class Program(Protocol):
    """The part of the Textual program that controllers use."""

    def set_timer(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call once, after `delay` seconds."""

    def call_later(self, callback: Callable[[], None]) -> object:
        """Call after the messages that are queued."""

    def batch_update(self) -> AbstractContextManager[None]:
        """Delay repaints until the context ends."""


@dataclass(slots=True)
class PendingCommands:
    """Values that keys have requested and no Frame shows yet; the next press starts from them."""

    probes: dict[str, bool] = field(default_factory=dict)
    interval: float | None = None
    filters: Filters | None = None

    def forget(self) -> None:
        """Drop all values: the newest Frame shows their effect."""
        self.probes.clear()
        self.interval = self.filters = None


class View:
    """The shown session and moment, which all controllers share.

    `frame` is the Frame on the screen, None before the first. `paused` is True while newer Frames
    are not shown.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        """Creates the view of at least one session; it shows the first."""
        self.sessions = list(sessions)
        self.session = self.sessions[0]
        self.frame: Frame | None = None
        self.paused = False
        self.pending = PendingCommands()

    @property
    def at(self) -> int:
        """The index of the shown session."""
        return self.sessions.index(self.session)

    @property
    def several(self) -> bool:
        """True if there is more than one session."""
        return len(self.sessions) > 1

    @property
    def source(self) -> GuardedSource:
        """The shown session's source, which takes commands."""
        return self.session.source

    @property
    def player(self) -> TimelinePlayer:
        """The shown session's player, which chooses the moment that the panes show."""
        return self.session.player

    @property
    def replays(self) -> bool:
        """True if the session is a recording, whose Frames only appear by playback."""
        return self.session.replays

    @property
    def in_past(self) -> bool:
        """True while the screen shows a past moment."""
        return self.session.in_past
