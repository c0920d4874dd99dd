# SPDX-License-Identifier: Apache-2.0
"""How measurements become tables, and pictures of the screen files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest

from bench import measure
from bench.cost import (
    BEGIN,
    END,
    README,
    RESULTS,
    Table,
    as_markdown,
    as_text,
    difference_table,
)
from bench.screen import _SEQUENCE
from tui.export.picture import tight


def test_the_fastest_round_counts_and_is_compared_with_nothing() -> None:
    turns = measure.Turns({"nothing": [90.0, 80.0], "a": [131.26, 140.0], "b": [99.0, 79.5]}, 0)
    title, head, rows = difference_table("A call", "ns", turns)
    assert (title, head) == ("A call", ("attached", "ns", "added ns"))
    assert rows == [("nothing", "80.0", "-"), ("a", "131.3", "+51.3"), ("b", "79.5", "-0.5")]


def test_disturbed_measurements_are_said() -> None:
    turns = measure.Turns({"nothing": [1.0, 1.0], "a": [2.0, 2.0]}, 3)
    assert difference_table("A call", "ns", turns)[0] == (
        "A call (in 3 of 4 measurements others traced as well)"
    )


def test_tables_for_readers_and_terminals() -> None:
    table: Table = ("Title", ("what", "ns"), [("one", "1.0"), ("eleven", "11.0")])
    assert as_markdown(table) == (
        "## Title\n\n| what | ns |\n| --- | ---: |\n| one | 1.0 |\n| eleven | 11.0 |\n"
    )
    assert as_text(table) == "Title\n  what      ns\n  one      1.0\n  eleven  11.0\n"


def test_variants_take_turns_and_strangers_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    programs: set[int] = set()
    order: list[str] = []

    @contextmanager
    def ours() -> Iterator[None]:
        order.append("ours")
        programs.add(1)
        yield
        programs.clear()

    def timing() -> float:
        order.append("measure")
        if len(order) == 4:  # the second round's first
            programs.add(99)
        return float(len(order))

    monkeypatch.setattr(measure, "ALONE_SECONDS", 0.0)
    monkeypatch.setattr(measure, "tracing_programs", lambda: set(programs))
    turns = measure.take_turns({"none": nullcontext, "ours": ours}, timing, 2, lambda text: None)
    assert order == ["measure", "ours", "measure", "measure", "ours", "measure"]
    assert turns.values == {"none": [1.0, 4.0], "ours": [3.0, 6.0]}
    # The stranger came during one measurement and was there before the next.
    assert turns.disturbed == 2


def test_terminal_sequences_leave_the_text() -> None:
    screen = b"\x1b[?1049h\x1b[1;36mprobe\x1b[0mtop\x1b]0;title\x07 \x1bP+q\x1b\\\x1b(Bshare"
    assert _SEQUENCE.sub(b"", screen) == b"probetop share"


def test_blanks_around_a_text_of_a_picture_become_its_place() -> None:
    pattern = r'x="([\d.]+)"( y="[\d.]+") textLength="([\d.]+)"([^>]*)>([^<]*)'
    text = '<text x="12.2" y="20" textLength="73.2" c="d">&#160;a&#160;&lt;&#160;&#160;</text>'
    assert re.sub(pattern, tight, text) == (
        '<text x="24.4" y="20" textLength="36.6" c="d">a&#160;&lt;</text>'
    )


def test_the_readme_quotes_no_figure_that_was_not_measured() -> None:
    text = README.read_text(encoding="utf-8")
    quoted = text.partition(BEGIN)[2].partition(END)[0]
    rows = [line for line in quoted.splitlines() if line.startswith("| ")]
    measured = RESULTS.read_text(encoding="utf-8").splitlines()
    assert len(rows) > 10
    assert [row for row in rows if row not in measured] == []
