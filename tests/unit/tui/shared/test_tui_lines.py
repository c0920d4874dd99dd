# SPDX-License-Identifier: Apache-2.0
"""Lines: exactly as wide as asked, harmless, and compared cell by cell."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tui.shared.styled_lines import Line, changed_runs, compose, line_text, line_width, to_cells
from tui.shared.theme import ASCII, CONSOLE, UNICODE, Theme, bar, choose, graph, nice_ceiling

SPANS = st.lists(
    st.tuples(st.text("ab 日\u202e\x1b", max_size=8), st.sampled_from(["", "bad", "selected"])),
    max_size=6,
).map(tuple)


@given(SPANS, st.integers(1, 30))
def test_compose_is_exact(line: Line, cells: int) -> None:
    out = compose(line, cells)
    assert line_width(out) == cells == len(to_cells(out))
    assert line_text(out).isprintable()


@given(SPANS, SPANS, st.integers(1, 30))
def test_the_runs_turn_the_old_cells_into_the_new(old: Line, new: Line, cells: int) -> None:
    before, after = to_cells(compose(old, cells)), to_cells(compose(new, cells))
    runs = changed_runs(compose(old, cells), compose(new, cells))
    for start, end in runs:
        before[start:end] = after[start:end]
        # No run begins or ends inside a wide character.
        assert after[start][0] != ""
        assert end == len(after) or after[end][0] != ""
    assert before == after


def test_only_what_changed_is_a_run() -> None:
    old, new = compose([("read     100  10", "")], 40), compose([("read     101  10", "")], 40)
    assert changed_runs(old, new) == [(11, 12)]
    assert changed_runs(old, old) == []


def test_small_gaps_are_bridged_and_large_ones_are_not() -> None:
    old = compose([("1   2          3", "")], 20)
    new = compose([("4   5          6", "")], 20)
    assert changed_runs(old, new) == [(0, 5), (15, 16)]


def test_a_blank_is_a_blank_whatever_its_colour_unless_its_background_shows() -> None:
    plain, dim = compose([("    ", "")], 4), compose([("    ", "dim")], 4)
    assert changed_runs(plain, dim) == []
    assert changed_runs(plain, compose([("    ", "selected")], 4)) == [(0, 4)]


def test_bars_and_graphs_use_the_steps_that_a_terminal_has() -> None:
    assert bar(0.5, 4, UNICODE) == "██  "
    assert bar(0.28, 4, UNICODE) == "█▏  "
    assert bar(0.5, 4, ASCII) == "##  "
    assert bar(2.0, 3, ASCII) == "###"
    assert graph([None, 0, 1, 2], 6, 1, UNICODE) == ["    ▄█"]
    assert graph([2, 1], 2, 2, ASCII) == ["# ", "##"]
    assert graph([0.001, 100], 2, 1, CONSOLE) == ["▄█"]


@given(st.floats(1, 1e12))
def test_a_scale_is_at_most_two_and_a_half_times_too_large(value: float) -> None:
    top = nice_ceiling(value)
    assert value <= top <= 2.5 * value


def test_scales() -> None:
    assert [nice_ceiling(v) for v in (0.5, 1, 3, 7, 10, 11, 480)] == [1, 1, 5, 10, 10, 20, 500]


def test_the_look_follows_the_terminal() -> None:
    assert choose(environ={}).glyphs is UNICODE
    assert choose(environ={"TERM": "linux"}).glyphs is CONSOLE
    assert choose(True, {}).plain
    theme = choose(environ={"NO_COLOR": ""})
    assert not theme.colour
    for name in ("title", "bad", "warn", "bar", "proc"):
        style = theme.style(name)
        assert style is None or style.color is None
    assert Theme().style("bad") is not None


ALIGNED = st.lists(
    st.tuples(
        st.sampled_from(["", "bad", "selected"]),
        st.text("ab 1", min_size=4, max_size=4),
        st.text("ab 1", min_size=4, max_size=4),
    ),
    max_size=5,
)


@given(ALIGNED)
def test_spans_of_the_same_places_are_compared_as_their_cells_are(
    spans: list[tuple[str, str, str]],
) -> None:
    old = tuple((text, style) for style, text, _ in spans)
    new = tuple((text, style) for style, _, text in spans)
    before, after = to_cells(old), to_cells(new)
    differ = {at for at, cell in enumerate(after) if cell != before[at]}
    runs = changed_runs(old, new, gap=1)
    assert {at for start, end in runs for at in range(start, end)} == differ
