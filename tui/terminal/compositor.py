# SPDX-License-Identifier: Apache-2.0
"""Sends only changed cells to the terminal.

Textual's partial update writes each changed run from the left edge of its widget and resets the
style after every segment. This compositor starts a run at the first changed cell, moves the cursor
by the shortest sequence, and sends a style only when it changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

from rich.color import ColorSystem
from rich.console import COLOR_SYSTEMS, Console
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from tui.terminal.textual_private import ChopsUpdate, Compositor, OpenScreen

Span = tuple[int, int, int]
MOST_REGIONS = 2000
"""Most dirty regions that are kept separately while the terminal is blocked."""


@lru_cache(maxsize=1024)
def _sgr(style: Style, system: ColorSystem) -> str:
    """The SGR parameters that select a style from the default; "" for the default."""
    return Strip.render_ansi(style, system)


class CellsUpdate(ChopsUpdate):
    """A partial update of the spans (y, x1, x2), cropped at both ends."""

    def pieces(self) -> Iterator[tuple[int, int, int, list[Segment]]]:
        """Yield (x, y, cells, segments) line by line, from left to right."""
        for y, x1, x2 in self.spans:
            ends = self.chop_ends[y]
            for end, (x, strip) in zip(ends, self.chops[y].items(), strict=False):
                if strip is None or x >= x2 or end <= x1:
                    continue
                start, to = max(x, x1), min(end, x2)
                yield start, y, to - start, _cut(strip, start - x, to - x)

    def render_segments(self, console: Console) -> str:
        """The bytes for the terminal; they begin and end in the default style."""
        system = COLOR_SYSTEMS.get(console.color_system or "", ColorSystem.TRUECOLOR)
        out: list[str] = []
        at: tuple[int, int] | None = None
        style_now = ""
        for x, y, cells, segments in self.pieces():
            if at != (x, y):
                same_line = at is not None and at[1] == y
                out.append(f"\x1b[{x + 1}G" if same_line else f"\x1b[{y + 1};{x + 1}H")
            style_now = _write(out, segments, style_now, system)
            # Terminals disagree about the width of non-ASCII characters, so the cursor is placed
            # anew.
            ascii_only = all(segment.text.isascii() for segment in segments)
            at = (x + cells, y) if ascii_only else (-1, y)
        if style_now:
            out.append("\x1b[m")
        return "".join(out)


def _cut(strip: Strip, start: int, end: int) -> list[Segment]:
    """Crop a strip to a list of segments; `Strip.crop` costs more, as it makes a new strip."""
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
    """Append segments to `out`; takes and returns the current style."""
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
    """A compositor whose partial updates contain only changed cells."""

    def render_partial_update(self) -> ChopsUpdate | None:
        """Return the dirty cells, None if there are none."""
        update = super().render_partial_update()
        if update is None:
            return None
        chops: Sequence[Mapping[int, Strip | None]] = update.chops
        return CellsUpdate(chops, update.spans, update.chop_ends)


class CellScreen(OpenScreen):
    """A screen that repaints changed cells once the terminal has taken the earlier output.

    `may_paint` returns True if it has; otherwise its owner calls `paint_held` later.
    """

    def __init__(self) -> None:
        super().__init__(CellCompositor())
        self.may_paint: Callable[[], bool] = lambda: True

    def send_dirty(self) -> None:
        """Send the dirty cells, or keep them while the terminal is blocked."""
        if self is self.app.screen and self.dirty_regions and not self.may_paint():
            self.keep_dirty(MOST_REGIONS)
        else:
            super().send_dirty()

    def paint_held(self) -> None:
        """Paint the cells that were kept while the terminal was blocked."""
        if self.dirty_regions:
            self.send_dirty()
