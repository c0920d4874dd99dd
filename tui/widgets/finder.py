# SPDX-License-Identifier: Apache-2.0
"""The search dialog: it searches while the user types, and Enter adds the selected target."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual import events
from textual.message import Message
from textual.timer import Timer

from probes.core.errors import ProbeError
from probes.source import Found
from tui.shared.styled_lines import Line, compose
from tui.shared.theme import Theme
from tui.widgets.cells import CellWidget
from tui.widgets.target_search import Finder

PAUSE = 0.08
"""Seconds without a key before a query is sent to the source."""
WIDEST, HIGHEST = 110, 22
MOVES = ("up", "down", "pageup", "pagedown")
Search = Callable[[str, Callable[[Sequence[Found]], None]], None]


class SearchAnswered(Message):
    """The search result of a query; the user may have typed another query since."""

    def __init__(self, query: str, found: Sequence[Found]) -> None:
        super().__init__()
        self.query = query
        self.found = found


class FinderOverlay(CellWidget):
    """A box over the panes that takes every key while it is open."""

    DEFAULT_CSS = """
    FinderOverlay { layer: overlay; position: absolute; display: none; }
    """

    def __init__(self, theme: Theme) -> None:
        super().__init__(theme, widget_id="finder")
        self.finder: Finder | None = None
        self._search: Search = lambda query, on_found: None
        self._timer: Timer | None = None

    def open(self, search: Search, add: Callable[[str], str | None]) -> None:
        """Open the dialog. `search` may answer from any thread; `add` takes a spec."""
        self._search = search
        self.finder = Finder(add, self._typed)
        self.place(self.screen.size.width, self.screen.size.height)
        self.display = True
        # The lines on the screen belong to the previous search.
        self._drawn = []
        self._ask()

    def place(self, columns: int, rows: int) -> None:
        """Place the box in the middle of a screen of this size."""
        width, height = min(columns, WIDEST), min(max(3, rows - 2), HIGHEST)
        self.styles.offset = ((columns - width) // 2, max(0, (rows - height) // 2))
        self.styles.width, self.styles.height = width, height

    def close(self) -> None:
        """Close the box; later answers are ignored."""
        self.finder = None
        self.display = False

    def _typed(self, query: str) -> None:
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(PAUSE, self._ask)

    def _ask(self) -> None:
        finder = self.finder
        if finder is None:
            return
        query = finder.query

        def on_found(found: Sequence[Found]) -> None:
            # The answer may belong to an earlier dialog, of another host.
            if finder is self.finder:
                self.post_message(SearchAnswered(query, found))

        try:
            self._search(query, on_found)
        except ProbeError as error:
            finder.answer(query, ())
            finder.error = str(error)
        self.repaint()

    def on_search_answered(self, message: SearchAnswered) -> None:
        """Show the result, unless the query has changed."""
        message.stop()
        if self.finder is not None and self.finder.answer(message.query, message.found):
            self.repaint()

    def take(self, event: events.Key) -> bool:
        """Take a key while the dialog is open; return False while it is closed."""
        finder = self.finder
        if finder is None:
            return False
        if event.key == "escape" or (event.key == "enter" and finder.enter()):
            self.close()
            return True
        if event.key in MOVES:
            finder.move(event.key)
        elif event.is_printable and event.character:
            finder.prompt.insert(event.character)
        else:
            finder.prompt.key(event.key)
        self.repaint()
        return True

    def paste(self, text: str) -> bool:
        """Insert pasted text at the cursor; return False while the dialog is closed."""
        if self.finder is None:
            return False
        self.finder.prompt.insert(text)
        self.repaint()
        return True

    def draw(self, columns: int, rows: int) -> list[Line]:
        """Draw the box."""
        if self.finder is None:
            return []
        glyphs, inner = self.theme.glyphs, columns - 2
        rule = glyphs.rule_focus
        title = f"{rule} Find what to time {rule} enter adds, esc closes "
        wall = (glyphs.wall, "rule.focus")
        body = self.finder.lines(inner, rows - 2, self.theme)
        return [
            ((title + rule * columns, "rule.focus"),),
            *[(wall, *compose(line, inner, self.theme.plain), wall) for line in body],
            ((rule * columns, "rule.focus"),),
        ]
