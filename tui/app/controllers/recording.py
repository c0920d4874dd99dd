# SPDX-License-Identifier: Apache-2.0
"""The key that writes what comes to a recording, and ends it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import ClassVar

from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from probes.base import ProbeError
from probes.files import printable
from tui.app.controllers.playback import TimeActions
from tui.app.messages import RecordingFailed
from tui.sessions.recorder import Recorder, default_name
from tui.shared.line_editor import Prompt
from tui.shared.styled_lines import Span
from tui.shared.text import fmt_bytes


class RecordActions(TimeActions):
    """The part of the program that acts on the key to record."""

    recorder: Recorder
    BINDINGS: ClassVar[list[BindingType]] = [Binding("r", "record", "Record")]

    def marks(self) -> list[Span]:
        """How large the recording is that is being written."""
        size = self.recorder.size
        return [] if size is None else [(f" REC {fmt_bytes(size)} ", "badge.bad")]

    def action_record(self) -> None:
        """Begin to write a recording, or end it."""
        if self.recorder.path is not None:
            self._end_recording()
        elif self.frame is None:
            self.say("there is nothing to record yet")
        elif not self.source.live:
            self.say("this is a recording already")
        else:
            name = default_name(self.frame.host.name, time.time(), ".ptrec")
            self.dashboard.footer.open(
                Prompt("record to:", submit=self._begin_recording, text=name)
            )

    def _begin_recording(self, path: str) -> str | None:
        try:
            self.recorder.begin(path.strip())
        except ProbeError as error:
            return str(error)
        self.say(f"recording to {printable(path.strip())}; r ends it", "dim")
        self.refresh_time()
        return None

    def _end_recording(self) -> None:
        path, frames, size = self.recorder.end()
        self.say(f"{frames} frames, {fmt_bytes(size)} in {printable(path)}", "dim")
        self.refresh_time()

    def on_recording_failed(self, message: RecordingFailed) -> None:
        """The recording ends where it could not go on."""
        self.say(message.why)
        self.refresh_time()

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """What the palette lists."""
        yield from super().get_system_commands(screen)
        yield SystemCommand("Record to a file, or end it", "key r", self.action_record)
