# SPDX-License-Identifier: Apache-2.0
"""Keys that send a command to the source: probes, targets, filters, interval."""

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
    """Sends commands to the source of the shown session."""

    def __init__(
        self, view: View, board: DashboardScreen, announcer: Announcer, drawing: Drawing
    ) -> None:
        self._view = view
        self._board = board
        self._say = announcer.say
        self._drawing = drawing

    def toggle_probe(self, name: str) -> None:
        """Attach or detach a probe; in a recording, show or hide its pane."""
        self._toggle(name)
        if self._view.replays:
            self._view.player.again()
            self._drawing.show_moment()

    def _toggle(self, name: str) -> None:
        """Attach or detach a probe; a probe that failed is attached again."""
        widget = next(w for w in self._board.panes if w.entry.name == name)
        # A second press undoes the first one, even before a Frame shows its effect.
        pending = self._view.pending.probes
        on = not pending.get(name, widget.pane.state in ("on", "starting"))
        try:
            self._view.source.toggle(name, on)
        except ProbeError as error:
            self._say(str(error))
            return
        pending[name] = on
        self._say(f"{widget.entry.title}: {'attaching' if on else 'detaching'}", "dim")

    def find(self) -> None:
        """Search for functions and other targets, and add the chosen one to its pane."""
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
        """Ask for the kernel filter: which events the BPF programs count."""
        filters = self._filters_now()
        now = "" if filters is None else filters.describe()
        self._board.footer.open(
            Prompt("count only:", submit=self._set_kernel_filter, text=now, hint=EXAMPLE)
        )

    def _filters_now(self) -> Filters | None:
        """The filters, including a command that no Frame shows yet; None before the first Frame."""
        frame, pending = self._view.frame, self._view.pending.filters
        shown = None if frame is None else frame.filters
        return shown if pending is None else pending

    def _send_filters(self, filters: Filters) -> None:
        self._view.source.set_filters(filters)
        self._view.pending.filters = filters

    def _set_kernel_filter(self, text: str) -> str | None:
        try:
            # Only the remote host can check filters against its own processes and users.
            self._send_filters(parse_filters(text, remote=self._view.session.is_remote))
        except ProbeError as error:
            return str(error)
        return None

    def only_process(self) -> None:
        """Filter by the process under the cursor; a second press removes that filter again."""
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
            self._say("the row under the cursor is not a process: enter shows its processes")
            return
        try:
            self._send_filters(filters._replace(pid=pid))
        except ProbeError as error:
            self._say(str(error))

    def interval(self, way: int) -> None:
        """Use the next longer or shorter interval; a recording's interval is fixed."""
        view = self._view
        if view.replays:
            self._say("the interval was recorded: < and > change the speed")
            return
        now = view.pending.interval or (view.frame.interval if view.frame is not None else 1.0)
        longer = [step for step in INTERVALS if step > now * 1.01]
        shorter = [step for step in INTERVALS if step < now * 0.99]
        choice = longer[:1] if way > 0 else shorter[-1:]
        if not choice:
            self._say(f"the interval stays at {now:g} s: it is the last step", "warn")
            return
        try:
            view.source.set_interval(choice[0])
        except ProbeError as error:
            self._say(str(error))
            return
        view.pending.interval = choice[0]
        self._say(f"interval {choice[0]:g} s", "dim")

    def palette(self) -> Iterator[SystemCommand]:
        """One palette entry for each probe: attach or detach."""
        for widget in self._board.panes:
            name, title = widget.entry.name, widget.entry.title
            does = "detach" if widget.pane.state in ("on", "starting") else "attach"
            toggle = partial(self.toggle_probe, name)
            yield SystemCommand(f"{title}: {does}", f"key {widget.entry.key}", toggle)
