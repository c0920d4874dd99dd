# SPDX-License-Identifier: Apache-2.0
"""What a terminal would show: as much of one as a dashboard that moves and writes needs."""

from __future__ import annotations

import codecs
import re

_TOKEN = re.compile(
    r"\x1b\[(?P<arguments>[0-9;?<>=]*)[ -/]*(?P<final>[@-~])"
    r"|\x1b[PX^_\]].*?(?:\x1b\\|\x07)|\x1b[ -/]*[0-OQ-WYZ\\`-~]"
    r"|(?P<control>[\x00-\x1a\x1c-\x1f])|(?P<text>[^\x00-\x1f]+)",
    re.DOTALL,
)
_LONGEST = 4096
"""What looks like a sequence that has not ended and is longer is none."""


class Screen:
    """The characters of a screen, without colours; wide ones count as one."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self._cells = [[" "] * columns for _ in range(rows)]
        self._row = self._column = 0
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._rest = ""

    def feed(self, data: bytes) -> None:
        """Take what a program has written."""
        text = self._rest + self._decode(data)
        at = 0
        while match := _TOKEN.match(text, at):
            at = match.end()
            if match["final"]:
                self._control(match["final"], match["arguments"])
            elif match["text"]:
                self._write(match["text"])
            elif match["control"] == "\r":
                self._column = 0
            elif match["control"] == "\n":
                self._row = min(self._row + 1, self.rows - 1)
        self._rest = text[at:] if len(text) - at < _LONGEST else ""

    def lines(self) -> list[str]:
        """What stands in each row."""
        return ["".join(row).rstrip() for row in self._cells]

    def _control(self, final: str, arguments: str) -> None:
        if final in "Hf":
            numbers = [int(word or 1) for word in arguments.split(";")] + [1]
            self._row = min(max(numbers[0], 1), self.rows) - 1
            self._column = min(max(numbers[1], 1), self.columns) - 1
        elif final == "G":
            self._column = min(max(int(arguments or 1), 1), self.columns) - 1
        elif final == "J":
            self._cells = [[" "] * self.columns for _ in range(self.rows)]
        elif final == "K":
            row = self._cells[self._row]
            row[self._column :] = [" "] * (self.columns - self._column)

    def _write(self, text: str) -> None:
        for char in text:
            if self._column < self.columns:
                self._cells[self._row][self._column] = char
                self._column += 1
