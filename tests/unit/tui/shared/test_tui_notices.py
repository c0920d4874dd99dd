# SPDX-License-Identifier: Apache-2.0
"""The words for what has gone: as many as fit, nothing that acts on a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.core.frame import Filters, Frame, Host, Notice
from tests.unit import strategies as own
from tui.shared import notices
from tui.shared.notices import FOLLOWED_SECONDS, current, fitting, has_gone
from tui.shared.styled_lines import line_text
from tui.shared.text import safe, width
from tui.shared.theme import Theme
from tui.widgets.footer import hints_line
from tui.widgets.header import HeaderState, header_line

NOON = 1.7e9
PATH = "/kubepods.slice/kubepods-burstable.slice/kubepods-pod1234.slice/cri-0123456789ab.scope"
ENDED = Notice("process_ended", NOON, 4242, "nginx")
REMOVED = Notice("cgroup_removed", NOON, cgroup="/a/b")
FOLLOWED = Notice("cgroup_followed", NOON, cgroup="/a/b")
LOOK = Theme()


@pytest.fixture(autouse=True, scope="module")
def _utc() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def frame(*gone: Notice, at: float = NOON, **fields: object) -> Frame:
    made = Frame(time=at, mono=1.0, interval=1.0, host=Host("web-3"), notices=gone)
    return replace(made, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("notice", "cells", "words"),
    [
        (ENDED, 62, "process 4242 (nginx) ended 22:13:20: p ends the filter"),
        (ENDED, 50, "process 4242 ended 22:13:20: p ends the filter"),
        (REMOVED, 120, "cgroup /a/b was removed 22:13:20: nothing is counted until it is made "
                       "again, F changes the filter"),
        (REMOVED, 80, "cgroup /a/b was removed 22:13:20: nothing is counted until it is made "
                      "again"),
        (REMOVED, 62, "cgroup /a/b was removed 22:13:20: nothing is counted"),
        (REMOVED._replace(cgroup=PATH), 62,
         "cgroup /kub...9ab.scope was removed 22:13:20: nothing is counted"),
        (FOLLOWED, 62, "cgroup /a/b was made again 22:13:20, and is counted"),
        (FOLLOWED._replace(seconds=0.25), 120, "cgroup /a/b was made again 22:13:20, and is "
                                               "counted; not counted for up to 250ms before"),
        (FOLLOWED._replace(seconds=0.25), 62,
         "cgroup /a/b was made again 22:13:20, and is counted"),
    ],
)  # fmt: skip
def test_as_many_words_as_fit(notice: Notice, cells: int, words: str) -> None:
    said = fitting(notice, LOOK, True, cells)
    assert said.replace(LOOK.glyphs.more, "...") == words
    assert width(said) <= max(cells, width(words))


def test_keys_are_named_only_where_they_do_something() -> None:
    assert fitting(ENDED, LOOK, False, 100) == "process 4242 (nginx) ended 22:13:20"
    assert "F changes" not in fitting(REMOVED, LOOK, False, 200)


@given(own.notices, st.integers(0, 200), st.booleans())
def test_any_notice_fits_and_is_harmless(notice: Notice, cells: int, acts: bool) -> None:
    said = fitting(notice, LOOK, acts, cells)
    assert width(said) <= cells
    assert safe(said) == said


def test_a_name_with_braces_is_a_name() -> None:
    assert "({}%s)" in fitting(ENDED._replace(comm="{}%s"), LOOK, True, 100)


def test_what_stands_and_what_is_old_news() -> None:
    later = NOON + FOLLOWED_SECONDS + 1
    assert current(frame(ENDED, at=later)) == [ENDED]
    assert current(frame(FOLLOWED)) == [FOLLOWED]
    assert current(frame(FOLLOWED, at=later)) == []
    assert current(frame(ENDED, REMOVED._replace(time=NOON + 1)))[0].kind == "cgroup_removed"
    # Of a newer version.
    assert current(frame(ENDED._replace(kind="something new"))) == []
    assert (has_gone(frame(REMOVED)), has_gone(frame(FOLLOWED)), has_gone(frame())) == (
        True,
        False,
        False,
    )
    assert notices.of(None, LOOK, True) is None


def test_the_footer_keeps_its_last_keys_and_as_many_others_as_fit() -> None:
    hints, last = [("1-4", "toggle"), ("f", "find")], [("?", "help"), ("q", "quit")]
    first = [(fitting(ENDED, LOOK, True, 62), "warn"), ("  ", "")]
    narrow = line_text(hints_line(hints, last, 80, first))
    assert narrow == (" process 4242 (nginx) ended 22:13:20: p ends the filter  ? help  q quit  ")
    wide = line_text(hints_line(hints, last, 120, first))
    assert wide.index("ended") < wide.index("1-4 toggle") < wide.index("f find")


@pytest.mark.parametrize("columns", [80, 120])
def test_the_header_says_the_same_words_in_another_colour(columns: int) -> None:
    """Nothing in it moves when the process ends."""
    alive = frame(filters=Filters(pid=4242))
    before = header_line(HeaderState(alive), columns, LOOK)
    after = header_line(HeaderState(replace(alive, notices=(ENDED,))), columns, LOOK)
    assert line_text(before) == line_text(after)
    assert ("pid=4242", "warn") in before
    assert ("pid=4242", "bad") in after
