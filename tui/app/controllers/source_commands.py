# SPDX-License-Identifier: Apache-2.0
"""What keys ask of the source: probes, targets, what is counted, how often."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from textual.app import SystemCommand

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.core.frame import Filters
from tui.app.announcer import Announcer
from tui.app.controllers.drawing import Drawing
from tui.app.screen import DashboardScreen
from tui.app.view import View
from tui.settings.filter_syntax import EXAMPLE, parse_filters
from tui.shared.line_editor import Prompt

INTERVALS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class SourceCommands:
    """Sends commands to the source of the session that is shown."""

    def __init__(
        self, view: View, board: DashboardScreen, announcer: Announcer, drawing: Drawing
    ) -> None:
        self._view = view
        self._board = board
        self._say = announcer.say
        self._drawing = drawing

    def toggle_probe(self, name: str) -> None:
        """Attach or detach a probe; of a recording, show or hide it."""
        self._toggle(name)
        if self._view.replays:
            self._view.travel.again()
            self._drawing.show_moment()

    def _toggle(self, name: str) -> None:
        """Attach or detach a probe; one that failed is tried again."""
        widget = next(w for w in self._board.panes if w.entry.name == name)
        # Until a Frame shows the effect of the last press, the next one undoes it.
        wished = self._view.wishes.probes
        on = not wished.get(name, widget.pane.state in ("on", "starting"))
        try:
            self._view.source.toggle(name, on)
        except ProbeError as error:
            self._say(str(error))
            return
        wished[name] = on
        self._say(f"{widget.entry.title}: {'attaching' if on else 'detaching'}", "dim")

    def find(self) -> None:
        """Search for what can be traced here, and add it to the pane that takes it."""
        if self._board.finding is not None:
            self._board.finder.open(self._view.source.search, self._add_found)

    def _add_found(self, spec: str) -> str | None:
        index = self._board.finding
        if index is None:
            return None
        widget, source = self._board.panes[index], self._view.source
        try:
            source.set_option(widget.entry.name, "add", spec)
            if widget.pane.state == "off":
                source.toggle(widget.entry.name, True)
        except ProbeError as error:
            return str(error)
        widget.pane.select(spec)
        self._board.set_pane(index)
        self._say(f"{widget.entry.title}: adding {spec}", "dim")
        return None

    def kernel_filter(self) -> None:
        """Type what the kernel side shall count."""
        filters = self._filters_now()
        now = "" if filters is None else filters.describe()
        self._board.footer.open(
            Prompt("count only:", submit=self._set_kernel_filter, text=now, hint=EXAMPLE)
        )

    def _filters_now(self) -> Filters | None:
        """What is counted, or will be once a Frame shows the effect of the last command."""
        frame, wished = self._view.frame, self._view.wishes.filters
        shown = None if frame is None else frame.filters
        return shown if wished is None else wished

    def _wish_filters(self, filters: Filters) -> None:
        self._view.source.set_filters(filters)
        self._view.wishes.filters = filters

    def _set_kernel_filter(self, text: str) -> str | None:
        try:
            # What is wrong with filters of another machine is known there only.
            self._wish_filters(parse_filters(text, far=self._view.session.far))
        except ProbeError as error:
            return str(error)
        return None

    def only_process(self) -> None:
        """Count only the process under the cursor; again: what was counted before, less it."""
        filters = self._filters_now()
        pane = self._board.in_focus.pane
        pid = pane.selected_pid()
        if filters is None:
            return
        if filters.pid is not None:
            pid = None
        elif pid is not None and pane.here and not kernel.in_initial_pid_namespace():
            self._say("rows have the machine's pids: F pid=N takes one of this pid namespace")
            return
        elif pid is None:
            self._say("the row under the cursor is no process: enter shows those behind it")
            return
        try:
            self._wish_filters(filters._replace(pid=pid))
        except ProbeError as error:
            self._say(str(error))

    def interval(self, way: int) -> None:
        """The next longer or shorter interval, which a recording has already."""
        view = self._view
        if view.replays:
            self._say("the interval was recorded: < and > change the speed")
            return
        now = view.wishes.interval or (view.frame.interval if view.frame is not None else 1.0)
        longer = [step for step in INTERVALS if step > now * 1.01]
        shorter = [step for step in INTERVALS if step < now * 0.99]
        choice = longer[:1] if way > 0 else shorter[-1:]
        if not choice:
            self._say(f"the interval stays at {now:g} s: there is no step beyond", "warn")
            return
        try:
            view.source.set_interval(choice[0])
        except ProbeError as error:
            self._say(str(error))
            return
        view.wishes.interval = choice[0]
        self._say(f"interval {choice[0]:g} s", "dim")

    def palette(self) -> Iterator[SystemCommand]:
        """Each probe, on or off."""
        for widget in self._board.panes:
            name, title = widget.entry.name, widget.entry.title
            does = "detach" if widget.pane.state in ("on", "starting") else "attach"
            toggle = partial(self.toggle_probe, name)
            yield SystemCommand(f"{title}: {does}", f"key {widget.entry.key}", toggle)
