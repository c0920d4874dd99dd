# SPDX-License-Identifier: Apache-2.0
"""The line at the bottom: keys, or what is being typed, or what went wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual import events

from tui.shared.keys import Hint
from tui.shared.line_editor import Prompt
from tui.shared.styled_lines import Line, Span, line_width
from tui.shared.text import fit, safe, width
from tui.shared.theme import Look
from tui.widgets.cells import CellWidget


def hints_line(
    hints: Sequence[Hint], last: Sequence[Hint], cells: int, first: Sequence[Span] = ()
) -> Line:
    """What comes `first`, as many hints as fit, and the `last` ones always."""
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
    """Keys that do something now; a message for some seconds; a prompt while it is open.

    A `notice` stands before the keys for as long as it is true; it is told how many cells it has.

    It never has Textual's focus: that comes some time after it was asked for, and what is typed
    quickly after "/" would still be commands. The application hands over keys in their order.
    """

    def __init__(self, look: Look) -> None:
        super().__init__(look, widget_id="footer")
        self.hints: list[Hint] = []
        self.last: list[Hint] = []
        self.message: Span | None = None
        self.notice: Callable[[int], str] | None = None
        self.prompt: Prompt | None = None
        self.resized: Callable[[], None] = self.repaint

    @property
    def rows(self) -> int:
        """Two while something is wrong with what was typed, else one."""
        return 2 if self.prompt is not None and self.prompt.error else 1

    def draw(self, columns: int, rows: int) -> list[Line]:
        """The one line, below what is wrong with it."""
        if self.prompt is not None:
            line = tuple(self.prompt.spans(self.look.plain))
            error = self.prompt.error
            return [((" " + error, "bad"),), line] if error else [line]
        if self.message is not None:
            text, style = self.message
            edge = _spans(self.last)
            said = safe(text, self.look.plain)
            room = columns - 3 - line_width(edge)
            # What went wrong is more than two keys, where there is not room for both.
            if width(said) > room:
                return [((" ", ""), (said, style))]
            return [((" ", ""), (fit(said, room + 2), style), *edge)]
        first: list[Span] = []
        if self.notice is not None:
            room = columns - 3 - line_width(_spans(self.last))
            first = [(self.notice(room), "warn"), ("  ", "")]
        return [hints_line(self.hints, self.last, columns, first)]

    def open(self, prompt: Prompt) -> None:
        """Begin to take a line."""
        self.prompt = prompt
        self.message = None
        self.repaint()

    def close(self) -> None:
        """Give the keyboard back."""
        self.prompt = None
        self.resized()

    def take(self, event: events.Key) -> bool:
        """Every key goes to the prompt while it is open; False while it is not."""
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
        """Put text in at the prompt's cursor, if it is open."""
        if self.prompt is not None:
            self.prompt.insert(text)
            self.resized()
