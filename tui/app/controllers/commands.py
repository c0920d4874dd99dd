# SPDX-License-Identifier: Apache-2.0
"""What the dashboard's keys and its palette do."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from functools import partial
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.dom import DOMNode
from textual.screen import Screen
from textual.timer import Timer

from probes import kernel
from probes.base import ProbeError, Source
from probes.samples import Filters, Frame
from tui.app.palette import Commands
from tui.app.screen import DashboardScreen
from tui.registry import REGISTRY
from tui.settings.filter_syntax import EXAMPLE, parse_filters
from tui.shared.line_editor import Prompt
from tui.shared.text import safe
from tui.terminal.driver import WireDriver

INTERVALS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
MESSAGE_SECONDS, NEWS_SECONDS = 6.0, 2.0
"""How long a line that says what is wrong is shown, and one that says what was done."""
TEXTUAL_ACTIONS = ("quit", "command_palette", "suspend_process")
"""What is used of the actions that every Textual program has."""
FIND = "Find a function, a tracepoint or another thing to time"


class Actions(App[int]):
    """The half of the program that acts on keys; `source` and `dashboard` are its subclass's.

    `frame` is the one that is shown, None before the first.
    """

    source: Source
    dashboard: DashboardScreen
    frame: Frame | None = None

    COMMANDS = {Commands}  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", "Quit", show=False, priority=True),
        Binding("ctrl+z", "suspend_process", "Suspend", show=False),
        Binding("enter", "enter", "Drill in"),
        Binding("escape", "step_out", "Back"),
        *[Binding(entry.key, f"toggle_probe('{entry.name}')", entry.title) for entry in REGISTRY],
        *[
            Binding(key, f"move('{key}')", show=False)
            for key in ("up", "down", "pageup", "pagedown", "home")
        ],
        Binding("z", "zoom", "Zoom"),
        Binding("s", "sort(False)", "Sort"),
        Binding("S", "sort(True)", "Turn round"),
        Binding("f", "find", "Find"),
        Binding("slash", "filter", "Filter"),
        Binding("F", "kernel_filter", "Kernel filter"),
        Binding("p", "only_process", "This process"),
        Binding("plus,equals_sign", "interval(1)", "Longer interval"),
        Binding("minus", "interval(-1)", "Shorter interval"),
        Binding("question_mark", "help", "Help"),
    ]

    def __init__(self) -> None:
        # ansi_color: the user's own sixteen colours, and NO_COLOR that means none at all.
        super().__init__(ansi_color=True, driver_class=WireDriver)
        self._wished: dict[str, bool] = {}
        self._wished_interval: float | None = None
        self._wished_filters: Filters | None = None
        self._message_timer: Timer | None = None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether an action exists here: most of Textual's own do not, such as writing a file."""
        name = f"action_{action}"
        textual = getattr(App, name, None)
        return action in TEXTUAL_ACTIONS or getattr(type(self), name, None) is not textual

    async def _broker_event(
        self, event_name: str, event: events.Event, default_namespace: DOMNode
    ) -> bool:
        """Run nothing that a text on the screen names: keys and the palette are the only ways."""
        return False

    def _fatal_error(self) -> None:
        """Have a traceback printed at the end without control characters that an error quotes."""
        lines = traceback.format_exc().splitlines()
        self._exit_renderables.append(Text("\n".join([safe(line) for line in lines])))
        self._close_messages_no_wait()

    def forget_wishes(self) -> None:
        """What keys asked for shows in the Frame that has come."""
        self._wished.clear()
        self._wished_interval = self._wished_filters = None

    def pace(self) -> float:
        """Seconds from one Frame to the next at least, while the past is played."""
        return 0.0

    def catch_up(self) -> None:
        """Show the newest Frame, if that is wanted."""

    def may_paint(self) -> bool:
        """Whether the terminal takes anything now."""
        return True

    @property
    def pane(self) -> str:
        """The name of the pane in focus."""
        return self.dashboard.in_focus.entry.name

    def say(self, text: str, style: str = "bad") -> None:
        """One line in the footer for some seconds."""
        footer = self.dashboard.footer
        footer.message = (text, style)
        footer.repaint()
        if self._message_timer is not None:
            self._message_timer.stop()
        seconds = NEWS_SECONDS if style == "dim" else MESSAGE_SECONDS
        self._message_timer = self.set_timer(seconds, self._hush)

    def _hush(self) -> None:
        self.dashboard.footer.message = None
        self.dashboard.footer.repaint()

    def on_key(self, event: events.Key) -> None:
        """Keys in their order: for what is open over the panes, else for the pane in focus."""
        if self.screen is not self.dashboard:
            return
        board = self.dashboard
        if board.help.take(event) or board.finder.take(event) or board.footer.take(event):
            event.prevent_default()
            return
        key = event.character if event.is_printable and event.character else event.key
        try:
            if board.in_focus.pane.press(key):
                event.prevent_default()
                self.dashboard.repaint()
        except ProbeError as error:
            self.say(str(error))

    def on_paste(self, event: events.Paste) -> None:
        """Pasted text is for the prompt, and never a row of commands."""
        if self.screen is self.dashboard:
            board = self.dashboard
            if not board.finder.paste(event.text):
                board.footer.paste(event.text)

    def action_toggle_probe(self, name: str) -> None:
        """Attach or detach a probe; one that failed is tried again."""
        widget = next(w for w in self.dashboard.panes if w.entry.name == name)
        # Until a Frame shows the effect of the last press, the next one undoes it.
        on = not self._wished.get(name, widget.pane.state in ("on", "starting"))
        try:
            self.source.toggle(name, on)
            self._wished[name] = on
        except ProbeError as error:
            self.say(str(error))
            return
        self.say(f"{widget.entry.title}: {'attaching' if on else 'detaching'}", "dim")

    def action_focus_pane(self, way: int) -> None:
        """Focus the next pane or the one before."""
        self.dashboard.step(way)

    def action_move(self, to: str) -> None:
        """Move the cursor of the pane in focus."""
        self.dashboard.in_focus.pane.move(to)
        self.dashboard.repaint()

    def action_enter(self) -> None:
        """Drill in."""
        if self.dashboard.in_focus.pane.enter():
            self.dashboard.repaint()

    def action_step_out(self) -> None:
        """Out of the drill-down, else of the text filter, else of the zoom."""
        pane = self.dashboard.in_focus.pane
        if pane.back():
            self.dashboard.repaint()
        elif pane.filter:
            self._set_text_filter("")
        elif self.dashboard.zoomed:
            self.action_zoom()

    def action_zoom(self) -> None:
        """Give the pane in focus the whole screen, or back."""
        self.dashboard.zoomed = not self.dashboard.zoomed
        self.dashboard.place()

    def action_sort(self, reverse: bool) -> None:
        """Sort by the next column, or turn the order round."""
        self.dashboard.in_focus.pane.sort(reverse)
        self.dashboard.repaint()

    def action_filter(self) -> None:
        """Type a text that rows must contain; it acts while it is typed."""
        pane = self.dashboard.in_focus.pane
        self.dashboard.footer.open(
            Prompt(
                "filter:",
                submit=lambda text: None,
                cancel=lambda: self._set_text_filter(""),
                changed=self._set_text_filter,
                text=pane.filter,
                hint="rows that contain this; enter keeps it, esc clears it",
            )
        )

    def _set_text_filter(self, text: str) -> None:
        self.dashboard.in_focus.pane.set_filter(text)
        self.dashboard.repaint()

    def action_find(self) -> None:
        """Search for what can be traced here, and add it to the pane that takes it."""
        if self.dashboard.finding is not None:
            self.dashboard.finder.open(self.source.search, self._add_found)

    def _add_found(self, spec: str) -> str | None:
        index = self.dashboard.finding
        if index is None:
            return None
        widget = self.dashboard.panes[index]
        try:
            self.source.set_option(widget.entry.name, "add", spec)
            if widget.pane.state == "off":
                self.source.toggle(widget.entry.name, True)
        except ProbeError as error:
            return str(error)
        widget.pane.select(spec)
        self.dashboard.set_pane(index)
        self.say(f"{widget.entry.title}: adding {spec}", "dim")
        return None

    def action_kernel_filter(self) -> None:
        """Type what the kernel side shall count."""
        filters = self._filters_now()
        now = "" if filters is None else filters.describe()
        self.dashboard.footer.open(
            Prompt("count only:", submit=self._set_kernel_filter, text=now, hint=EXAMPLE)
        )

    def _filters_now(self) -> Filters | None:
        """What is counted, or will be once a Frame shows the effect of the last command."""
        shown = None if self.frame is None else self.frame.filters
        return shown if self._wished_filters is None else self._wished_filters

    def _wish_filters(self, filters: Filters) -> None:
        self.source.set_filters(filters)
        self._wished_filters = filters

    def read_filters(self, text: str) -> Filters:
        """The filters that were typed; raises ProbeError for what is wrong."""
        return parse_filters(text)

    def _set_kernel_filter(self, text: str) -> str | None:
        try:
            self._wish_filters(self.read_filters(text))
        except ProbeError as error:
            return str(error)
        return None

    def action_only_process(self) -> None:
        """Count only the process under the cursor; again: what was counted before, less it."""
        filters = self._filters_now()
        pane = self.dashboard.in_focus.pane
        pid = pane.selected_pid()
        if filters is None:
            return
        if filters.pid is not None:
            pid = None
        elif pid is not None and pane.here and not kernel.in_initial_pid_namespace():
            self.say("rows have the machine's pids: F pid=N takes one of this pid namespace")
            return
        elif pid is None:
            self.say("the row under the cursor is no process: enter shows those behind it")
            return
        try:
            self._wish_filters(filters._replace(pid=pid))
        except ProbeError as error:
            self.say(str(error))

    def action_interval(self, way: int) -> None:
        """The next longer or shorter interval."""
        now = self._wished_interval or (self.frame.interval if self.frame is not None else 1.0)
        longer = [step for step in INTERVALS if step > now * 1.01]
        shorter = [step for step in INTERVALS if step < now * 0.99]
        choice = longer[:1] if way > 0 else shorter[-1:]
        if not choice:
            self.say(f"the interval stays at {now:g} s: there is no step beyond", "warn")
            return
        try:
            self.source.set_interval(choice[0])
            self._wished_interval = choice[0]
            self.say(f"interval {choice[0]:g} s", "dim")
        except ProbeError as error:
            self.say(str(error))

    def own_keys(self) -> list[tuple[str, str]]:
        """Keys that not every dashboard has, for the help."""
        return []

    def action_help(self) -> None:
        """Show all keys."""
        focus = self.dashboard.in_focus.pane
        extra = [*self.own_keys(), *focus.options()]
        if self.dashboard.finding is not None:
            extra.append(("f", FIND))
        others = [widget.pane for widget in self.dashboard.panes if widget.pane is not focus]
        extra += [option for pane in others for option in pane.options()]
        self.dashboard.help.open(self.size.width, self.size.height, extra, focus.reading)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """What the palette lists: toggles, the panes' options, everything that has a key."""
        for widget in self.dashboard.panes:
            name, title = widget.entry.name, widget.entry.title
            does = "detach" if widget.pane.state in ("on", "starting") else "attach"
            toggle = partial(self.action_toggle_probe, name)
            yield SystemCommand(f"{title}: {does}", f"key {widget.entry.key}", toggle)
        for index, widget in enumerate(self.dashboard.panes):
            for key, what in widget.pane.options():
                press = partial(self._press, index, key)
                yield SystemCommand(what, f"key {key}", press)
        if self.dashboard.finding is not None:
            yield SystemCommand(FIND, "key f", self.action_find)
        yield SystemCommand("Filter in the kernel", "key F", self.action_kernel_filter)
        yield SystemCommand("Filter rows by text", "key /", self.action_filter)
        yield SystemCommand("Pause or go on", "key space", partial(self.run_action, "pause"))
        yield SystemCommand("Zoom the pane in focus", "key z", self.action_zoom)
        yield SystemCommand("Longer interval", "key +", partial(self.action_interval, 1))
        yield SystemCommand("Shorter interval", "key -", partial(self.action_interval, -1))
        yield SystemCommand("Help", "key ?", self.action_help)
        yield SystemCommand("Quit", "key q", self.action_quit)

    def _press(self, index: int, key: str) -> None:
        self.dashboard.set_pane(index)
        try:
            self.dashboard.in_focus.pane.press(key)
        except ProbeError as error:
            self.say(str(error))
        self.dashboard.repaint()
