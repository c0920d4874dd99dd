# SPDX-License-Identifier: Apache-2.0
"""The dashboard as a program: Frames and keys in, the screen out.

The source's thread leaves each Frame in a mailbox of one and posts one message; the screen
takes it in one batch, gives it to every pane and repaints the cells that differ.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from functools import partial

from textual.screen import Screen

from probes.base import ProbeError, Source
from probes.samples import Frame
from tui import look as looks
from tui.actions import Actions
from tui.dashboard import DashboardScreen
from tui.mailbox import Mailbox
from tui.messages import FrameReady, SourceEnded
from tui.registry import REGISTRY
from tui.text import safe


class ProbetopApp(Actions):
    """Shows a Source. `ended` is the sentence with which the source ended, if it did."""

    # The palette's icon is an emoji, which neither consoles nor all fonts have.
    CSS = "CommandPalette SearchIcon { display: none; }"

    def __init__(self, source: Source, *, ascii: bool = False) -> None:  # noqa: A002
        super().__init__()
        self.source = source
        self.look = looks.choose(ascii)
        self.ended: str | None = None
        self.paused = False
        self._stopping: threading.Thread | None = None
        self._mailbox = Mailbox()
        panes = [(entry, entry.pane_class()()) for entry in REGISTRY]
        for _, pane in panes:
            pane.look, pane.source = self.look, source
        self.dashboard = DashboardScreen(self.look, panes)
        self.dashboard.footer.resized = self.dashboard.place
        self.dashboard.header.state.title = "" if source.live else source.title

    # -- Frames -------------------------------------------------------------------------

    def get_default_screen(self) -> Screen[object]:
        """The dashboard."""
        return self.dashboard

    def on_mount(self) -> None:
        """Start the source; a terminal that goes away, or a kill, ends the program cleanly."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            try:
                loop.add_signal_handler(number, partial(self.exit, return_code=128 + number))
            except (ValueError, RuntimeError, NotImplementedError):
                break
        try:
            self.source.start(self._on_frame, self._on_end)
        except ProbeError as error:
            self._on_end(str(error))

    def _on_frame(self, frame: Frame) -> None:
        if self._mailbox.put(frame):
            self.post_message(FrameReady())

    def _on_end(self, why: str) -> None:
        self.post_message(SourceEnded(why))

    def on_frame_ready(self) -> None:
        """Show the Frame, unless the screen is paused: then the mailbox goes on merging."""
        if self.paused:
            return
        frame = self._mailbox.take()
        if frame is not None:
            self.show(frame)

    def show(self, frame: Frame) -> None:
        """Give a Frame to all panes and repaint what it changed."""
        before = self.frame
        widgets = self.dashboard.panes
        if before is not None and frame.mono <= before.mono:
            before = None
            for widget in widgets:
                widget.pane.reset()
        was_off = [widget.pane.state == "off" for widget in widgets]
        for widget in widgets:
            widget.pane.update(before, frame)
        self.frame = frame
        self.forget_wishes()
        header = self.dashboard.header.state
        header.frame, header.before = frame, before
        with self.batch_update():
            if was_off == [widget.pane.state == "off" for widget in widgets]:
                self.dashboard.repaint()
            else:
                self.dashboard.settle()

    def action_pause(self) -> None:
        """Freeze the screen, or show what came meanwhile."""
        self.paused = self.dashboard.header.state.paused = not self.paused
        self.dashboard.header.repaint()
        self.on_frame_ready()

    def exit(
        self, result: int | None = None, return_code: int = 0, message: object | None = None
    ) -> None:
        """Leave; the source is stopped while the terminal is put back as it was."""
        self.stop_source()
        super().exit(result, return_code)

    def stop_source(self) -> threading.Thread:
        """Stop the source, once, in a thread that the caller may wait for."""
        if self._stopping is None:
            self._stopping = threading.Thread(target=self.source.stop, name="stop source")
            self._stopping.start()
        return self._stopping

    def on_source_ended(self, message: SourceEnded) -> None:
        """Nothing more will come: leave, saying why."""
        self.ended = message.why
        self.exit(return_code=1)


def run_app(source: Source, *, ascii: bool = False) -> int:  # noqa: A002
    """Show a Source until the user quits or it ends; the source is stopped in any case.

    Returns the program's exit status: 0, 1 with a sentence on stderr when the source ended
    by itself, 2 without a terminal, 128 and its number for a signal.
    """
    if not (sys.stdin.isatty() and sys.__stderr__ is not None and sys.__stderr__.isatty()):
        print(
            "probetop: the dashboard needs a terminal on stdin and stderr: "
            "for scripts there is 'probetop stream'",
            file=sys.stderr,
        )
        return 2
    app = ProbetopApp(source, ascii=ascii)
    try:
        app.run()
    finally:
        app.stop_source().join()
    if app.ended is not None:
        print(f"probetop: {safe(app.ended, app.look.plain)}", file=sys.stderr)
        return 1
    return app.return_code or 0
