# SPDX-License-Identifier: Apache-2.0
"""What the dashboard shows now: which session, which Frame of it, and what keys asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from textual.timer import Timer

from probes.core.frame import Filters, Frame
from tui.sessions.guarded_source import Guard
from tui.sessions.session import Session
from tui.sessions.timeline_player import Travel


class Program(Protocol):
    """What controllers need of the Textual program that runs them."""

    def set_timer(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call once, after so many seconds."""

    def call_later(self, callback: Callable[[], None]) -> object:
        """Call after the messages that wait already."""

    def batch_update(self) -> AbstractContextManager[None]:
        """Paint once, at the end."""


@dataclass(slots=True)
class Wishes:
    """What keys asked for, until a Frame shows the effect: the next press begins from there."""

    probes: dict[str, bool] = field(default_factory=dict)
    interval: float | None = None
    filters: Filters | None = None

    def forget(self) -> None:
        """What was asked for shows in the Frame that has come."""
        self.probes.clear()
        self.interval = self.filters = None


class View:
    """One of the sessions, at a moment; all controllers share it.

    `frame` is the Frame on the screen, None before the first. `paused` tells that newest Frames
    are not shown.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        """Takes at least one session; the first is shown first."""
        self.sessions = list(sessions)
        self.session = self.sessions[0]
        self.frame: Frame | None = None
        self.paused = False
        self.wishes = Wishes()

    @property
    def at(self) -> int:
        """Which of the sessions is shown."""
        return self.sessions.index(self.session)

    @property
    def several(self) -> bool:
        """Whether there is more than one session."""
        return len(self.sessions) > 1

    @property
    def source(self) -> Guard:
        """Where commands go."""
        return self.session.source

    @property
    def travel(self) -> Travel:
        """What moves the panes through time."""
        return self.session.travel

    @property
    def replays(self) -> bool:
        """Whether all there is are a recording's Frames, which never come by themselves."""
        return self.session.replays

    @property
    def in_past(self) -> bool:
        """Whether the screen shows a moment that the keys of time chose."""
        return self.session.in_past
