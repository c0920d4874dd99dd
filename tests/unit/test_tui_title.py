# SPDX-License-Identifier: Apache-2.0
"""Titles keep figures whole: a number without its last digits is another number."""

from __future__ import annotations

from tui.shared.styled_lines import Span, line_text
from tui.widgets.pane import _fitted

FIGURES: list[Span] = [
    ("lost 7  ", "bad"),
    ("40.9k", "value"),
    ("/s", "dim"),
    ("  err ", "dim"),
    ("6.01k", "error"),
    ("/s", "dim"),
    ("  no process ", "warn"),
    ("14.2k/s", "warn"),
]


def fitted(room: int) -> str:
    return line_text(tuple(_fitted(FIGURES, room, "…")))


def test_figures_are_cut_between_each_other() -> None:
    whole = "lost 7  40.9k/s  err 6.01k/s  no process 14.2k/s"
    assert fitted(len(whole)) == whole
    assert fitted(len(whole) - 1) == "lost 7  40.9k/s  err 6.01k/s …"
    assert fitted(30) == "lost 7  40.9k/s  err 6.01k/s …"
    assert fitted(29) == "lost 7  40.9k/s …"
    assert fitted(10) == "lost 7   …"
    assert fitted(5) == ""
    assert all(len(fitted(room)) <= room for room in range(60))
