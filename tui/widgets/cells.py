# SPDX-License-Identifier: Apache-2.0
"""A widget that draws all its lines and repaints only the changed cells."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from tui.shared.styled_lines import Line, changed_runs, compose
from tui.shared.theme import Theme


class CellWidget(Widget):
    """Shows the Lines of a subclass's `draw`; `repaint` sends the changed cells.

    `painted` counts the repainted cells since the widget was created.
    """

    ALLOW_SELECT = False
    DEFAULT_CSS = "CellWidget { width: 100%; height: 1; }"

    def __init__(self, theme: Theme, *, widget_id: str | None = None) -> None:
        super().__init__(id=widget_id)
        self.theme = theme
        self.painted = 0
        self._columns = 0
        self._drawn: list[Line] = []
        self._strips: list[Strip] = []

    def draw(self, columns: int, rows: int) -> Sequence[Line]:
        """All lines of the widget at its present size."""
        raise NotImplementedError

    def repaint(self) -> None:
        """Draw the lines and repaint the cells that changed."""
        columns, rows = self.size
        if not columns or not rows:
            return
        if not self._fits():
            self._draw_all()
            self.refresh()
            return
        regions: list[Region] = []
        for y, line in enumerate(self._composed()):
            if line == self._drawn[y]:
                continue
            runs = changed_runs(self._drawn[y], line)
            regions += [Region(start, y, end - start, 1) for start, end in runs]
            self._drawn[y], self._strips[y] = line, self._strip(line, columns)
        if regions:
            self.painted += sum([region.width for region in regions])
            self.refresh(*regions)

    def _fits(self) -> bool:
        """True if the drawn lines have the widget's present size."""
        return (self._columns, len(self._drawn)) == self.size

    def _draw_all(self) -> None:
        columns, rows = self.size
        self._columns, self._drawn = columns, self._composed()
        self._strips = [self._strip(line, columns) for line in self._drawn]
        self.painted += columns * rows

    def _composed(self) -> list[Line]:
        columns, rows = self.size
        lines = self.draw(columns, rows)
        wanted = [compose(line, columns, self.theme.plain) for line in lines[:rows]]
        return wanted + [compose((), columns)] * (rows - len(wanted))

    def _strip(self, line: Line, columns: int) -> Strip:
        style = self.theme.style
        return Strip([Segment(text, style(name)) for text, name in line], columns)

    def render_lines(self, crop: Region) -> list[Strip]:
        """The lines of a region, as the compositor requests them."""
        if not self._fits():
            self._draw_all()
        strips = self._strips[crop.y : crop.bottom]
        return [strip.crop(crop.x, crop.right) for strip in strips]

    @property
    def shown(self) -> list[Line]:
        """The lines on the screen."""
        return list(self._drawn)
