# SPDX-License-Identifier: Apache-2.0
"""The dashboard's screen: header, panes, footer and help, with their places and the focus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from tui.panes.base import Pane
from tui.registry import Entry
from tui.shared.keys import KEYS, Hint, hint
from tui.shared.theme import Theme
from tui.terminal.compositor import CellScreen
from tui.widgets.cells import CellWidget
from tui.widgets.finder import FinderOverlay
from tui.widgets.footer import FooterBar
from tui.widgets.header import HeaderBar
from tui.widgets.help import HelpOverlay
from tui.widgets.layout import Want, arrange
from tui.widgets.pane import PaneWidget

EDGE_KEYS = [hint("help"), hint("quit")]


class DashboardScreen(CellScreen):
    """A header line, a grid of panes, a footer line.

    header   probetop  web-3  load 3.1  probes 0.42 %cpu ...
    bars     lines below the header, if any
    panes    -- 1 System calls -- 812k/s ----   (arranged by tui.widgets.layout)
    footer   enter drill  / filter  ...
    """

    AUTO_FOCUS = None
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(key.names, key.action, show=False) for key in KEYS if not key.everywhere
    ]
    DEFAULT_CSS = """
    DashboardScreen { layers: base overlay; overflow: hidden; }
    #header { dock: top; }
    #footer { dock: bottom; }
    PaneWidget { position: absolute; }
    """

    def __init__(
        self,
        theme: Theme,
        panes: Sequence[tuple[Entry, Pane]],
        bars: Sequence[CellWidget] = (),
    ) -> None:
        super().__init__()
        self.theme = theme
        self.header = HeaderBar(theme)
        self.bars = bars
        for row, bar in enumerate(bars, 1):
            bar.styles.position = "absolute"
            bar.styles.offset = (0, row)
        self.footer = FooterBar(theme)
        self.help = HelpOverlay(theme)
        self.finder = FinderOverlay(theme)
        self.panes = [PaneWidget(theme, pane, entry) for entry, pane in panes]
        self.commands: Mapping[str, Callable[..., object]] = {}
        self.focus_index = 0
        self.zoomed = False
        self.time_hints: tuple[list[Hint], list[Hint]] = ([], [])
        self.panes[0].in_focus = True

    def compose(self) -> ComposeResult:
        """Yield all widgets once; later they only move or hide."""
        yield self.header
        yield from self.bars
        yield from self.panes
        yield self.footer
        yield self.help
        yield self.finder

    @property
    def in_focus(self) -> PaneWidget:
        """The focused pane."""
        return self.panes[self.focus_index]

    @property
    def finding(self) -> int | None:
        """The index of the pane that takes search results; None if there is none."""
        return next((at for at, w in enumerate(self.panes) if w.pane.finds), None)

    def action_command(self, name: str, *arguments: object) -> None:
        """Carry out a key's command, see `tui.shared.keys`."""
        self.commands[name](*arguments)

    def on_resize(self, event: events.Resize) -> None:
        """Place all widgets for the new size."""
        self.help.close()
        self.finder.place(event.size.width, event.size.height)
        self.place(event.size.width, event.size.height)

    def place(self, columns: int = 0, rows: int = 0) -> None:
        """Place the panes and repaint what changed."""
        columns, rows = columns or self.size.width, rows or self.size.height
        self.footer.styles.height = self.footer.rows
        wants = [
            Want(w.pane.state != "off", w.pane.weight, w.pane.least_rows + 1) for w in self.panes
        ]
        top = len(self.bars)
        room = max(1, rows - 1 - top - self.footer.rows)
        places = arrange(columns, room, wants, self.focus_index, self.zoomed)
        for widget, place in zip(self.panes, places, strict=True):
            widget.put(None if place is None else place._replace(y=place.y + top))
        self.repaint()

    def repaint(self) -> None:
        """Repaint the changed cells of all widgets."""
        self.header.repaint()
        for bar in self.bars:
            bar.repaint()
        for widget in self.panes:
            if widget.display:
                widget.repaint()
        self.repaint_footer()

    def repaint_footer(self) -> None:
        """Repaint the footer's keys if they changed."""
        self.footer.hints, self.footer.last = self.hints(), EDGE_KEYS
        self.footer.repaint()

    def hints(self) -> list[Hint]:
        """The keys that apply now, the most useful first."""
        pane = self.in_focus.pane
        first, last = self.time_hints
        out = [*first, hint("toggle_probe")]
        if pane.crumbs():
            out.append(hint("step_out"))
        if pane.drills:
            out.append(hint("enter"))
        if self.finding is not None:
            out.append(hint("find"))
        out += pane.hints()
        out += [hint("filter"), hint("kernel_filter"), hint("sort")]
        out += [hint("zoom", "unzoom" if self.zoomed else ""), hint("focus_pane")]
        out += last
        out += [hint("export"), hint("only_process"), hint("interval"), hint("command_palette")]
        return out

    def set_pane(self, index: int) -> None:
        """Focus a pane by its index."""
        self.in_focus.in_focus = False
        self.focus_index = index % len(self.panes)
        self.in_focus.in_focus = True
        self.place()

    def settle(self) -> None:
        """Place the panes after a switch; a pane that is off loses the focus."""
        if self.in_focus.pane.state == "off" and not self.zoomed:
            self.step(1)
        self.place()

    def step(self, way: int) -> None:
        """Focus the next visible pane."""
        for distance in range(1, len(self.panes) + 1):
            index = (self.focus_index + way * distance) % len(self.panes)
            if self.panes[index].pane.state != "off":
                self.set_pane(index)
                return

    def on_click(self, event: events.Click) -> None:
        """Focus the clicked pane."""
        for index, widget in enumerate(self.panes):
            if widget is event.widget and index != self.focus_index:
                self.set_pane(index)
