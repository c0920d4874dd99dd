# SPDX-License-Identifier: Apache-2.0
"""Starts and ends a recording on a key."""

from __future__ import annotations

import time

from probes.core.errors import ProbeError
from probes.host.files import printable
from tui.app.announcer import Announcer
from tui.app.status import Status
from tui.app.view import View
from tui.sessions.recorder import default_name
from tui.shared.line_editor import Prompt
from tui.shared.styled_lines import Span
from tui.shared.text import fmt_bytes
from tui.widgets.footer import FooterBar


class Recording:
    """Carries out the record key for the shown session."""

    def __init__(self, view: View, footer: FooterBar, status: Status, announcer: Announcer) -> None:
        self._view = view
        self._footer = footer
        self._status = status
        self._say = announcer.say

    def toggle(self) -> None:
        """Start a recording, or end the current one."""
        view = self._view
        if view.session.recorder.path is not None:
            self._end()
        elif view.frame is None:
            self._say("there is nothing to record yet")
        elif not view.source.live:
            self._say("this is a recording already")
        else:
            name = default_name(view.frame.host.name, time.time(), ".ptrec")
            self._footer.open(Prompt("record to:", submit=self._begin, text=name))

    def _begin(self, path: str) -> str | None:
        try:
            self._view.session.recorder.begin(path.strip())
        except ProbeError as error:
            return str(error)
        self._say(f"recording to {printable(path.strip())}; r ends it", "dim")
        self._status.refresh()
        return None

    def _end(self) -> None:
        path, frames, size = self._view.session.recorder.end()
        self._say(f"{frames} frames, {fmt_bytes(size)} in {printable(path)}", "dim")
        self._status.refresh()

    def failed(self, why: str) -> None:
        """Report a recording that ended with an error."""
        self._say(why)
        self._status.refresh()

    def marks(self) -> list[Span]:
        """The header's mark with the size of the current recording."""
        size = self._view.session.recorder.size
        return [] if size is None else [(f" REC {fmt_bytes(size)} ", "badge.bad")]
