# SPDX-License-Identifier: Apache-2.0
"""What the budget chose is drawn as a choice, never as a failure: on the screen and on pages."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from probes.core.frame import Frame
from probes.core.sample import Sample
from probes.latency.sample import LatencySample, Target
from tests.unit.metrics_feed import frame
from tui.export.html import snapshot_page
from tui.export.write import new_summarizer
from tui.registry import REGISTRY, Entry
from tui.shared.styled_lines import Line
from tui.shared.theme import Theme
from tui.widgets.header import HeaderState, header_line
from tui.widgets.pane import title_line

RED = {"bad", "error", "badge.bad"}
WHY = "over 2 % CPU (probe 75 %, nginx)"
CHOSEN = {
    "detached": Sample(
        state="failed", why=f"detached: {WHY}", fix="B lifts the budget", given_up="detached"
    ),
    "sampled": Sample(state="on", given_up=f"sampling 1 s in 64: {WHY}"),
    "nothing is wrong": Sample(state="on"),
}
FAILED = Sample(state="failed", why="there is no such tracepoint", fix="mount tracefs")


def frames(entry: Entry, sample: Sample) -> list[Frame]:
    """Two Frames of a probe in this state, the last with a target that was detached."""
    kind = entry.probe_class().sample_type
    made = kind(state=sample.state, why=sample.why, fix=sample.fix, given_up=sample.given_up)
    if isinstance(made, LatencySample) and sample is not FAILED:
        target = Target(spec="uprobe:f", state="failed", why=WHY, fix="press B", given_up=True)
        made = replace(made, targets={target.spec: target})
    return [frame(mono, **{entry.name: made}) for mono in (1.0, 2.0)]


def styles(entry: Entry, sample: Sample) -> set[str]:
    """All styles of the pane, its title and the header."""
    pane = entry.pane_class()()
    first, second = frames(entry, sample)
    pane.update(None, first)
    pane.update(first, second)
    lines: list[Line] = [title_line(pane, entry, 100, False, Theme())]
    lines += pane.lines(100, 20)
    lines += [header_line(HeaderState(second, first, lifts=True), w, Theme()) for w in (80, 200)]
    return {style for line in lines for _, style in line}


@pytest.mark.parametrize("state", CHOSEN)
@pytest.mark.parametrize("entry", REGISTRY, ids=lambda entry: entry.name)
def test_the_screen_draws_no_choice_of_the_budget_in_red(entry: Entry, state: str) -> None:
    assert not styles(entry, CHOSEN[state]) & RED


@pytest.mark.parametrize("entry", REGISTRY, ids=lambda entry: entry.name)
def test_the_screen_draws_a_failure_in_red(entry: Entry) -> None:
    assert styles(entry, FAILED) & RED


def classes(entry: Entry, sample: Sample) -> set[str]:
    """The classes of a page's elements."""
    summarizer = new_summarizer()
    for one in frames(entry, sample):
        summarizer.add(one)
    page = snapshot_page(summarizer.summary(), None)
    return {name for found in re.findall(r'class="([^"]*)"', page) for name in found.split()}


@pytest.mark.parametrize("state", CHOSEN)
@pytest.mark.parametrize("entry", REGISTRY, ids=lambda entry: entry.name)
def test_pages_draw_no_choice_of_the_budget_in_red(entry: Entry, state: str) -> None:
    assert not classes(entry, CHOSEN[state]) & RED
    assert classes(entry, FAILED) & RED
