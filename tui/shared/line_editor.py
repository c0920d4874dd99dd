# SPDX-License-Identifier: Apache-2.0
"""A line editor: its text, its cursor, and its callbacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tui.shared.styled_lines import Span
from tui.shared.text import safe

MAX_TEXT = 500


@dataclass(slots=True)
class Prompt:
    """A prompt in the footer.

    `changed` is called on every change of the text. `submit` is called on Enter; it returns an
    error in one line, or None, which closes the prompt. `cancel` is called on Escape.
    """

    label: str
    submit: Callable[[str], str | None]
    cancel: Callable[[], None] = lambda: None
    changed: Callable[[str], None] = lambda text: None
    text: str = ""
    hint: str = ""
    error: str = ""
    cursor: int = field(default=-1)

    def __post_init__(self) -> None:
        if self.cursor < 0:
            self.cursor = len(self.text)

    def insert(self, text: str) -> None:
        """Insert text at the cursor, without its invisible characters."""
        text = "".join([char for char in text if char.isprintable()])
        text = text[: MAX_TEXT - len(self.text)]
        self._set(self.text[: self.cursor] + text + self.text[self.cursor :])
        self.cursor += len(text)

    def key(self, key: str) -> None:
        """Handle an editing key, by Textual's name; other keys do nothing."""
        at, text = self.cursor, self.text
        moves = {
            "left": at - 1,
            "right": at + 1,
            "home": 0,
            "ctrl+a": 0,
            "end": len(text),
            "ctrl+e": len(text),
        }
        if key in moves:
            self.cursor = max(0, min(len(text), moves[key]))
        elif key in ("backspace", "ctrl+h") and at:
            self.cursor = at - 1
            self._set(text[: at - 1] + text[at:])
        elif key in ("delete", "ctrl+d"):
            self._set(text[:at] + text[at + 1 :])
        elif key == "ctrl+u":
            self.cursor = 0
            self._set(text[at:])
        elif key == "ctrl+k":
            self._set(text[:at])
        elif key == "ctrl+w":
            start = text[:at].rstrip().rfind(" ") + 1
            self.cursor = start
            self._set(text[:start] + text[at:])

    def _set(self, text: str) -> None:
        if text == self.text:
            return
        self.text, self.error = text, ""
        self.changed(text)

    def spans(self, plain: bool) -> list[Span]:
        """The prompt's spans, with its cursor."""
        before, after = self.text[: self.cursor], self.text[self.cursor :]
        out: list[Span] = [
            (f" {self.label} ", "key"),
            (safe(before, plain), "text"),
            (safe(after[:1], plain) or " ", "cursor"),
            (safe(after[1:], plain), "text"),
        ]
        if not self.text and self.hint:
            out += [(f" {self.hint}", "dim")]
        return out
