# SPDX-License-Identifier: Apache-2.0
"""How things look on this terminal: style names to colours, and the glyphs that it has.

Colours are the terminal's own sixteen, so a user's scheme holds and sequences are short.
"""

from __future__ import annotations

import locale
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from rich.style import Style

_STYLES: dict[str, tuple[str, str]] = {
    # name: (with colours, without)
    "title": ("bold cyan", "bold"),
    "name": ("bold", "bold"),
    "rule": ("dim", "dim"),
    "rule.focus": ("cyan", "bold"),
    "key": ("bold cyan", "bold"),
    "head": ("dim", "dim"),
    "head.sort": ("bold", "bold"),
    "dim": ("dim", "dim"),
    "value": ("bold", "bold"),
    "bar": ("green", ""),
    "graph": ("green", ""),
    "good": ("green", ""),
    "warn": ("yellow", "bold"),
    "bad": ("bold red", "bold"),
    "error": ("red", ""),
    "text": ("", ""),
    "proc": ("cyan", ""),
    "selected": ("reverse", "reverse"),
    "cursor": ("reverse", "reverse"),
    "badge": ("bold reverse", "bold reverse"),
    "badge.warn": ("bold yellow reverse", "bold reverse"),
    "badge.bad": ("bold red reverse", "bold reverse"),
    "": ("", ""),
}


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters that drawings are made of.

    `bar` and `column` go from an eighth to a full cell, growing rightwards and upwards; a
    terminal that lacks the parts has fewer steps.
    """

    bar: str
    column: str
    rule: str
    rule_focus: str
    wall: str
    more: str
    down: str
    up: str
    arrow: str
    dot: str


UNICODE = Glyphs("▏▎▍▌▋▊▉█", "▁▂▃▄▅▆▇█", "─", "━", "│", "…", "▾", "▴", ">", "·")
CONSOLE = Glyphs("▌█", "▄█", "─", "═", "│", "~", "▼", "▲", ">", "·")
"""The Linux console's fonts hold 256 or 512 glyphs: those of code page 437 are there."""
ASCII = Glyphs("#", ".:|#", "-", "=", "|", "~", "v", "^", ">", ".")


@dataclass(frozen=True)
class Look:
    """Everything about drawing that depends on the terminal; `plain` draws ASCII only."""

    glyphs: Glyphs = UNICODE
    colour: bool = True
    plain: bool = False
    _cache: dict[str, Style | None] = field(default_factory=dict, compare=False, repr=False)

    def style(self, name: str) -> Style | None:
        """The terminal style of a name, None for none; an unknown name is a KeyError."""
        if name not in self._cache:
            definition = _STYLES[name][0 if self.colour else 1]
            self._cache[name] = Style.parse(definition) if definition else None
        return self._cache[name]


def choose(plain: bool = False, environ: Mapping[str, str] = os.environ) -> Look:
    """The look for this terminal: `plain` or a locale that is not UTF-8 means ASCII."""
    encoding = locale.getencoding().lower().replace("-", "")
    plain = plain or encoding != "utf8"
    glyphs = ASCII if plain else CONSOLE if environ.get("TERM") == "linux" else UNICODE
    return Look(glyphs, colour="NO_COLOR" not in environ, plain=plain)


@lru_cache(maxsize=4096)
def bar(part: float, cells: int, glyphs: Glyphs) -> str:
    """A horizontal bar of `cells` cells, filled by `part` of 1."""
    steps = len(glyphs.bar)
    filled = round(max(0.0, min(1.0, part)) * cells * steps)
    full, rest = divmod(filled, steps)
    return (glyphs.bar[-1] * full + (glyphs.bar[rest - 1] if rest else "")).ljust(cells)


def nice_ceiling(value: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, ... that is not below `value`: a scale that rests."""
    scale = 1.0
    while scale < value:
        for step in (2, 2.5, 2):
            scale *= step
            if scale >= value:
                break
    return scale


def graph(values: list[float | None], cells: int, rows: int, glyphs: Glyphs) -> list[str]:
    """The newest `cells` values as columns on a scale from 0, newest at the right.

    A value that is not known, or not there yet, leaves its column empty; one above zero
    shows at least the lowest step.
    """
    shown = values[-cells:]
    top = nice_ceiling(max((v for v in shown if v is not None), default=1.0))
    steps = len(glyphs.column)
    heights = [0 if not v or v < 0 else max(1, round(v / top * rows * steps)) for v in shown]
    lines = []
    for row in range(rows - 1, -1, -1):
        low = row * steps
        drawn = [" " if h <= low else glyphs.column[min(h - low, steps) - 1] for h in heights]
        lines.append("".join(drawn).rjust(cells))
    return lines
