# SPDX-License-Identifier: Apache-2.0
"""Lines of styled text, and the cells in which two of them differ.

A Line is a tuple of (text, style name) pairs; the names are those of `tui.shared.theme`. Panes make
Lines without a terminal, so that tests can read a pane without an application.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.cells import get_character_cell_size

from tui.shared.text import clip, safe, width
from tui.shared.theme import HEAT_256

Span = tuple[str, str]
Line = tuple[Span, ...]
Cell = tuple[str, str]

BLANK: Cell = (" ", "")
GAP = 6
"""A cursor movement costs about this many bytes, so a smaller gap is repainted."""
SOLID = frozenset(
    {"selected", "cursor", "badge", "badge.warn", "badge.bad"}
    | {f"heat{step}" for step in range(1, len(HEAT_256) + 1)}
)
"""Styles with a background colour, in which a space is not a blank cell."""


def line_text(line: Line) -> str:
    """The characters of a Line, for the text filter and for tests."""
    return "".join([text for text, _ in line])


def line_width(line: Iterable[Span]) -> int:
    """The cells of a Line of safe texts."""
    return sum([width(text) for text, _ in line])


def compose(line: Iterable[Span], cells: int, plain: bool = False) -> Line:
    """Make a Line of exactly `cells` cells, with safe texts, and equal adjacent styles merged.

    All drawn text passes this function.
    """
    out: list[Span] = []
    left = cells
    for text, style in line:
        if not text:
            continue
        text = safe(text, plain)
        size = width(text)
        if size > left:
            text = clip(text, left)
            text += " " * (left - width(text))
            size = left
        if out and out[-1][1] == style:
            out[-1] = (out[-1][0] + text, style)
        else:
            out.append((text, style))
        left -= size
        if left <= 0:
            break
    if left > 0:
        out.append((" " * left, ""))
    return tuple(out)


def to_cells(line: Line) -> list[Cell]:
    """One entry per cell; the second cell of a wide character is an empty text."""
    cells: list[Cell] = []
    for text, style in line:
        blank = (" ", style) if style in SOLID else BLANK
        if text.isascii():
            cells += [(char, style) if char != " " else blank for char in text]
            continue
        for char in text:
            cells.append((char, style) if char != " " else blank)
            if get_character_cell_size(char) == 2:
                cells.append(("", style))
    return cells


def changed_runs(old: Line, new: Line, gap: int = GAP) -> list[tuple[int, int]]:
    """The (start, end) cells in which two Lines of equal width differ; small gaps are included."""
    if old == new:
        return []
    start, end = _common(old, new)
    first = line_width(new[:start])
    was, now = old[start : len(old) - end], new[start : len(new) - end]
    found = _texts_only(was, now)
    if found is not None:
        return [(first + at, first + to) for at, to in _bridged(found, gap)]
    before, after = to_cells(was), to_cells(now)
    if len(before) != len(after):
        return [(0, line_width(new))]
    runs = _bridged([at for at, cell in enumerate(after) if before[at] != cell], gap)
    whole = [_whole_characters(run, after) for run in runs]
    return [(first + at, first + to) for at, to in whole] if first else whole


def _texts_only(old: Line, new: Line) -> list[int] | None:
    """The differing cells of spans with equal styles and lengths, without wide characters.

    None for other spans, whose cells must be compared one by one.
    """
    if len(old) != len(new):
        return None
    found: list[int] = []
    at = 0
    for (was, before), (text, style) in zip(old, new, strict=True):
        if before != style or len(was) != len(text):
            return None
        if was != text:
            if not (was.isascii() and text.isascii()):
                return None
            found += [n for n, (a, b) in enumerate(zip(was, text, strict=True), at) if a != b]
        at += len(text) if text.isascii() else width(text)
    return found


def _bridged(cells: Iterable[int], gap: int) -> list[tuple[int, int]]:
    """The runs of these ascending cells, with small gaps between them included."""
    runs: list[tuple[int, int]] = []
    for at in cells:
        if runs and at - runs[-1][1] < gap:
            runs[-1] = (runs[-1][0], at + 1)
        else:
            runs.append((at, at + 1))
    return runs


def _common(old: Line, new: Line) -> tuple[int, int]:
    """The number of equal spans at the start and at the end of two different Lines."""
    start = end = 0
    most = min(len(old), len(new))
    while start < most and old[start] == new[start]:
        start += 1
    while end < most - start and old[-1 - end] == new[-1 - end]:
        end += 1
    return start, end


def _whole_characters(run: tuple[int, int], cells: list[Cell]) -> tuple[int, int]:
    """Extend a run so that it cuts no wide character in half."""
    start, end = run
    if cells[start][0] == "":
        start -= 1
    if end < len(cells) and cells[end][0] == "":
        end += 1
    return start, end
