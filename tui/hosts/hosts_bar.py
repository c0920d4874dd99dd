# SPDX-License-Identifier: Apache-2.0
"""The hosts bar: one entry per host, with figures whose digits keep their place.

Entries are narrow enough to show all hosts, or else at least the shown one and its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from textual import events

from tui.hosts.remote_session import Figures, RemoteSession
from tui.shared.styled_lines import Line, Span, line_width
from tui.shared.text import UNKNOWN, fit, fmt_count, safe, width
from tui.shared.theme import Theme
from tui.widgets.cells import CellWidget

LONGEST_NAME, SHORT_NAME = 20, 8
EDGE = 4
"""Cells at each end for the number of hosts that do not fit."""
MARKS = 4
CALLS, ERRORS, LOAD = 7, 10, 10


class HostEntry(NamedTuple):
    """An entry of the hosts bar.

    A non-empty `state` replaces the `figures`; `ended` is True if no more Frames will come.
    """

    name: str
    state: str
    figures: Figures | None
    ended: bool = False


class Form(NamedTuple):
    """The width of entries: cells for the name, and the number of figures behind it."""

    name: int
    figures: int

    @property
    def cells(self) -> int:
        """Cells behind the name."""
        return (0, CALLS, CALLS + ERRORS, CALLS + ERRORS + LOAD)[self.figures] + MARKS


def entry_of(session: RemoteSession) -> HostEntry:
    """The present entry of a host."""
    return HostEntry(session.name, session.state(), session.figures, session.ended is not None)


def choose(names: Sequence[int], room: int, number: int) -> tuple[Form, int]:
    """The form of the entries, and how many of them fit into `room` cells.

    `names` are the widths of the hosts' names in cells, `number` that of the largest index.
    """
    longest = min(max(names), LONGEST_NAME)
    short = min(longest, SHORT_NAME)
    forms = [Form(name, n) for n in (3, 2, 1) for name in dict.fromkeys((longest, short))]
    forms.append(Form(short, 0))
    for form in forms:
        if len(names) * _width(form, number) <= room:
            return form, len(names)
    seen = [(form, (room - 2 * EDGE) // _width(form, number)) for form in forms]
    enough = [pair for pair in seen if pair[1] >= 3]
    return enough[0] if enough else (seen[-1][0], max(1, seen[-1][1]))


def _width(form: Form, number: int) -> int:
    return number + 1 + form.name + 1 + form.cells + 1


def hosts_line(entries: Sequence[HostEntry], shown: int, cells: int, theme: Theme) -> Line:
    """The bar in exactly `cells` cells."""
    return tuple([span for _, spans in _parts(entries, shown, cells, theme) for span in spans])


def _parts(
    entries: Sequence[HostEntry], shown: int, cells: int, theme: Theme
) -> list[tuple[int | None, list[Span]]]:
    """The bar's parts, each with the index of its host."""
    number = len(str(len(entries)))
    names = [width(safe(entry.name, theme.plain)) for entry in entries]
    form, count = choose(names, cells, number)
    first = max(0, min(shown - count // 2, len(entries) - count))
    parts: list[tuple[int | None, list[Span]]] = [
        (at, _entry(entries[at], at, number, at == shown, form, theme))
        for at in range(first, min(first + count, len(entries)))
    ]
    if count == len(entries):
        return parts
    after = len(entries) - first - count
    left = f"<{first}".ljust(EDGE) if first else " " * EDGE
    return [
        (None, [(left, "dim")]),
        *parts,
        (None, [(f"{after}>" if after else "", "dim")]),
    ]


def _entry(
    entry: HostEntry, at: int, number: int, is_shown: bool, form: Form, theme: Theme
) -> list[Span]:
    more = theme.glyphs.more
    name = fit(safe(entry.name, theme.plain), form.name, mark=more)
    key = f"{at + 1:>{number}} "
    out: list[Span] = (
        [(f"{key}{name}", "selected"), (" ", "")]
        if is_shown
        else [(key, "key"), (f"{name} ", "dim" if entry.ended else "name")]
    )
    if entry.state:
        style = "bad" if entry.ended else "warn"
        text = safe(entry.state, theme.plain)
        return [*out, (fit(text, form.cells, mark=more), style), (" ", "")]
    return [*out, *_figures(entry.figures or Figures(), form.figures), (" ", "")]


def _figures(figures: Figures, count: int) -> list[Span]:
    load = UNKNOWN if figures.load is None else f"{figures.load:.1f}"
    if len(load) > 4:
        load = fmt_count(figures.load and round(figures.load))
    rates: list[list[Span]] = [
        [(_rate(figures.calls), "value")],
        [(" err ", "dim"), (_rate(figures.errors)[:-2], "error" if figures.errors else "text")],
        [(" load ", "dim"), (f"{load:>4}", "text")],
    ]
    out = [span for spans in rates[:count] for span in spans]
    failed = f"!{min(9, figures.failed)}" if figures.failed else ""
    given_up = f"~{min(9, figures.given_up)}" if figures.given_up else ""
    gap = " " * (MARKS - len(failed) - len(given_up))
    return [*out, (failed, "bad"), (given_up, "warn"), (gap, "")]


def _rate(value: float | None) -> str:
    return f"{fmt_count(value):>5}" + ("/s" if value is not None else "  ")


class HostsBar(CellWidget):
    """The hosts bar; a click on an entry shows that host."""

    def __init__(
        self,
        theme: Theme,
        entries: Callable[[], tuple[list[HostEntry], int]],
        show: Callable[[int], None],
    ) -> None:
        super().__init__(theme, widget_id="hosts")
        self._entries = entries
        self._show = show

    def draw(self, columns: int, rows: int) -> list[Line]:
        """Draw the one line."""
        entries, shown = self._entries()
        return [hosts_line(entries, shown, columns, self.theme)]

    def on_click(self, event: events.Click) -> None:
        """Show the clicked host."""
        event.stop()
        entries, shown = self._entries()
        x = 0
        for at, spans in _parts(entries, shown, self.size.width, self.theme):
            x += line_width(spans)
            if event.x < x:
                if at is not None:
                    self._show(at)
                return
