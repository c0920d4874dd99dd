# SPDX-License-Identifier: Apache-2.0
"""One source of Frames and what belongs to it: its history, its recording, its panes."""

from __future__ import annotations

from probes.core.errors import ProbeError
from probes.core.frame import Frame
from probes.recording.history import History
from probes.recording.replay import ReplaySource
from probes.source import Source
from tui.registry import REGISTRY
from tui.sessions.guarded_source import Guard
from tui.sessions.recorder import Recorder
from tui.sessions.timeline_player import Travel
from tui.shared.frame_mailbox import Mailbox
from tui.shared.theme import Look

THE_PAST = "this is the past, which nothing changes"


class Session:
    """What the dashboard shows of one source.

    `replays` tells whether the source is a recording that is played from here, forwards and
    backwards; `ended` is the sentence with which the source ended, None until it does. Everything
    but `keep` is for the screen's thread.
    """

    def __init__(self, source: Source, look: Look, history: History) -> None:
        self.source = Guard(source, self._check_now)
        self.history = history
        self.recorder = Recorder()
        self.mailbox = Mailbox()
        self.ended: str | None = None
        self.panes = [entry.pane_class()() for entry in REGISTRY]
        for pane in self.panes:
            pane.look, pane.source = look, self.source
        recording = source.open_timeline() if isinstance(source, ReplaySource) else None
        self.replays = recording is not None
        if recording is not None and isinstance(source, ReplaySource):
            self.travel = Travel(recording, self.panes, source.shown)
        else:
            self.travel = Travel(history, self.panes)

    far = False
    """Whether the source is another machine."""

    @property
    def name(self) -> str:
        """What the source is called."""
        return self.source.title

    @property
    def in_past(self) -> bool:
        """Whether a moment is shown that was chosen, rather than the newest."""
        return self.travel.number is not None

    def _check_now(self) -> None:
        """Raises ProbeError while the past of a live source is shown."""
        if self.in_past and not self.replays:
            raise ProbeError(THE_PAST, "press end for now")

    def keep(self, frame: Frame) -> str | None:
        """Take a Frame in, shown or not, in the source's thread.

        Returns one sentence if a recording could not go on, which ends it.
        """
        self.history.add(frame)
        return self.recorder.write(frame)
