# SPDX-License-Identifier: Apache-2.0
"""The terminal's theme: colours of style names, and available glyphs.

Colours are the terminal's own sixteen, which follow the user's scheme and have short sequences.
"""

from __future__ import annotations

import locale
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from rich.style import Style

HEAT_256 = (239, 60, 61, 31, 36, 71, 143, 221)
"""Heat colours from cold to hot, in the colour cube of terminals with 256 colours."""
_HEAT_16 = ("blue", "blue", "cyan", "cyan", "green", "yellow", "yellow", "red")
_STYLES: dict[str, tuple[str, str]] = {
    # name: (style with colours, style without)
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
    # The heatmap's steps, from few to many: backgrounds of 256 colours, else of sixteen.
    **{f"heat{n}": (f"on color({code})", "") for n, code in enumerate(HEAT_256, 1)},
    **{f"heat.{name}": (name, "") for name in ("blue", "cyan", "green", "yellow", "red")},
}


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters of drawings.

    `bar` and `column` go from an eighth of a cell to a full cell, to the right and upwards; a
    terminal that lacks some of the characters has fewer steps. `shade` goes from few to many.
    `corner`, `tick` (of a horizontal axis) and `notch` (of a vertical axis) draw axes.
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
    shade: str = "░▒▓█"
    corner: str = "└"
    tick: str = "┴"
    notch: str = "┤"
    within: str = "±"


UNICODE = Glyphs("▏▎▍▌▋▊▉█", "▁▂▃▄▅▆▇█", "─", "━", "│", "…", "▾", "▴", ">", "·")
CONSOLE = Glyphs("▌█", "▄█", "─", "═", "│", "~", "▼", "▲", ">", "·")
"""The Linux console's fonts hold 256 or 512 glyphs, among them those of code page 437."""
ASCII = Glyphs(
    "#",
    ".:|#",
    "-",
    "=",
    "|",
    "~",
    "v",
    "^",
    ">",
    ".",
    ".:-=+*#%@",
    corner="+",
    tick="+",
    within="+-",
    notch="+",
)


@dataclass(frozen=True)
class Theme:
    """All drawing properties that depend on the terminal.

    `plain` draws ASCII only. `many` is True for 256 colours, False for the terminal's own sixteen.
    Without `drawings` there are only numbers, because graphs, heatmaps and bars cost the most
    bytes.
    """

    glyphs: Glyphs = UNICODE
    colour: bool = True
    plain: bool = False
    many: bool = False
    drawings: bool = True
    _cache: dict[str, Style | None] = field(default_factory=dict, compare=False, repr=False)

    def style(self, name: str) -> Style | None:
        """The terminal style of a name, None for the default; KeyError for an unknown name."""
        if name not in self._cache:
            definition = _STYLES[name][0 if self.colour else 1]
            self._cache[name] = Style.parse(definition) if definition else None
        return self._cache[name]

    @property
    def heat(self) -> list[tuple[str, str]]:
        """The steps of a heatmap, from few to many, as (character, style name)."""
        shade = self.glyphs.shade
        if self.plain or not self.colour:
            return [(char, "") for char in shade]
        if self.many:
            return [(" ", f"heat{n}") for n in range(1, len(HEAT_256) + 1)]
        steps = [shade[0], *shade[1:3], *shade[1:3], shade[2], shade[3], shade[3]]
        return [(char, f"heat.{name}") for char, name in zip(steps, _HEAT_16, strict=True)]


def choose(plain: bool = False, environ: Mapping[str, str] = os.environ) -> Theme:
    """Choose the theme of this terminal; `plain` or a locale other than UTF-8 selects ASCII."""
    encoding = locale.getencoding().lower().replace("-", "")
    plain = plain or encoding != "utf8"
    glyphs = ASCII if plain else CONSOLE if environ.get("TERM") == "linux" else UNICODE
    return Theme(glyphs, "NO_COLOR" not in environ, plain, _has_256(environ))


def _has_256(environ: Mapping[str, str]) -> bool:
    """True if Rich finds 256 colours; otherwise it would approximate them by the sixteen."""
    kind = environ.get("TERM", "").lower().rpartition("-")[2]
    deep = environ.get("COLORTERM", "").strip().lower() in ("truecolor", "24bit")
    return deep or kind in ("256color", "kitty")


def bar(part: float, cells: int, glyphs: Glyphs) -> str:
    """A horizontal bar of `cells` cells, of which the fraction `part` is filled."""
    return _bar(round(max(0.0, min(1.0, part)) * cells * len(glyphs.bar)), cells, glyphs)


@lru_cache(maxsize=4096)
def _bar(filled: int, cells: int, glyphs: Glyphs) -> str:
    full, rest = divmod(filled, len(glyphs.bar))
    return (glyphs.bar[-1] * full + (glyphs.bar[rest - 1] if rest else "")).ljust(cells)


def nice_ceiling(value: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, ... from `value` on, so that a scale seldom moves."""
    scale = 1.0
    while scale < value:
        for step in (2, 2.5, 2):
            scale *= step
            if scale >= value:
                break
    return scale


def graph(values: list[float | None], cells: int, rows: int, glyphs: Glyphs) -> list[str]:
    """The newest `cells` values as columns on a scale from 0, the newest at the right.

    The column of an unknown or missing value is empty; a value above zero has at least one step.
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
