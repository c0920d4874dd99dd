# SPDX-License-Identifier: Apache-2.0
"""CPUs in a few lines: any number of them in any room."""

from __future__ import annotations

from dataclasses import replace

import pytest

from probes.pmc.view import PmcView, pmc_view
from tests.pilot.fake import PROCESSES
from tests.pilot.fake_pmc import FakePmc
from tui.panes import cpu_strip
from tui.shared.styled_lines import compose, line_text, line_width
from tui.shared.theme import ASCII, Theme


def view_of(cpus: int, sockets: int = 1, hardware: bool = True) -> PmcView:
    fake = FakePmc(PROCESSES, cpus, sockets)
    fake.hardware = hardware
    first = fake.sample(1)
    return pmc_view(first, fake.sample(2), 1.0)


def drawn(view: PmcView, width: int, rows: int, theme: Theme | None = None) -> list[str]:
    lines = cpu_strip.strip(view, width, rows, theme or Theme())
    assert len(lines) <= rows
    for line in lines:
        assert line_width(line) <= width
        assert line_text(compose(line, width)).rstrip() == line_text(line).rstrip()
    return [line_text(line) for line in lines]


def test_two_cpus_have_wide_bars() -> None:
    (line,) = drawn(view_of(2), 120, 1)
    words = line.split()
    assert words[0] == "cpu0"
    assert "cpu1" in words
    assert line.count("█") > 30
    assert words[-1].endswith("%")


@pytest.mark.parametrize(
    ("cpus", "width", "rows"), [(8, 59, 3), (8, 80, 1), (16, 80, 4), (48, 200, 6)]
)
def test_more_have_short_ones(cpus: int, width: int, rows: int) -> None:
    text = "\n".join(drawn(view_of(cpus), width, rows))
    assert len([word for word in text.split() if word.isdigit()]) == cpus


@pytest.mark.parametrize(("cpus", "width", "rows"), [(256, 80, 4), (256, 200, 2), (64, 59, 2)])
def test_hundreds_have_a_cell_each(cpus: int, width: int, rows: int) -> None:
    lines = drawn(view_of(cpus, 2), width, rows)
    assert len(lines) == rows
    cells = "".join([line.split(maxsplit=1)[1] for line in lines]).replace(" ", "")
    assert len(cells) == cpus
    assert [int(line.split()[0]) for line in lines] == list(range(0, cpus, cpus // rows))


def test_more_than_fit_have_a_line_for_each_socket_or_one_for_all() -> None:
    view = view_of(256, 2)
    lines = drawn(view, 59, 3)
    assert [line.split()[:3] for line in lines] == [["socket", "0", "128"], ["socket", "1", "128"]]
    (line,) = drawn(view, 59, 1)
    assert line.split()[:3] == ["all", "256", "cpus"]
    unknown = replace(view, cpus=[replace(row, socket=None) for row in view.cpus])
    assert len(drawn(unknown, 59, 3)) == 1
    assert drawn(view, 59, 0) == []


def test_without_hardware_bars_have_no_ipc() -> None:
    view = view_of(2, hardware=False)
    (line,) = drawn(view, 80, 1)
    assert len(line.split()) == 6
    assert {style for _, style in cpu_strip.strip(view, 80, 1, Theme())[0]} <= {
        "", "dim", "bar", "text",
    }  # fmt: skip


def test_any_number_of_cpus_in_any_room_is_ascii_where_it_must_be() -> None:
    theme = Theme(glyphs=ASCII, plain=True)
    for cpus in (1, 2, 3, 7, 16, 31, 64, 100, 256, 300):
        view = view_of(cpus, min(cpus, 4))
        for width in (20, 40, 59, 80, 120, 200):
            for rows in (1, 2, 4, 8):
                assert "".join(drawn(view, width, rows, theme)).isascii()


def test_a_cpu_whose_use_is_not_known_is_no_idle_one() -> None:
    view = view_of(64)
    view.cpus[3].clock = view.cpus[3].idle = 0
    assert drawn(view, 59, 2)[0].split()[1][3] == "?"
    view = view_of(2)
    view.cpus[1].clock = view.cpus[1].idle = 0
    assert drawn(view, 80, 1)[0].split()[-1] == "-"
