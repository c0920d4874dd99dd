# SPDX-License-Identifier: Apache-2.0
"""The state of a search for targets: the query, the results, and the selection.

It has no terminal and no clock; `tui.widgets.finder` sends queries and draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from probes.source import Found
from tui.panes.table import Column, Table
from tui.shared.line_editor import Prompt
from tui.shared.styled_lines import Line
from tui.shared.text import fmt_ns, safe, width, wrap
from tui.shared.theme import Theme

HINT = "a name or the start of a spec: sched_switch, vfs_read, uprobe:libc:malloc"
EXACT = "*?,@"
"""A query with one of these characters is a complete spec, which no search can find."""
AS_TYPED = "as typed"
LONGEST = 56


def _columns(found: Sequence[Found]) -> list[Column[Found]]:
    longest = max([width(safe(f.spec)) for f in found], default=0)
    return [
        Column(
            "target",
            24,
            lambda f: (f.spec, "name"),
            right=False,
            most=min(longest, LONGEST),
            middle=True,
        ),
        Column("how", 10, lambda f: (f.mechanism, "text"), right=False),
        Column("cost", 6, _cost, drop=2),
        Column("", 10, lambda f: (f.note, "dim"), right=False, drop=1, most=80),
    ]


def _cost(found: Found) -> tuple[str, str]:
    if found.mechanism == AS_TYPED:
        return ("", "")
    return (fmt_ns(found.cost), "text" if found.cost is not None else "dim")


class Finder:
    """The state of the search dialog.

    `add` is called with a spec; it returns an error in one line, or None, which ends the search.
    """

    def __init__(self, add: Callable[[str], str | None], typed: Callable[[str], None]) -> None:
        self.add = add
        self.prompt = Prompt("find:", submit=add, changed=self._changed, hint=HINT)
        self.typed = typed
        self.error = ""
        self.answered: str | None = None
        self.found: Sequence[Found] = ()
        self.table: Table[Found] = Table(_columns(()), lambda f: f.spec, lambda f: f.spec, empty="")

    @property
    def query(self) -> str:
        """The query."""
        return self.prompt.text.strip()

    def _changed(self, text: str) -> None:
        self.error = ""
        self._list()
        self.typed(self.query)

    def answer(self, query: str, found: Sequence[Found]) -> bool:
        """Take an answer; an answer to an earlier query is ignored."""
        if query != self.query:
            return False
        self.answered, self.found = query, found
        self._list()
        return True

    def _list(self) -> None:
        """The list: a complete spec as typed, then the results, with the best one selected."""
        query = self.query
        listed = list(self.found)
        whole = ":" in query and all(f.spec != query for f in listed)
        rows = [Found(query, AS_TYPED), *listed] if whole else listed
        best = next((f.spec for f in listed if f.spec == query), None)
        if best is None and listed:
            best = listed[0].spec
        means_it = whole and any(char in query for char in EXACT)
        self.table.set_columns(_columns(rows))
        self.table.selected = query if means_it or best is None else best
        self.table.feed(rows)

    def move(self, to: str) -> None:
        """Move the cursor."""
        self.table.move(to)

    def enter(self) -> bool:
        """Add the selected target; return True if that succeeded and ended the search."""
        row = self.table.current()
        if self.answered != self.query:
            # The list belongs to an earlier query, so only a complete spec is added.
            spec = self.query if ":" in self.query else None
        else:
            spec = row.spec if row is not None else None
        if not spec:
            return False
        self.error = self.add(spec) or ""
        return not self.error

    def status(self) -> tuple[str, str]:
        """The line below the list, and its style."""
        if self.error:
            return (self.error, "bad")
        if self.answered != self.query:
            return ("searching", "dim")
        if not self.found:
            return (f"no target matches '{self.query}'", "warn")
        count = len(self.found)
        return (f"{count} found; cost: time added to each call", "dim")

    def lines(self, cells: int, height: int, theme: Theme) -> list[Line]:
        """The dialog's content in exactly `height` lines."""
        text, style = self.status()
        said = [((" " + line, style),) for line in wrap(safe(text, theme.plain), cells - 2)][:3]
        room = max(1, height - 2 - len(said))
        rows = self.table.lines(cells, room, theme, focused=True) if self.table.rows else []
        blank: list[Line] = [()] * (room - len(rows))
        return [tuple(self.prompt.spans(theme.plain)), (), *rows, *blank, *said]
