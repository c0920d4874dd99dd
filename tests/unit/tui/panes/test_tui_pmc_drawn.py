# SPDX-License-Identifier: Apache-2.0
"""The PMC pane's graphs, and one process's counters."""

from __future__ import annotations

import pytest

from tests.unit.pmc_feed import Feed
from tui.panes.pmc_columns import BRANCHES, IPC, fmt_small


@pytest.fixture
def feed() -> Feed:
    return Feed()


# -- graphs ---------------------------------------------------------------------------------


def titles(feed: Feed) -> str:
    return next(text for text in feed.texts() if text.startswith((" IPC ", " CPU use")))


def test_graphs_are_of_the_machine_until_a_process_is_chosen(feed: Feed) -> None:
    feed(40)
    assert titles(feed).count("machine") == 2
    feed.pane.move("down")
    feed()
    row = feed.row("nginx")
    assert f" IPC {row['IPC']}  nginx 1203" in titles(feed)
    assert f"per 1000 instructions {row['miss/ki']}  nginx 1203" in titles(feed)
    assert sum([text.count("█") for text in feed.texts()[3:10]]) > 50
    feed.pane.move("home")
    assert titles(feed).count("machine") == 2


def test_another_set_begins_another_graph_and_an_unknown_past_is_empty(feed: Feed) -> None:
    feed(40)
    feed.fake.option("set", "tlb")
    feed(3)
    assert "dTLB-load-misses per 1000 instructions" in titles(feed)
    for text in feed.texts()[3:8]:
        assert text[8:50].strip() == ""
    feed.pane.reset()
    assert " - " in titles(feed)


def test_graphs_without_hardware_are_of_use_and_wait(feed: Feed) -> None:
    feed.fake.hardware = False
    feed(5)
    assert "CPU use 4" in titles(feed)
    assert "run-queue wait a second" in titles(feed)


def test_a_low_pane_has_no_graphs_and_a_very_low_one_has_the_table() -> None:
    feed = Feed()
    feed(5)
    assert not any("machine" in text for text in feed.texts(80, 12))
    for height in (1, 2, 3, 4, 6):
        assert len(feed.texts(80, height)) <= height
    assert feed.texts(80, 3)[0].split()[0] == "pid"
    assert len(feed.texts(80, 6)) == 6


# -- one process ----------------------------------------------------------------------------


def test_enter_shows_all_counters_of_a_process(feed: Feed) -> None:
    feed.fake.share = 0.62
    feed.fake.never = frozenset(["branch-misses"])
    feed.fake.absent = {"cache-misses": "not on this PMU (ENOENT)"}
    feed(3)
    assert feed.pane.enter()
    assert feed.pane.crumbs() == ["postgres 811"]
    assert feed.pane.selected_pid() == 811
    texts = feed.texts()
    rows = {text.split()[0]: text.split()[1:] for text in texts if text[1:].strip()}
    assert rows["cycles"][0].endswith("*")
    assert rows["cycles"][2] == "62.0%"
    assert rows["branches"][1:] == ["760", "62.0%"]
    assert rows["page-faults"][-1] == "100%"
    assert any("branch-misses" in t and "never ran: no counter was free for it" in t for t in texts)
    assert any("cache-misses " in t and "-  not on this PMU (ENOENT)" in t for t in texts)
    for kept in ("task clock", "run-queue wait", "context switches", "migrations"):
        assert any(text.startswith(f" {kept} ") for text in texts)
    assert any(IPC.why in text for text in texts)
    assert not feed.pane.enter()
    assert not feed.pane.drills
    assert feed.pane.back()
    assert not feed.pane.back()
    assert feed.columns().startswith("pid process")


def test_a_process_that_does_not_run_says_so_and_knows_no_counts(feed: Feed) -> None:
    feed(2)
    feed.pane.enter()
    del feed.fake.comms[811]
    feed()
    texts = feed.texts()
    assert " did not run in this interval" in texts
    assert any(text.startswith(" cycles") and "not counted in this" in text for text in texts)
    assert feed.pane.crumbs() == ["postgres 811"]


def test_counters_can_be_searched_sorted_and_walked(feed: Feed) -> None:
    feed(2)
    feed.pane.enter()
    feed.pane.set_filter("branch")
    assert [item.name for item in feed.pane.items.rows] == ["branches", "branch-misses"]
    feed.pane.move("down")
    assert feed.pane.items.current().name == "branch-misses"  # type: ignore[union-attr]
    feed.pane.set_filter("")
    feed.pane.sort()
    assert feed.pane.items.rows[0].name == "branch-misses"
    feed.pane.back()
    assert feed.pane.filter == ""
    assert len(feed.pane.table.rows) > 5


def test_rules_of_thumb() -> None:
    assert [IPC.style(value) for value in (None, 0.49, 0.5, 0.99, 1.0, 4.0)] == [
        "dim", "bad", "warn", "warn", "text", "text",
    ]  # fmt: skip
    assert [BRANCHES.style(value) for value in (None, 0.0, 0.04, 0.09)] == [
        "dim", "text", "warn", "bad",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0, "0.00"), (0.004, "<0.01"), (0.54, "0.54"), (9.994, "9.99"),
     (9.996, "10.0"), (99.96, "100"), (999.4, "999"), (1200.0, "1.20k")],
)  # fmt: skip
def test_ratios_have_at_most_five_cells(value: float | None, text: str) -> None:
    assert fmt_small(value) == text
