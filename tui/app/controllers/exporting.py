# SPDX-License-Identifier: Apache-2.0
"""Exports the last minute to a file: HTML, JSON or a picture of the screen."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from textual.message import Message

from probes.core.errors import ProbeError
from probes.host.files import printable
from probes.recording.timeline import Timeline
from tui.app.announcer import Announcer
from tui.app.messages import Exported
from tui.app.view import View
from tui.sessions.recorder import default_name
from tui.shared.line_editor import Prompt
from tui.shared.text import fmt_bytes
from tui.widgets.footer import FooterBar

SECONDS = 60.0
"""Seconds before the shown moment that an export covers."""


class Exporting:
    """Carries out the export key.

    `picture` returns the current screen as SVG; it raises ImportError or OSError if it cannot read
    the program's files. `post` posts a message from any thread.
    """

    def __init__(
        self,
        view: View,
        footer: FooterBar,
        announcer: Announcer,
        picture: Callable[[], str],
        post: Callable[[Message], object],
    ) -> None:
        self._view = view
        self._footer = footer
        self._say = announcer.say
        self._picture = picture
        self._post = post

    def ask(self) -> None:
        """Ask for a file name, then export the minute before the shown moment and the current
        screen."""
        frame = self._view.frame
        if frame is None:
            self._say("there is nothing to export yet")
            return
        try:
            svg = self._picture()
        except (ImportError, OSError) as error:
            self._say(f"cannot export: the program's own files cannot be read ({error})")
            return
        name = default_name(frame.host.name, frame.time, ".html")
        self._footer.open(
            Prompt("export to:", submit=lambda path: self._export(path.strip(), svg), text=name)
        )

    def _export(self, path: str, svg: str) -> str | None:
        """Return what is wrong with the name, else start a thread that writes and return None."""
        from tui.export.write import check_folder, ending_of

        try:
            ending_of(path)
            if os.path.lexists(path):
                raise ProbeError("it exists already", "choose another name")
            check_folder(path)
        except ProbeError as error:
            return str(error)
        self._say(f"exporting to {printable(path)}", "dim")
        player, told = self._view.player, self._view.source.one_off
        threading.Thread(
            target=self._write,
            args=(path, svg, player.timeline, player.number, told),
            name="export",
            daemon=True,
        ).start()
        return None

    def _write(
        self,
        path: str,
        svg: str,
        timeline: Timeline,
        until: int | None,
        told: Callable[[float], None],
    ) -> None:
        from tui.export.write import export

        try:
            begun = time.thread_time()
            size = export(timeline.between(SECONDS, until), svg, path)
            told(time.thread_time() - begun)
            message = Exported(f"{fmt_bytes(size)} in {printable(path)}", "good")
        except ProbeError as error:
            message = Exported(str(error), "bad")
        except Exception as error:
            message = Exported(f"cannot export: {type(error).__name__}: {error}", "bad")
        self._post(message)
