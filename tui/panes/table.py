# SPDX-License-Identifier: Apache-2.0
"""A table with fixed columns, rows that seldom move, and a cursor that follows its row.

Rows are any objects; a Column formats one of their fields.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from tui.shared.styled_lines import Line, Span, line_width
from tui.shared.text import fit, safe, shorten, width
from tui.shared.theme import Theme

R = TypeVar("R")
K = TypeVar("K", bound=Hashable)
SLACK = 1.10
PEAK = 1.25
"""A row is ranked by its recent peak, up to this factor above its present value."""
READABLE = 40
"""Cells that the growing column gets before other columns get more than they need."""
STICKY_ROWS = 100
"""Most rows at the top whose order is kept stable."""


@dataclass(frozen=True, slots=True)
class Column(Generic[R]):
    """One column: `cell` returns a row's text and style, `value` its sort key.

    When columns do not fit, the one with the highest `drop` goes first; 0 never goes. Remaining
    cells go to the columns in order, up to `most` each, then to the one that may `grow`. `right`
    aligns to the right. With `whole`, the part of a cell that does not fit is omitted instead of
    cut; with `middle`, a text is cut in its middle.
    """

    name: str
    cells: int
    cell: Callable[[R], Span | list[Span]]
    value: Callable[[R], float | str | None] | None = None
    right: bool = True
    drop: int = 0
    grow: bool = False
    most: int = 0
    whole: bool = False
    middle: bool = False


def sticky_order(previous: Sequence[K], values: Mapping[K, float]) -> list[K]:
    """Sort keys by falling value, but keep the order of `previous` for near values.

    A key moves up past smaller ones only if it is more than 10 % above at least one of them.
    """
    ranked = sorted(values, key=lambda key: -values[key])
    head = set(ranked[:STICKY_ROWS])
    kept = [key for key in previous if key in head]
    known = set(kept)
    out: list[K] = []
    heights: list[float] = []
    for key in kept:
        _insert(out, heights, key, values[key], SLACK)
    for key in ranked[:STICKY_ROWS]:
        if key not in known:
            _insert(out, heights, key, values[key], 1.0)
    return out + ranked[STICKY_ROWS:]


def _insert(out: list[K], heights: list[float], key: K, value: float, slack: float) -> None:
    """Insert a key at its place; `heights` are the values of the keys in `out`."""
    place = at = len(out)
    while at and heights[at - 1] < value:
        at -= 1
        if value > slack * heights[at]:
            place = at
    out.insert(place, key)
    heights.insert(place, value)


class Table(Generic[R]):
    """Rows in order, with a cursor, a sort column and a text filter.

    `key` identifies a row over time; `text` is the text that the filter searches. `sort` is the
    index of a column, None for the order in which rows are fed. A row for which `instead` returns a
    text shows it after its first column in place of all other columns.
    """

    def __init__(
        self,
        columns: Sequence[Column[R]],
        key: Callable[[R], Hashable],
        text: Callable[[R], str],
        sort: int | None = None,
        empty: str = "nothing in this interval",
        instead: Callable[[R], Span | None] = lambda row: None,
    ) -> None:
        self.columns = columns
        self.key = key
        self.text = text
        self.sort_by = self._first_sort = sort
        self.reverse = False
        self.filter = ""
        self.empty = empty
        self.instead = instead
        self.rows: list[R] = []
        self.selected: Hashable | None = None
        self.index = 0
        self._fed: Sequence[R] = ()
        self._order: list[Hashable] = []
        self._recent: dict[Hashable, tuple[float, float, float]] = {}
        self._offset = 0
        self._page = 1
        self._gaps: dict[int, int] = {}
        self._visible: list[int] = list(range(len(columns)))

    def feed(self, rows: Sequence[R]) -> None:
        """Take the rows of a new interval."""
        self._fed = rows
        self._remember(rows)
        self._arrange()

    def set_columns(self, columns: Sequence[Column[R]]) -> None:
        """Replace the columns; the sort column stays the one of the same name, if it exists."""
        if self.sort_by is not None:
            name = self.columns[self.sort_by].name
            names = [column.name for column in columns]
            self.sort_by = names.index(name) if name in names else self._first_sort
        if len(columns) != len(self.columns):
            self._visible = list(range(len(columns)))
        self.columns = columns

    def _remember(self, rows: Sequence[R]) -> None:
        """Keep each row's last three values."""
        value = self._value()
        if value is None or not self.columns[self.sort_by or 0].right:
            return
        recent: dict[Hashable, tuple[float, float, float]] = {}
        for row in rows:
            key, now = self.key(row), value(row)
            _, older, newer = self._recent.get(key, (0.0, 0.0, 0.0))
            recent[key] = (older, newer, float(now or 0.0))
        self._recent = recent

    def _rank(self, key: Hashable) -> float:
        """The rank of a row: the highest of its last three values, at most PEAK times the present
        one.

        A short dip does not move a row, but a row with a low value never ranks above one with a
        high value, and a row of 0 sinks at once.
        """
        values = self._recent.get(key, (0.0,))
        return min(max(values), PEAK * values[-1])

    def _value(self) -> Callable[[R], float | str | None] | None:
        return None if self.sort_by is None else self.columns[self.sort_by].value

    def _arrange(self) -> None:
        rows = self._fed
        if self.filter:
            wanted = self.filter.lower()
            rows = [row for row in rows if wanted in self.text(row).lower()]
        value = self._value()
        if value is None:
            self.rows = list(reversed(rows)) if self.reverse else list(rows)
        elif not self.reverse and self.columns[self.sort_by or 0].right:
            by_key = {self.key(row): row for row in rows}
            ranks = {key: self._rank(key) for key in by_key}
            self._order = sticky_order(self._order, ranks)
            self.rows = [by_key[key] for key in self._order]
        else:
            self.rows = self._sorted(rows, value)
        self._find()

    def _sorted(self, rows: Sequence[R], value: Callable[[R], float | str | None]) -> list[R]:
        known = [row for row in rows if value(row) is not None]
        unknown = [row for row in rows if value(row) is None]
        by_text = not self.columns[self.sort_by or 0].right
        # Numbers sort downwards and texts upwards; `reverse` swaps both.
        falling = by_text == self.reverse if by_text else not self.reverse
        return sorted(known, key=value, reverse=falling) + unknown  # type: ignore[arg-type]

    def _find(self) -> None:
        """Move the cursor to its row's new place."""
        if self.selected is None:
            self.index = 0
            return
        if self.index < len(self.rows) and self.key(self.rows[self.index]) == self.selected:
            return
        for at, row in enumerate(self.rows):
            if self.key(row) == self.selected:
                self.index = at
                return
        self.index = max(0, min(self.index, len(self.rows) - 1))

    def current(self) -> R | None:
        """The row under the cursor."""
        return self.rows[self.index] if self.index < len(self.rows) else None

    def move(self, to: str) -> None:
        """Move the cursor: up, down, pageup, pagedown, end, or home, after which it stays at the
        top."""
        steps = {"up": -1, "down": 1, "pageup": -self._page, "pagedown": self._page}
        last = max(0, len(self.rows) - 1)
        target = {"home": 0, "end": last}.get(to, self.index + steps.get(to, 0))
        self.index = max(0, min(target, last))
        row = self.current()
        self.selected = None if to == "home" or row is None else self.key(row)

    def sort(self, reverse: bool = False) -> None:
        """Sort by the next visible column, or reverse the present order."""
        if reverse:
            self.reverse = not self.reverse
        else:
            able = [at for at in self._visible if self.columns[at].value is not None]
            if able:
                later = [at for at in able if self.sort_by is None or at > self.sort_by]
                self.sort_by = later[0] if later else able[0]
            self.reverse = False
            self._recent = {}
            self._remember(self._fed)
        self._order = []
        self._arrange()

    def set_filter(self, text: str) -> None:
        """Show only rows whose text contains `text`."""
        self.filter = text
        self._arrange()

    def needs(self) -> int:
        """The cells at which every column has its full width."""
        every = list(range(len(self.columns)))
        sizes = [max(column.cells, column.most) for column in self.columns]
        return sum([self._gap(every, at) + sizes[at] for at in every]) + 1

    def lines(self, cells: int, height: int, theme: Theme, focused: bool) -> list[Line]:
        """The heading and as many rows as fit."""
        widths = self._widths(cells)
        self._visible = list(widths)
        lines: list[Line] = [self._heading(widths, theme)]
        room = height - 1
        self._page = max(1, room - 1)
        self._scroll(room)
        if not self.rows:
            why = f"nothing matches /{safe(self.filter)}" if self.filter else self.empty
            return [*lines, ((" " + why, "dim"),)]
        for at in range(self._offset, min(self._offset + room, len(self.rows))):
            chosen = focused and at == self.index
            lines.append(self._row(self.rows[at], widths, theme, chosen, cells))
        return lines

    def _scroll(self, room: int) -> None:
        last = max(0, len(self.rows) - room)
        low = self.index - room + 1
        self._offset = max(0, min(max(min(self._offset, self.index), low), last))

    def _widths(self, cells: int) -> dict[int, int]:
        """The widths of the columns that fit, by index."""
        kept = list(range(len(self.columns)))

        def needed() -> int:
            return sum([self._gap(kept, at) + self.columns[at].cells for at in kept]) + 1

        while needed() > cells:
            droppable = [at for at in kept if self.columns[at].drop]
            if not droppable:
                break
            kept.remove(max(droppable, key=lambda at: (self.columns[at].drop, at)))
        self._gaps = {at: self._gap(kept, at) for at in kept}
        spare = max(0, cells - needed())
        widths = {at: self.columns[at].cells for at in kept}
        growing = next((at for at in kept if self.columns[at].grow), None)
        reserve = max(0, READABLE - widths[growing]) if growing is not None else 0
        for at in kept:
            more = max(0, min(self.columns[at].most - widths[at], spare - reserve))
            widths[at] += more
            spare -= more
        if growing is not None:
            widths[growing] += spare
        return widths

    def _gap(self, kept: Sequence[int], at: int) -> int:
        """Blanks before a column: two between a right-aligned column and a text."""
        place = kept.index(at)
        if not place:
            return 1
        before, column = self.columns[kept[place - 1]], self.columns[at]
        return 2 if before.right and not column.right and column.name else 1

    def _heading(self, widths: Mapping[int, int], theme: Theme) -> Line:
        out: list[Span] = []
        for at, cells in widths.items():
            column = self.columns[at]
            sorted_by = at == self.sort_by
            mark = (theme.glyphs.up if self.reverse else theme.glyphs.down) if sorted_by else ""
            name = mark + column.name if column.right else column.name + mark
            style = "head.sort" if sorted_by else "head"
            # A name that fills its column has its mark in the gap before the column.
            over = column.right and len(name) > cells
            out.append((" " * (self._gaps[at] - over), ""))
            out.append((fit(name, cells + over, column.right), style))
        return tuple(out)

    def _row(
        self, row: R, widths: Mapping[int, int], theme: Theme, chosen: bool, cells: int
    ) -> Line:
        out: list[Span] = []
        instead = self.instead(row)
        for at, size in widths.items():
            column = self.columns[at]
            if out and instead is not None:
                room = max(0, cells - line_width(out) - 1)
                out += [(" ", ""), *fit_spans([instead], room, False, theme)]
                break
            out.append((" " * self._gaps[at], ""))
            cell = column.cell(row)
            spans = [cell] if isinstance(cell, tuple) else cell
            if column.middle:
                more = theme.glyphs.more
                spans = [(shorten(safe(t, theme.plain), size, more), style) for t, style in spans]
            out += fit_spans(spans, size, column.right, theme, column.whole)
        if chosen:
            text = "".join([text for text, _ in out])
            return ((fit(text, cells), "selected"),)
        return tuple(out)


def fit_spans(
    spans: Sequence[Span], cells: int, right: bool, theme: Theme, whole: bool = False
) -> list[Span]:
    """Spans in exactly `cells` cells, with their texts made safe; a cut is marked."""
    out: list[Span] = []
    left = cells
    for text, style in spans:
        text = safe(text, theme.plain)
        if width(text) > left:
            if not (out and whole):
                return [*out, (fit(text, left, mark=theme.glyphs.more), style)]
            break
        out.append((text, style))
        left -= width(text)
    if len(out) == 1:
        return [(fit(out[0][0], cells, right), out[0][1])]
    pad = (" " * left, "")
    return [pad, *out] if right else [*out, pad]
