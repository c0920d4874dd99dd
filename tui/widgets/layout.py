# SPDX-License-Identifier: Apache-2.0
"""Places panes: a pure function of the screen's size, the panes and the focus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

WIDE = 100
"""Columns from which two panes may stand side by side."""
VERY_WIDE = 160
"""Columns from which two panes always stand side by side."""
TALL = 14
"""Comfortable lines of a pane; below them, two columns of panes are better than one."""
LOW = 10
"""Lines below which the panes in one column shrink in favour of the focused one."""


class Place(NamedTuple):
    """A rectangle below the header; a height of 1 shows only the title line.

    With `wall`, the last column is the line to the neighbour.
    """

    x: int
    y: int
    width: int
    height: int
    wall: bool = False


class Want(NamedTuple):
    """A pane's demand: whether it is open, its weight, and its least lines with the title."""

    is_open: bool
    weight: int = 5
    least: int = 6


def arrange(
    width: int, height: int, wants: Sequence[Want], focus: int, zoomed: bool = False
) -> list[Place | None]:
    """The place of each pane; None for a hidden pane.

    Open panes fill rows of one or two in order; an odd last pane gets a whole row. Panes that are
    off or do not fit fold to a title line at the bottom. The focused pane folds last, and gets
    twice the lines of another where all are low. A `zoomed` pane gets the whole area.
    """
    places: list[Place | None] = [None] * len(wants)
    if zoomed and 0 <= focus < len(wants):
        places[focus] = Place(0, 0, width, height)
        return places
    shown = [at for at, want in enumerate(wants) if want.is_open]
    while len(shown) > 1 and _needed(width, height, wants, shown) > height:
        shown.remove(next(at for at in reversed(shown) if at != focus))
    folded = [at for at in range(len(wants)) if at not in shown][:height]
    rows = _rows(width, height - len(folded), shown)
    heights = _heights(height - len(folded), wants, rows, focus)
    _fill(places, width, heights, wants, rows)
    for line, at in enumerate(folded):
        places[at] = Place(0, height - len(folded) + line, width, 1)
    return places


def _rows(width: int, height: int, shown: Sequence[int]) -> list[list[int]]:
    comfortable = height >= TALL * len(shown) and width < VERY_WIDE
    across = 1 if width < WIDE or comfortable else 2
    return [list(shown[at : at + across]) for at in range(0, len(shown), across)]


def _needed(width: int, height: int, wants: Sequence[Want], shown: Sequence[int]) -> int:
    rows = _rows(width, height, shown)
    open_rows = sum([max(wants[at].least for at in row) for row in rows])
    return open_rows + len(wants) - len(shown)


def _heights(
    height: int, wants: Sequence[Want], rows: Sequence[Sequence[int]], focus: int
) -> list[int]:
    """The height of each row of panes: equal, unless rows are low and one has the focus."""
    alike = [height * (at + 1) // len(rows) - height * at // len(rows) for at in range(len(rows))]
    if [focus] not in rows or len(rows) < 2 or height // len(rows) >= LOW:
        return alike
    if any(len(row) > 1 for row in rows):
        return alike
    share = height // (len(rows) + 1)
    out = [max(wants[at].least, share) for (at,) in rows]
    place = [list(row) for row in rows].index([focus])
    out[place] = 0
    out[place] = height - sum(out)
    return out if out[place] >= max(wants[focus].least, share) else alike


def _fill(
    places: list[Place | None],
    width: int,
    heights: Sequence[int],
    wants: Sequence[Want],
    rows: Sequence[Sequence[int]],
) -> None:
    y = 0
    for row, tall in zip(rows, heights, strict=True):
        x = 0
        total = sum([wants[at].weight for at in row])
        for at in row:
            last = at == row[-1]
            wide = width - x if last else width * wants[at].weight // total
            places[at] = Place(x, y, wide, tall, wall=not last)
            x += wide
        y += tall
