# SPDX-License-Identifier: Apache-2.0
"""The PMC pane's table and keys as a function of Frames, read without an application."""

from __future__ import annotations

import pytest

from probes.core.errors import ProbeError
from probes.pmc.sample import PmcSample
from tests.pilot.fake import failed
from tests.pilot.fake_pmc import NO_PMU
from tests.unit.pmc_feed import BASE, Feed, feed_counted
from tui.panes.pmc import BUSIEST, LINGER
from tui.shared.styled_lines import compose, line_text
from tui.shared.theme import ASCII, Theme


@pytest.fixture
def feed() -> Feed:
    return Feed()


# -- the table ------------------------------------------------------------------------------


def test_a_row_says_what_the_interval_held(feed: Feed) -> None:
    feed_counted(feed, BASE)
    assert feed.row("postgres") == {
        "pid": "7",
        "process": "postgres",
        "cpu": "50.0%",
        "cyc/s": "1.50G",
        "IPC": "0.40",
        "miss/ki": "30.0",
        "brmiss": "4.0%",
        "wait/s": "20ms",
        "ctx/s": "50",
        "flt/s": "12",
        "migr/s": "3.0",
        "slice": "10ms",
        "GHz": "3.00",
    }
    assert feed.headline() == "base  user+kernel  IPC 0.40  ran 100%  cpu 50.0%  ctx 90/s"


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (120, "pid process cpu cyc/s IPC miss/ki brmiss wait/s ctx/s flt/s migr/s slice GHz"),
        (80, "pid process cpu cyc/s IPC miss/ki brmiss wait/s ctx/s flt/s"),
        (59, "pid process cpu cyc/s IPC miss/ki brmiss"),
        (51, "pid process cpu cyc/s IPC miss/ki"),
        (40, "pid process cpu cyc/s IPC"),
    ],
)
def test_columns_go_by_importance(feed: Feed, width: int, columns: str) -> None:
    feed(2)
    assert feed.columns(width) == columns


@pytest.mark.parametrize(
    ("event_set", "own"),
    [
        ("base", "miss/ki brmiss"),
        ("cache", "miss/ki miss% L1d/ki LLC/ki"),
        ("branch", "brmiss brm/ki br/ki"),
        ("stalls", "back front bus/s"),
        ("tlb", "dTLB/ki dTLB% iTLB/ki"),
        ("custom", "r01b1/s my-event/s"),
    ],
)
def test_each_set_has_the_columns_that_it_is_read_for(feed: Feed, event_set: str, own: str) -> None:
    feed.fake.set = event_set
    feed(2)
    assert f" IPC {own} wait/s " in feed.columns(140)
    assert "-" not in feed.row("nginx", 140).values()


def test_scaled_values_are_marked_and_explained(feed: Feed) -> None:
    feed_counted(feed, BASE, 0.62, clock=1_000_000_000)
    row = feed.row("postgres")
    assert (row["cyc/s"], row["IPC"], row["miss/ki"]) == ("2.42G*", "0.40*", "30.0*")
    assert (row["cpu"], row["ctx/s"]) == ("100%", "50")
    assert "ran 62.0%" in feed.headline()
    assert " * scaled: more events than counters, each counted 62.0% of the time" in feed.texts()


def test_marks_do_not_make_columns_jump(feed: Feed) -> None:
    feed.fake.share = 0.9
    feed(2)
    wide = feed.heading()
    feed.fake.share = 1.0
    for _ in range(LINGER - 1):
        feed()
        assert feed.heading() == wide
        assert not any("*" in text for text in feed.texts())
    feed(2)
    assert feed.heading() != wide


def test_a_counter_that_never_ran_shows_no_number(feed: Feed) -> None:
    feed.fake.never = frozenset(["branch-misses"])
    feed(3)
    assert feed.row("postgres")["brmiss"] == "-"
    assert "1 never ran" in feed.headline()
    assert any("never ran, no counter was free: branch-misses" in t for t in feed.texts())


def test_a_poor_pmu_shows_what_it_has(feed: Feed) -> None:
    feed.fake.absent = dict.fromkeys(("cache-misses", "branches", "branch-misses"), "ENOENT")
    feed(3)
    assert feed.columns().startswith("pid process cpu cyc/s IPC wait/s")
    notes = feed.texts()
    assert any("not on this machine: cache-misses, branches, branch-misses" in t for t in notes)


def test_without_hardware_the_reason_is_a_note_and_the_rest_goes_on(feed: Feed) -> None:
    feed.fake.hardware = False
    feed(3)
    assert feed.headline().startswith("no hardware counters  cpu 4")
    row = feed.row("postgres")
    assert (row["cyc/s"], row["IPC"]) == ("-", "-")
    assert row["cpu"].endswith("%")
    assert row["wait/s"].endswith("ms")
    assert row["ctx/s"] != "-"
    assert f" {NO_PMU}" in feed.texts()
    assert "cyc/s" not in feed.columns(60)
    assert any("CPU use" in text for text in feed.texts())
    assert feed.pane.table.sort_by == 2


def test_software_events_of_the_users_own_need_no_hardware(feed: Feed) -> None:
    counts = {"page-faults": 12, "minor-faults": 9}
    more = {"hardware": False, "event_set": "custom", "reason": "none was asked for"}
    feed_counted(feed, counts, **more)
    row = feed.row("postgres")
    assert row["minor-fau/s"] == "9.0"
    assert row["flt/s"] == "12"
    assert " none was asked for" in feed.texts()


