# SPDX-License-Identifier: Apache-2.0
"""The bytes that reach the terminal: only changed cells, the shortest way."""

from __future__ import annotations

from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from tui.terminal.compositor import CellsUpdate

RED = Style.parse("red")
CONSOLE = Console(color_system="standard", force_terminal=True)


def update(spans: list[tuple[int, int, int]], *strips: Strip) -> str:
    """The bytes for spans of lines that are one strip of 20 cells each."""
    chops = [{0: strip} for strip in strips]
    return CellsUpdate(chops, spans, [[20]] * len(strips)).render_segments(CONSOLE)


def line(*parts: tuple[str, Style | None]) -> Strip:
    return Strip([Segment(text, style) for text, style in parts])


def test_a_run_in_the_middle_begins_where_it_changed() -> None:
    strip = line(("0123456789abcdefghij", None))
    assert update([(0, 5, 8)], strip) == "\x1b[1;6H567"


def test_a_second_run_of_a_line_moves_by_column_only() -> None:
    strip = line(("0123456789abcdefghij", None))
    assert update([(0, 1, 2), (0, 15, 17)], strip) == "\x1b[1;2H1\x1b[16Gfg"


def test_styles_are_sent_when_they_change_and_end_in_the_default() -> None:
    strip = line(("ab", RED), ("cd", None), ("e" * 16, RED))
    assert update([(0, 0, 6)], strip) == "\x1b[1;1H\x1b[31mab\x1b[mcd\x1b[31mee\x1b[m"


def test_a_style_that_goes_on_is_not_repeated() -> None:
    strip = line(("a" * 20, RED))
    assert update([(0, 0, 2), (0, 10, 12)], strip) == "\x1b[1;1H\x1b[31maa\x1b[11Gaa\x1b[m"


def test_lines_below_each_other_and_widgets_side_by_side() -> None:
    both = line(("x" * 20, None))
    assert update([(0, 0, 1), (1, 0, 1)], both, both) == "\x1b[1;1Hx\x1b[2;1Hx"
    chops: list[dict[int, Strip | None]] = [{0: line(("l" * 10, None)), 10: line(("r" * 10, None))}]
    whole = CellsUpdate(chops, [(0, 8, 12)], [[10, 20]]).render_segments(CONSOLE)
    assert whole == "\x1b[1;9Hllrr"


def test_after_wide_characters_the_column_is_said_again() -> None:
    chops: list[dict[int, Strip | None]] = [
        {0: line(("日本" + " " * 6, None)), 10: line(("r" * 10, None))}
    ]
    whole = CellsUpdate(chops, [(0, 0, 12)], [[10, 20]]).render_segments(CONSOLE)
    assert whole == "\x1b[1;1H日本      \x1b[11Grr"
