# SPDX-License-Identifier: Apache-2.0
"""Titles keep figures whole: a number without its last digits is another number."""

from __future__ import annotations

from probes.execs.sample import ExecSample
from tests.unit.metrics_feed import frame
from tui.panes.execs import ExecPane
from tui.registry import REGISTRY
from tui.shared.styled_lines import Span, line_text
from tui.widgets.pane import _figures, _fitted

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


def test_what_is_kept_on_by_its_key_says_so() -> None:
    pane = ExecPane()
    first = frame(1.0, execs=ExecSample(state="on", execs=1))
    pane.update(None, first)
    pane.update(first, frame(2.0, execs=ExecSample(state="on", execs=3, kept_on=41.2)))
    found = _figures(pane, next(one for one in REGISTRY if one.name == "execs"))
    assert line_text(tuple(found)).endswith("kept on by key for 41 s")
    assert found[-1][1] == "warn"