def test_quiet_processes_keep_their_rows_for_a_while(feed: Feed) -> None:
    feed(2)
    feed.fake.comms.pop(5012)
    feed()
    row = feed.row("node")
    assert (row["cpu"], row["cyc/s"], row["wait/s"]) == ("0.0%", "-", "-")
    feed(LINGER + 1)
    assert not any(" node " in text for text in feed.texts())


def test_rows_rest_while_values_change_a_little(feed: Feed) -> None:
    feed(2)
    order = [row.pid for row in feed.pane.table.rows]
    for _ in range(10):
        feed()
        assert [row.pid for row in feed.pane.table.rows][:6] == order[:6]


def test_many_that_ran_a_moment_ago_have_no_rows(feed: Feed) -> None:
    """One Frame of half a million processes would keep the screen busy for many more."""
    few = dict(feed.fake.comms)
    feed.fake.comms = {1000 + at: f"worker{at}" for at in range(BUSIEST + 100)}
    feed(2)
    feed.fake.comms = few
    feed()
    assert 0 < len(feed.pane.table.rows) <= BUSIEST
    assert len(feed.pane._quiet) <= BUSIEST


def test_the_busiest_of_many_and_a_filter_that_finds_the_others(feed: Feed) -> None:
    feed.fake.comms = {1000 + at: f"worker{at}" for at in range(BUSIEST + 100)}
    feed(3)
    assert any(f"the {BUSIEST} busiest; " in text for text in feed.texts())
    assert len(feed.pane.table.rows) == BUSIEST
    last = BUSIEST + 99
    feed.pane.set_filter(f"WORKER{last}")
    assert [row.pid for row in feed.pane.table.rows] == [1000 + last]
    assert feed.pane.selected_pid() == 1000 + last


# -- keys -----------------------------------------------------------------------------------


def test_g_goes_through_the_sets_and_u_through_the_modes(feed: Feed) -> None:
    feed(2)
    pane, source = feed.pane, feed.source
    assert pane.press("g")
    assert pane.press("g")
    assert pane.press("u")
    assert source.commands == [
        ("set_option", "pmc", "set", "cache"),
        ("set_option", "pmc", "set", "branch"),
        ("set_option", "pmc", "mode", "user"),
    ]
    feed.fake.option("set", "branch")
    feed.fake.option("mode", "user")
    feed(1)
    assert feed.headline().startswith("branch  user only  IPC")
    assert pane.press("g")
    assert source.commands[-1] == ("set_option", "pmc", "set", "stalls")
    feed.fake.option("set", "tlb")
    feed(1)
    pane.press("g")
    assert source.commands[-1] == ("set_option", "pmc", "set", "base")
    assert not pane.press("e")
    assert not pane.press("x")


def test_events_of_the_users_own_are_one_of_the_sets(feed: Feed) -> None:
    feed.fake.set = "custom"
    feed(2)
    assert "custom" in feed.headline()
    feed.pane.press("g")
    assert feed.source.commands[-1] == ("set_option", "pmc", "set", "base")
    feed.fake.option("set", "tlb")
    feed(2)
    feed.pane.press("g")
    assert feed.source.commands[-1] == ("set_option", "pmc", "set", "custom")


def test_what_a_recording_refuses_is_asked_again(feed: Feed) -> None:
    feed(2)
    feed.source.errors["set_option"] = ProbeError("this is a recording")
    for _ in range(2):
        with pytest.raises(ProbeError):
            feed.pane.press("g")
    assert {command[-1] for command in feed.source.commands} == {"cache"}


def test_a_failed_probe_and_one_that_is_off(feed: Feed) -> None:
    assert feed.texts() == [" starting: being compiled and attached"]
    assert not feed.pane.press("g")
    feed(2)
    feed(1, failed(PmcSample()))
    assert "EPERM" in feed.texts()[0]
    assert not feed.pane.enter()
    feed.pane.sort()
    feed.pane.move("down")
    assert feed.pane.selected_pid() is None
    feed(1, PmcSample(state="off"))
    assert feed.texts() == []


def test_what_processes_call_themselves_is_harmless_and_fits() -> None:
    for theme in (Theme(), Theme(glyphs=ASCII, plain=True)):
        feed = Feed()
        feed.pane.theme = theme
        feed(30)
        for _ in range(2):
            for width in (30, 59, 80, 120, 200):
                for height in (5, 11, 21, 38, 58):
                    for line in feed.lines(width, height):
                        text = line_text(compose(line, width, theme.plain))
                        assert "\x1b" not in text
                        assert not theme.plain or text.isascii()
            for _ in range(6):
                feed.pane.move("down")
            feed.pane.enter()


def test_without_hardware_there_is_nothing_to_choose_and_the_past_stays(feed: Feed) -> None:
    feed(2)
    assert [key for key, _ in feed.pane.hints()] == ["g", "u"]
    feed.fake.hardware = False
    feed(20)
    assert feed.pane.hints() == []
    drawn = sum([text.count("█") for text in feed.texts()[:10]])
    feed.fake.set = "tlb"
    feed(1)
    assert sum([text.count("█") for text in feed.texts()[:10]]) >= drawn
