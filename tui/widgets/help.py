# SPDX-License-Identifier: Apache-2.0
"""The help overlay: all keys, and how to read the figures."""

from __future__ import annotations

from collections.abc import Sequence

from textual import events

from tui.shared.keys import help_rows
from tui.shared.styled_lines import Line, Span, compose
from tui.shared.text import fit, wrap
from tui.shared.theme import Theme
from tui.widgets.cells import CellWidget

KEYS = help_rows()
READING = (
    "Rates are per second over the last interval. A dash is an unknown value, never "
    "0. A row moves up only when it is 10 % ahead. lost: events that the kernel side could "
    "not hand over. probes: CPU that the probes take, in per cent of one CPU."
)
DURATIONS = (
    "~: a duration near what the probe itself takes. miss: calls whose duration is not known. "
    "The heatmap's columns are intervals, its rows durations, its colours calls per second."
)
"""The explanation for a pane without one of its own."""


class HelpOverlay(CellWidget):
    """A box over the panes; any key closes it."""

    DEFAULT_CSS = """
    HelpOverlay { layer: overlay; position: absolute; display: none; }
    """

    def __init__(self, theme: Theme) -> None:
        super().__init__(theme, widget_id="help")
        self.extra: list[tuple[str, str]] = []
        self.reading = DURATIONS

    def open(
        self, columns: int, rows: int, extra: Sequence[tuple[str, str]], reading: str = ""
    ) -> None:
        """Show the box in the middle of a screen of this size.

        The last entries of `extra`, as (key, action), are omitted if they do not fit; `reading`
        explains the focused pane's figures.
        """
        self.extra = list(extra)
        self.reading = reading or DURATIONS
        width = min(columns, 84)
        over = len(self.content(width - 4)) + 2 - rows
        if over > 0:
            self.extra = self.extra[: max(0, len(self.extra) - over)]
        height = min(rows, len(self.content(width - 4)) + 2)
        self.styles.offset = ((columns - width) // 2, max(0, (rows - height) // 2))
        self.styles.width = width
        self.styles.height = height
        self.display = True

    def close(self) -> None:
        """Close the box."""
        self.display = False

    def take(self, event: events.Key) -> bool:
        """Close the box on any key, which does nothing else; return False if it is closed."""
        was_open = self.display
        self.close()
        return was_open

    def content(self, cells: int) -> list[Line]:
        """The box's content, `cells` wide."""
        half = (len(KEYS) + 1) // 2
        one = cells // 2
        lines: list[Line] = []
        for at in range(half):
            row: list[Span] = []
            for key, what in KEYS[at::half]:
                row += [(fit(key, 8, right=True), "key"), (" " + fit(what, one - 9), "text")]
            lines.append(tuple(row))
        for key, what in self.extra:
            lines.append(((fit(key, 8, right=True), "key"), (" " + what, "text")))
        lines.append(())
        lines += [((line, "dim"),) for line in wrap(f"{READING} {self.reading}", cells)]
        return lines

    def draw(self, columns: int, rows: int) -> list[Line]:
        """Draw the box."""
        glyphs = self.theme.glyphs
        inner = columns - 4
        title = f"{glyphs.rule_focus} Help {glyphs.rule_focus} any key closes "
        out: list[Line] = [((title + glyphs.rule_focus * columns, "rule.focus"),)]
        wall = (glyphs.wall, "rule.focus")
        for line in self.content(inner)[: rows - 2]:
            body = compose(line, inner, self.theme.plain)
            out.append((wall, (" ", ""), *body, (" ", ""), wall))
        out.append(((glyphs.rule_focus * columns, "rule.focus"),))
        return out

    def on_click(self, event: events.Click) -> None:
        """Close the box."""
        event.stop()
        self.close()
