# SPDX-License-Identifier: Apache-2.0
"""Text for terminals: harmless, measured, of steady width."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len, get_character_cell_size

from tui.shared.text import (
    clip,
    fit,
    fmt_count,
    fmt_ns,
    fmt_percent,
    fmt_seconds,
    safe,
    shorten,
    width,
    wrap,
)

ANY_TEXT = st.text(st.characters(codec=None), max_size=60)
"""Every code point, surrogates among them."""


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31mred", "\\e[31mred"),
        ("\x1b]0;title\x07", "\\e]0;title\\a"),
        ("a\tb\nc\rd", "a\\tb\\nc\\rd"),
        ("\x9b31m", "\\x9b31m"),
        ("\udcff\udc80", "\\xff\\x80"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\u200bb", "a\\u200bb"),
        ("e\u0301", "\u00e9"),
        ("x\u0332", "x\\u0332"),
        ("\U0001f1e9", "\\U0001f1e9"),
        ("日本", "日本"),
        ("[red]x[/]", "[red]x[/]"),
        ("\x00", "\\x00"),
    ],
)
def test_what_would_not_show_as_itself_is_escaped(raw: str, shown: str) -> None:
    assert safe(raw) == shown


@given(ANY_TEXT)
def test_safe_text_is_printable_and_each_character_has_cells_of_its_own(raw: str) -> None:
    text = safe(raw)
    assert text.isprintable()
    assert all(get_character_cell_size(char) in (1, 2) for char in text)
    assert width(text) == cell_len(text) == sum(map(get_character_cell_size, text))
    assert safe(text) == text
    text.encode("utf-8")


@given(ANY_TEXT)
def test_plain_text_is_ascii(raw: str) -> None:
    text = safe(raw, plain=True)
    assert text.isascii()
    assert text.isprintable()


@given(ANY_TEXT.map(safe), st.integers(0, 40))
def test_fit_is_exact_even_where_a_wide_character_is_cut(text: str, cells: int) -> None:
    assert width(fit(text, cells)) == cells
    assert width(fit(text, cells, right=True)) == cells
    assert width(clip(text, cells, "…")) <= cells


def test_a_cut_is_marked() -> None:
    assert fit("abcdef", 4, mark="…") == "abc…"
    assert fit("日本語", 4, mark="…") == "日… "
    assert fit("abcd", 4, mark="…") == "abcd"


def test_wrap_breaks_at_spaces_and_inside_long_words() -> None:
    assert wrap("one two three", 7) == ["one two", "three"]
    assert wrap("abcdefghij k", 4) == ["abcd", "efgh", "ij k"]
    assert wrap("", 4) == [""]
    assert wrap("日本語", 4) == ["日本", "語"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (0, "0"),
        (0.0, "0"),
        (7, "7"),
        (3.4, "3.4"),
        (9.97, "10"),
        (38.2, "38"),
        (999.4, "999"),
        (999.6, "1.00k"),
        (4242, "4.24k"),
        (30_123, "30.1k"),
        (812_345.0, "812k"),
        (999_700, "1.00M"),
        (1_204_000, "1.20M"),
        (10**10, "10.0G"),
        (-1500, "-1.50k"),
    ],
)
def test_counts_have_three_digits(value: float | None, shown: str) -> None:
    assert fmt_count(value) == shown


@given(st.floats(0, 1e20))
def test_counts_fit_five_cells(value: float) -> None:
    assert len(fmt_count(value)) <= 5


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (0, "0ns"),
        (830, "830ns"),
        (2_149, "2.1us"),
        (9_960, "10us"),
        (310_000, "310us"),
        (12_000_000, "12ms"),
        (999_700_000, "1.0s"),
        (2.5e9, "2.5s"),
        (42e9, "42s"),
        (125e9, "2m05"),
        (3723e9, "62m03"),
        (7323e9, "2h02"),
        (5e5 * 1e9, "5d18"),
    ],
)
def test_durations(value: float | None, shown: str) -> None:
    assert fmt_ns(value) == shown


@given(st.floats(0, 8e16))
def test_durations_fit_five_cells(value: float) -> None:
    assert len(fmt_ns(value)) <= 5


@pytest.mark.parametrize(
    ("value", "shown"), [(0.97, "1"), (1.04, "1"), (0.5, "0.5"), (0.1, "0.1"), (10.02, "10")]
)
def test_the_length_of_an_interval_rests(value: float, shown: str) -> None:
    assert fmt_seconds(value) == shown


@pytest.mark.parametrize(
    ("text", "cells", "shown"),
    [
        ("uprobe:/usr/bin/bash:readline", 17, "uprob…sh:readline"),
        ("short", 5, "short"),
        ("日本語プロセス", 9, "日…ロセス"),
        ("abcdef", 3, "ab…"),
    ],
)
def test_the_middle_is_what_can_be_spared(text: str, cells: int, shown: str) -> None:
    assert shorten(text, cells, "…") == shown
    assert width(shown) <= cells


def test_a_share_of_nothing_is_unknown() -> None:
    assert fmt_percent(1, 0) == "-"
    assert fmt_percent(None, 5) == "-"
    assert fmt_percent(371, 1000) == "37.1%"
    assert fmt_percent(5, 5) == "100%"
