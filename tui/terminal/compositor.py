# SPDX-License-Identifier: Apache-2.0
"""Sends changed cells, and only those, to the terminal.

Textual's partial update writes each changed run from the left edge of its widget and closes
every styled piece with a reset. Here a run starts where it changed, the cursor moves by the
shortest sequence, and a style is sent when it differs from the one in force.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from rich.color import ColorSystem
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, Compositor
from textual.screen import Screen
from textual.strip import Strip

Span = tuple[int, int, int]
MOST_REGIONS = 2000
"""Dirty pieces of the screen that are kept apart while the terminal takes nothing."""


@lru_cache(maxsize=1024)
def _sgr(style: Style, system: ColorSystem) -> str:
    """The parameters that select a style from the default, "" for the default itself."""
    return Strip.render_ansi(style, system)


class CellsUpdate(ChopsUpdate):
    """A partial update of the spans (y, x1, x2), cut at both ends."""

    def pieces(self) -> Iterator[tuple[int, int, int, list[Segment]]]:
        """What to write: (x, y, cells, segments), line by line from left to right."""
        for y, x1, x2 in self.spans:
            ends = self.chop_ends[y]
            for end, (x, strip) in zip(ends, self.chops[y].items(), strict=False):
                if strip is None or x >= x2 or end <= x1:
                    continue
                start, to = max(x, x1), min(end, x2)
                yield start, y, to - start, _cut(strip, start - x, to - x)

    def render_segments(self, console: Console) -> str:
        """The bytes for the terminal, beginning and ending in the default style."""
        system = console._color_system or ColorSystem.TRUECOLOR
        out: list[str] = []
        at: tuple[int, int] | None = None
        style_now = ""
        for x, y, cells, segments in self.pieces():
            if at != (x, y):
                same_line = at is not None and at[1] == y
                out.append(f"\x1b[{x + 1}G" if same_line else f"\x1b[{y + 1};{x + 1}H")
            style_now = _write(out, segments, style_now, system)
            # After anything but ASCII, a terminal may disagree about the cursor's place.
            ascii_only = all(segment.text.isascii() for segment in segments)
            at = (x + cells, y) if ascii_only else (-1, y)
        if style_now:
            out.append("\x1b[m")
        return "".join(out)


def _cut(strip: Strip, start: int, end: int) -> list[Segment]:
    """The segments of a part of a strip: `Strip.crop` makes a strip and splits one by one."""
    out: list[Segment] = []
    at = 0
    for segment in strip:
        text = segment.text
        if not text.isascii():
            size = segment.cell_length
            if size != len(text) and at < end and at + size > start:
                return list(strip.crop(start, end))
        else:
            size = len(text)
        if at < end and at + size > start:
            inside = start <= at and at + size <= end
            part = text[max(0, start - at) : end - at]
            out.append(segment if inside else Segment(part, segment.style))
        at += size
        if at >= end:
            break
    return out


def _write(out: list[str], segments: Iterable[Segment], now: str, system: ColorSystem) -> str:
    """Appends segments to `out`; takes and returns the style in force."""
    for text, style, _ in segments:
        wanted = _sgr(style, system) if style is not None else ""
        if wanted != now and not (style is None and not now):
            if not wanted:
                out.append("\x1b[m")
            else:
                out.append(f"\x1b[0;{wanted}m" if now else f"\x1b[{wanted}m")
            now = wanted
        out.append(text)
    return now


class CellCompositor(Compositor):
    """A compositor whose partial updates hold changed cells only."""

    def render_partial_update(self) -> ChopsUpdate | None:
        """The cells that became dirty, None if there are none."""
        update = super().render_partial_update()
        if update is None:
            return None
        chops: Sequence[Mapping[int, Strip | None]] = update.chops
        return CellsUpdate(chops, update.spans, update.chop_ends)


class CellScreen(Screen[Any]):
    """A screen that repaints by the cell, when the terminal has taken what came before.

    `may_paint` tells whether it has; if not, somebody calls `paint_held` once it has.
    """

    def __init__(self) -> None:
        super().__init__()
        self._compositor = CellCompositor()
        self.may_paint: Callable[[], bool] = lambda: True

    def _compositor_refresh(self) -> None:
        if self is self.app.screen and self._compositor._dirty_regions and not self.may_paint():
            self._dirty_widgets.clear()
            if len(self._compositor._dirty_regions) > MOST_REGIONS:
                self._compositor._dirty_regions = {self.size.region}
            return
        super()._compositor_refresh()

    def paint_held(self) -> None:
        """Paint what became dirty while the terminal took nothing."""
        if self._compositor._dirty_regions:
            self._compositor_refresh()
