# SPDX-License-Identifier: Apache-2.0
"""A pane's frame on the screen: its title line, its body, the line to its neighbour."""

from __future__ import annotations

from textual import events

from tui.panes.base import Pane
from tui.registry import Entry
from tui.shared.styled_lines import Line, Span, compose, line_width
from tui.shared.text import safe
from tui.shared.theme import Theme
from tui.widgets.cells import CellWidget
from tui.widgets.layout import Place


def title_line(pane: Pane, entry: Entry, width: int, focused: bool, theme: Theme) -> Line:
    """ "-- 1 System calls > read -- 812k/s  err 1.2k/s -----", `width` cells."""
    glyphs = theme.glyphs
    rule = glyphs.rule_focus if focused else glyphs.rule
    style = "rule.focus" if focused else "rule"
    on = pane.state in ("on", "starting", "failed")
    name = ("title" if focused else "name") if on else "dim"
    out: list[Span] = [(rule + " ", style), (entry.key, "key"), (f" {entry.title}", name)]
    for crumb in pane.crumbs():
        out += [(f" {glyphs.arrow} ", "dim"), (safe(crumb, theme.plain), "name")]
    out.append((" ", ""))
    end: list[Span] = []
    if pane.filter and on:
        end = [(rule + " ", style), ("/" + safe(pane.filter, theme.plain), "warn"), (" ", "")]
    room = width - line_width(out) - line_width(end) - 3
    figures = _fitted(_figures(pane, entry), room, glyphs.more)
    if figures:
        out += [(rule + " ", style), *figures, (" ", "")]
    out += end
    out.append((rule * max(0, width - line_width(out)), style))
    return tuple(out)


def _fitted(figures: list[Span], room: int, more: str) -> list[Span]:
    """The figures that fit; a figure is never cut, because fewer digits are another number.

    Two blanks separate figures.
    """
    if line_width(figures) <= room:
        return figures
    fit = 0
    for at in range(1, len(figures)):
        parted = figures[at - 1][0].endswith("  ") or figures[at][0].startswith("  ")
        if parted and line_width([*figures[:at], (" " + more, "")]) <= room:
            fit = at
    return [*figures[:fit], (" " + more, "warn")] if fit else []


def _figures(pane: Pane, entry: Entry) -> list[Span]:
    if pane.state == "off":
        return [(f"off: press {entry.key}", "dim")]
    if pane.state == "failed":
        held = pane.sample is not None and pane.sample.given_up
        return [
            (held or "failed", "warn" if held else "bad"),
            (f"  {entry.key} tries again", "dim"),
        ]
    if pane.state == "starting":
        return [("starting", "dim")]
    lost = pane.sample.lost if pane.sample is not None else 0
    missing: list[Span] = [(f"lost {lost}  ", "bad")] if lost else []
    over: list[Span] = [(pane.over() + "  ", "warn")] if pane.over() else []
    kept = pane.sample.kept_on if pane.sample is not None else None
    # Always two digits, so that nothing beside the number moves when it falls.
    words = "" if kept is None else f"  kept on by key for {round(kept):2d} s"
    return over + missing + pane.headline() + ([(words, "warn")] if words else [])


class PaneWidget(CellWidget):
    """Shows one Pane at the place that the dashboard gives it."""

    def __init__(self, theme: Theme, pane: Pane, entry: Entry) -> None:
        super().__init__(theme, widget_id=f"pane-{entry.name}")
        self.pane = pane
        self.entry = entry
        self.in_focus = False
        self.place: Place | None = None

    def draw(self, columns: int, rows: int) -> list[Line]:
        """Draw the title, the body, and the line to the neighbour if there is one."""
        wall = self.place is not None and self.place.wall
        width = columns - wall
        title = title_line(self.pane, self.entry, columns, self.in_focus, self.theme)
        body = self.pane.lines(width, rows - 1, self.in_focus)
        if not wall:
            return [title, *body]
        lines = [compose(line, width, self.theme.plain) for line in body]
        lines += [compose((), width)] * (rows - 1 - len(lines))
        return [title, *[(*line, (self.theme.glyphs.wall, "rule")) for line in lines]]

    def put(self, place: Place | None) -> bool:
        """Set the place, None to hide the pane; return True if it changed."""
        if place == self.place:
            return False
        self.place = place
        self.display = place is not None
        if place is not None:
            self.styles.offset = (place.x, place.y + 1)
            self.styles.width = place.width
            self.styles.height = place.height
        return True

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Move the cursor by the wheel."""
        self._scroll("down", event)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Move the cursor by the wheel."""
        self._scroll("up", event)

    def _scroll(self, way: str, event: events.MouseEvent) -> None:
        event.stop()
        for _ in range(3):
            self.pane.move(way)
        self.repaint()
