# SPDX-License-Identifier: Apache-2.0
"""One source of Frames with its history, its recording and its panes."""

from __future__ import annotations

from probes.core.errors import ProbeError
from probes.core.frame import Frame
from probes.recording.history import History
from probes.recording.replay import ReplaySource
from probes.source import Source
from tui.registry import REGISTRY
from tui.sessions.guarded_source import GuardedSource
from tui.sessions.recorder import Recorder
from tui.sessions.timeline_player import TimelinePlayer
from tui.shared.frame_mailbox import Mailbox
from tui.shared.theme import Theme

THE_PAST = "the past cannot be changed"


class Session:
    """One source and all that the dashboard shows of it.

    `replays` is True if the source is a recording that this program plays. `ended` is the sentence
    with which the source ended, None while it runs. All methods but `keep` belong to the screen's
    thread.
    """

    def __init__(self, source: Source, theme: Theme, history: History) -> None:
        self.source = GuardedSource(source, self._check_now)
        self.history = history
        self.recorder = Recorder()
        self.mailbox = Mailbox()
        self.ended: str | None = None
        self.panes = [entry.pane_class()() for entry in REGISTRY]
        for pane in self.panes:
            pane.theme, pane.source = theme, self.source
        recording = source.open_timeline() if isinstance(source, ReplaySource) else None
        self.replays = recording is not None
        if recording is not None and isinstance(source, ReplaySource):
            self.player = TimelinePlayer(recording, self.panes, source.shown)
        else:
            self.player = TimelinePlayer(history, self.panes)

    is_remote = False
    """True if the source is another machine."""

    @property
    def name(self) -> str:
        """The source's title."""
        return self.source.title

    @property
    def in_past(self) -> bool:
        """True while a chosen moment is shown instead of the newest."""
        return self.player.number is not None

    def _check_now(self) -> None:
        """Raise ProbeError while the past of a live source is shown."""
        if self.in_past and not self.replays:
            raise ProbeError(THE_PAST, "press end for now")

    def keep(self, frame: Frame) -> str | None:
        """Store a Frame in the history and the recording; called in the source's thread.

        Returns None, or a sentence if the recording failed; the recording has then ended.
        """
        self.history.add(frame)
        return self.recorder.write(frame)
