# SPDX-License-Identifier: Apache-2.0
"""The key that writes the last minute to a file: HTML, JSON or a picture of the screen."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from typing import ClassVar

from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen

from probes.base import ProbeError
from probes.files import printable
from probes.timeline import Timeline
from tui.app.controllers.recording import RecordActions
from tui.sessions.recorder import default_name
from tui.shared.line_editor import Prompt
from tui.shared.text import fmt_bytes

SECONDS = 60.0
"""How much of the past is written."""
EXPORT = "Export the last minute to a file (.html, .json, .svg)"


class Exported(Message):
    """Writing has ended: a line for the footer, and its style."""

    def __init__(self, text: str, style: str) -> None:
        super().__init__()
        self.text = text
        self.style = style


class ExportActions(RecordActions):
    """The part of the program that acts on the key to export."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("e", "export", "Export")]

    def action_export(self) -> None:
        """Ask for a name, and write the minute up to what is shown, with the screen as it is."""
        if self.frame is None:
            self.say("there is nothing to export yet")
            return
        try:
            from tui.export.picture import picture

            svg = picture(self)
        except (ImportError, OSError) as error:
            self.say(f"cannot export: the program's own files cannot be read ({error})")
            return
        name = default_name(self.frame.host.name, self.frame.time, ".html")
        self.dashboard.footer.open(
            Prompt("export to:", submit=lambda path: self._export(path.strip(), svg), text=name)
        )

    def _export(self, path: str, svg: str) -> str | None:
        """What is wrong with the name, else begin to write in a thread of its own."""
        from tui.export.write import check_folder, ending_of

        try:
            ending_of(path)
            if os.path.lexists(path):
                raise ProbeError("it exists already", "choose another name")
            check_folder(path)
        except ProbeError as error:
            return str(error)
        self.say(f"exporting to {printable(path)}", "dim")
        timeline, until = self.travel.timeline, self.travel.number
        threading.Thread(
            target=self._write, args=(path, svg, timeline, until), name="export", daemon=True
        ).start()
        return None

    def _write(self, path: str, svg: str, timeline: Timeline, until: int | None) -> None:
        from tui.export.write import export

        try:
            begun = time.thread_time()
            size = export(timeline.between(SECONDS, until), svg, path)
            self.spent_once(time.thread_time() - begun)
            message = Exported(f"{fmt_bytes(size)} in {printable(path)}", "good")
        except ProbeError as error:
            message = Exported(str(error), "bad")
        except (ImportError, OSError, LookupError) as error:
            message = Exported(f"cannot export: {error}", "bad")
        self.post_message(message)

    def spent_once(self, seconds: float) -> None:
        """So many seconds of a CPU went into something that is done once."""

    def on_exported(self, message: Exported) -> None:
        """Say what became of it."""
        self.say(message.text, message.style)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """What the palette lists."""
        yield from super().get_system_commands(screen)
        yield SystemCommand(EXPORT, "key e", self.action_export)
