# SPDX-License-Identifier: Apache-2.0
"""The bottom line: keys, a prompt, or a message."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual import events

from tui.shared.keys import Hint
from tui.shared.line_editor import Prompt
from tui.shared.styled_lines import Line, Span, line_width
from tui.shared.text import fit, safe, width
from tui.shared.theme import Theme
from tui.widgets.cells import CellWidget


def hints_line(
    hints: Sequence[Hint], last: Sequence[Hint], cells: int, first: Sequence[Span] = ()
) -> Line:
    """The hints in `first`, as many others as fit, and always those in `last`."""
    end: list[Span] = _spans(last)
    out: list[Span] = [(" ", ""), *first]
    for hint in hints:
        more = _spans([hint])
        if line_width(out) + line_width(more) + line_width(end) > cells:
            break
        out += more
    return (*out, *end)


def _spans(hints: Sequence[Hint]) -> list[Span]:
    out: list[Span] = []
    for key, what in hints:
        out += [(key, "key"), (f" {what}  ", "dim")]
    return out


class FooterBar(CellWidget):
    """The keys that apply now; a message for some seconds; a prompt while it is open.

    A `notice` precedes the keys while it is current; it is called with the number of free cells.
    The footer never takes Textual's focus, which arrives after a delay: text that follows "/"
    quickly would still run commands. The application passes keys in order instead.
    """

    def __init__(self, theme: Theme) -> None:
        super().__init__(theme, widget_id="footer")
        self.hints: list[Hint] = []
        self.last: list[Hint] = []
        self.message: Span | None = None
        self.notice: Callable[[int], str] | None = None
        self.prompt: Prompt | None = None
        self.resized: Callable[[], None] = self.repaint

    @property
    def rows(self) -> int:
        """Two lines while the typed text has an error, else one."""
        return 2 if self.prompt is not None and self.prompt.error else 1

    def draw(self, columns: int, rows: int) -> list[Line]:
        """Draw the line, below the error of the typed text."""
        if self.prompt is not None:
            line = tuple(self.prompt.spans(self.theme.plain))
            error = self.prompt.error
            return [((" " + error, "bad"),), line] if error else [line]
        if self.message is not None:
            text, style = self.message
            edge = _spans(self.last)
            said = safe(text, self.theme.plain)
            room = columns - 3 - line_width(edge)
            # If both do not fit, a message replaces the keys.
            if width(said) > room:
                return [((" ", ""), (said, style))]
            return [((" ", ""), (fit(said, room + 2), style), *edge)]
        first: list[Span] = []
        if self.notice is not None:
            room = columns - 3 - line_width(_spans(self.last))
            first = [(self.notice(room), "warn"), ("  ", "")]
        return [hints_line(self.hints, self.last, columns, first)]

    def open(self, prompt: Prompt) -> None:
        """Open a prompt."""
        self.prompt = prompt
        self.message = None
        self.repaint()

    def close(self) -> None:
        """Close the prompt."""
        self.prompt = None
        self.resized()

    def take(self, event: events.Key) -> bool:
        """Take a key while the prompt is open; return False while it is closed."""
        prompt = self.prompt
        if prompt is None:
            return False
        if event.key == "escape":
            prompt.cancel()
            self.close()
        elif event.key == "enter":
            wrong = prompt.submit(prompt.text)
            if wrong is None:
                self.close()
            else:
                prompt.error = wrong
        elif event.is_printable and event.character:
            prompt.insert(event.character)
        else:
            prompt.key(event.key)
        self.resized()
        return True

    def paste(self, text: str) -> None:
        """Insert pasted text at the prompt's cursor, if it is open."""
        if self.prompt is not None:
            self.prompt.insert(text)
            self.resized()
