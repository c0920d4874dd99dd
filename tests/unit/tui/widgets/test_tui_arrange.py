# SPDX-License-Identifier: Apache-2.0
"""Where panes go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tui.widgets.layout import Place, Want, arrange

OPEN, OFF = Want(True), Want(False)


@given(
    st.integers(20, 300),
    st.integers(3, 100),
    st.lists(
        st.builds(Want, st.booleans(), st.integers(1, 9), st.integers(3, 9)), min_size=1, max_size=9
    ),
    st.data(),
)
def test_places_tile_the_body(
    width: int, height: int, wants: list[Want], data: st.DataObject
) -> None:
    focus = data.draw(st.integers(0, len(wants) - 1))
    taken: set[tuple[int, int]] = set()
    for place in arrange(width, height, wants, focus):
        if place is None:
            continue
        cells = {
            (x, y)
            for x in range(place.x, place.x + place.width)
            for y in range(place.y, place.y + place.height)
        }
        assert not cells & taken
        taken |= cells
        assert place.x >= 0
        assert place.y >= 0
        assert place.x + place.width <= width
        assert place.y + place.height <= height
    if any(want.is_open for want in wants):
        assert len(taken) == width * height


def test_narrow_stacks_and_wide_stands_side_by_side() -> None:
    assert arrange(80, 22, [OPEN, OPEN], 0) == [Place(0, 0, 80, 11), Place(0, 11, 80, 11)]
    assert arrange(120, 38, [OPEN, OPEN], 0) == [Place(0, 0, 120, 19), Place(0, 19, 120, 19)]
    assert arrange(200, 58, [OPEN, OPEN], 0) == [
        Place(0, 0, 100, 58, wall=True),
        Place(100, 0, 100, 58),
    ]


def test_four_panes_make_a_square_and_an_odd_one_takes_a_row() -> None:
    assert arrange(120, 38, [OPEN] * 4, 0) == [
        Place(0, 0, 60, 19, wall=True),
        Place(60, 0, 60, 19),
        Place(0, 19, 60, 19, wall=True),
        Place(60, 19, 60, 19),
    ]
    assert arrange(120, 38, [OPEN] * 3, 0)[2] == Place(0, 19, 120, 19)


def test_off_panes_fold_to_a_title_at_the_bottom() -> None:
    assert arrange(80, 22, [OFF, OPEN], 1) == [Place(0, 21, 80, 1), Place(0, 0, 80, 21)]


def test_without_room_the_pane_in_focus_is_the_last_to_fold() -> None:
    places = arrange(80, 12, [OPEN] * 4, 2)
    heights = [place.height if place else 0 for place in places]
    assert heights == [1, 1, 9, 1]


def heights(width: int, height: int, wants: list[Want], focus: int) -> list[int]:
    return [place.height if place else 0 for place in arrange(width, height, wants, focus)]


def test_four_panes_on_a_small_screen_fold_one_and_give_way_to_the_one_in_focus() -> None:
    assert heights(80, 22, [OPEN] * 4, 0) == [9, 6, 6, 1]
    assert heights(80, 22, [OPEN] * 4, 3) == [6, 6, 1, 9]
    assert heights(80, 34, [OPEN] * 4, 1) == [6, 16, 6, 6]
    # Those that are not low are alike, and so they are when none of them has the focus.
    assert heights(80, 44, [OPEN] * 4, 1) == [11, 11, 11, 11]
    assert heights(80, 23, [OPEN] * 3 + [OFF], 3) == [7, 7, 8, 1]


def test_zoom_hides_the_others() -> None:
    assert arrange(80, 22, [OPEN, OPEN], 1, zoomed=True) == [None, Place(0, 0, 80, 22)]
