# SPDX-License-Identifier: Apache-2.0
"""The latency pane as a function of Frames and keys, read without an application."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from probes.core import histogram as hdr
from probes.core.errors import ProbeError
from probes.core.frame import Frame, Host
from probes.core.sample import Histogram, Sample
from probes.latency.sample import LatencySample, Spent, Target
from tests.pilot.fake import HOSTILE_COMM, FakeSource, failed
from tests.pilot.fake_latency import BROKEN, FakeLatency
from tui.panes.latency import VIEWS, LatencyPane
from tui.panes.targets import label
from tui.shared.styled_lines import Line, compose, line_text, line_width
from tui.shared.theme import ASCII, Theme


class Feed:
    """Feeds a pane with made-up samples, or with those that it is given."""

    def __init__(self) -> None:
        self.pane = LatencyPane()
        self.source = FakeSource()
        self.pane.source = self.source
        self.fake = FakeLatency({811: "postgres", 1203: "nginx", 6001: HOSTILE_COMM})
        self.tick = 0
        self.last: Frame | None = None

    def __call__(self, ticks: int = 1, sample: Sample | None = None) -> LatencySample:
        for _ in range(ticks):
            self.tick += 1
            latency = sample or self.fake.sample(self.tick)
            frame = Frame(
                time=1e9 + self.tick,
                mono=float(self.tick),
                interval=1.0,
                host=Host(),
                samples={"latency": latency},
            )
            self.pane.update(self.last, frame)
            self.last = frame
        assert self.last is not None
        latency = self.last.samples["latency"]
        assert isinstance(latency, LatencySample)
        return latency

    def texts(self, width: int = 120, height: int = 24) -> list[str]:
        return [line_text(line).rstrip() for line in self.lines(width, height)]

    def lines(self, width: int = 120, height: int = 24) -> list[Line]:
        return self.pane.lines(width, height, focused=True)

    def row(self, word: str, width: int = 120) -> list[str]:
        return next(text for text in self.texts(width) if word in text).split()

    def headline(self) -> str:
        return line_text(tuple(self.pane.headline()))


@pytest.fixture
def feed() -> Feed:
    return Feed()


def target(spec: str, durations: dict[int, int], **more: object) -> Target:
    n, total = sum(durations.values()), sum([d * k for d, k in durations.items()])
    histogram = Histogram({d: k for d, k in durations.items() if d < 32}, n, total)
    made = Target(spec=spec, mechanism="uprobe", state="on", histogram=histogram)
    return replace(made, **more)  # type: ignore[arg-type]


def sample(*targets: Target, **more: object) -> LatencySample:
    made = LatencySample(state="on", generation=1, targets={t.spec: t for t in targets})
    return replace(made, **more)  # type: ignore[arg-type]


def test_a_row_says_what_the_interval_held(feed: Feed) -> None:
    feed(1, sample(target("f", {})))
    feed(1, sample(target("f", {10: 50, 20: 40, 30: 10}, missed=4, overflow=2)))
    heading = feed.texts()[0].split()
    shown = dict(zip(heading, feed.row(" uprobe "), strict=True))
    assert shown == {
        "target": "f",
        "how": "uprobe",
        "calls/s": "100",
        "p50": "10ns",
        "p90": "20ns",
        "p99": "30ns",
        "p99.9": "30ns",
        "max": "30ns",
        "mean": "16ns",
        "time/s": "1.6us",
        "miss/s": "6.0",
    }
    assert feed.headline() == "1 target  100 calls/s  missed 4.0/s  overflow 2.0/s"


def test_an_interval_without_calls_shows_dashes(feed: Feed) -> None:
    still = sample(target("f", {10: 50}))
    feed(2, still)
    assert feed.row(" uprobe ")[2:] == ["0", "-", "-", "-", "-", "-", "-", "-", "0"]
    assert any("no call has ended yet" in text for text in feed.texts())


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (120, "target how calls/s p50 p90 p99 p99.9 max mean time/s miss/s"),
        (80, "target calls/s p50 p99 max time/s"),
        (60, "target calls/s p50 p99 max"),
    ],
)
def test_columns_go_by_importance(feed: Feed, width: int, columns: str) -> None:
    feed(2)
    assert feed.texts(width)[0].split() == columns.split()


def test_short_names_leave_room_for_more_columns_at_80(feed: Feed) -> None:
    feed(2, sample(target("runq", {10: 1}), target("softirq", {10: 1})))
    for column in ("how", "p90", "p99.9", "mean", "time/s"):
        assert column in feed.texts(80)[0]


def test_a_long_spec_is_cut_in_the_middle(feed: Feed) -> None:
    feed(2)
    assert any("uprobe:/usr/l…n/postgres:exec_simple_query" in t for t in feed.texts(80))


def test_a_maximum_that_is_a_bound_says_so(feed: Feed) -> None:
    buckets = {hdr.index(1_000_000): 2, 5: 1}
    bound = target("bound", {}, histogram=Histogram(buckets, 3, 2_000_005))
    peak = {3: 1_001_000}
    exact = target("exact", {}, histogram=Histogram(buckets, 3, 2_000_005, peak))
    feed(1, sample(target("bound", {}), target("exact", {})))
    feed(1, sample(bound, exact))
    assert "<=1.0ms" in feed.row(" bound ")
    assert "1.0ms" in feed.row(" exact ")
    assert "<=1.0ms" not in feed.row(" exact ")


def test_durations_near_the_floor_are_marked_and_explained(feed: Feed) -> None:
    feed(1, sample(target("f", {}, floor=9.0)))
    feed(1, sample(target("f", {10: 90, 30: 10}, floor=9.0)))
    row = feed.row(" uprobe ")
    assert row[3:6] == ["~10ns", "~10ns", "30ns"]
    assert any("~ near the probe's own floor of 9ns" in text for text in feed.texts())
    feed.pane.press("v")
    feed(1, sample(target("f", {10: 90, 30: 110}, floor=9.0)))
    assert not any("~" in text for text in feed.texts())


def test_what_only_counts_has_calls_and_dashes(feed: Feed) -> None:
    feed(1, sample(target("t", {}, counts_only=True)))
    feed(1, sample(target("t", {}, counts_only=True, histogram=Histogram({}, 70, 0))))
    assert feed.row(" uprobe ")[2:] == ["70", "-", "-", "-", "-", "-", "-", "-", "0"]
    assert any("only counted" in text for text in feed.texts())


def test_a_failed_target_says_why_in_its_row_and_in_full_when_selected(feed: Feed) -> None:
    feed(2, sample(target("a", {10: 1}), BROKEN))
    assert "1 failed" in feed.headline()
    row = " ".join(feed.row("charge_crad"))
    assert "failed: /opt/shop/bin/checkout has no symbol 'charge_crad': near names:" in row
    assert not any(text.startswith(" near names") for text in feed.texts(80))
    feed.pane.move("down")
    for height in (24, 8):
        shown = feed.texts(80, height)
        assert any(text.startswith(" near names: charge_card, charge_cart") for text in shown)
    assert not feed.pane.enter()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_replaced_file_is_said_in_the_title_and_of_the_selected_target(
    feed: Feed, width: int
) -> None:
    one, two = target("a:b", {10: 5}), target("c:d", {10: 5})
    feed(2, sample(one, two))
    before = feed.texts(width)
    assert ("a", "follow file") not in feed.pane.hints()
    assert not feed.pane.press("a")
    feed(1, sample(one, replace(two, file="replaced")))
    after = feed.texts(width)
    assert "1 file replaced" in feed.headline()
    # Nothing but the name's colour says it of a target that is not selected.
    assert after[:3] == before[:3]
    assert ("c:d", "warn") in [(t.strip(), s) for line in feed.lines(width) for t, s in line]
    assert not feed.pane.press("a")
    feed.pane.move("down")
    assert " file replaced: new processes run another; a follows it" in feed.texts(width)
    assert ("a", "follow file") in feed.pane.hints()
    assert "a" in [key for key, _ in feed.pane.options()]
    assert feed.pane.press("a")
    assert feed.source.commands == [("set_option", "latency", "follow", "c:d")]
    feed.pane.enter()
    assert feed.pane.press("a")


def test_a_deleted_file_is_said_and_cannot_be_followed(feed: Feed) -> None:
    feed(2, sample(replace(target("a:b", {10: 5}), file="deleted")))
    assert "1 file deleted" in feed.headline()
    said = " file deleted: processes that run it are still traced"
    assert said in feed.texts()
    assert not feed.pane.press("a")
    assert feed.source.commands == []
    for state in ("current", None):
        feed(1, sample(replace(target("a:b", {10: 9}), file=state)))
        assert "file" not in feed.headline()
        assert not any("file" in text for text in feed.texts())


def test_a_recording_names_no_key_for_a_replaced_file(feed: Feed) -> None:
    feed.source.live = False
    feed(2, sample(replace(target("a:b", {10: 5}), file="replaced")))
    assert " file replaced: new processes run another" in feed.texts()


def test_starting_removing_and_none_at_all(feed: Feed) -> None:
    feed(2, sample(Target(spec="a:b"), target("c", {10: 1})))
    assert feed.row("a:b")[-1] == "starting"
    feed.pane.move("down")
    assert feed.pane.press("d")
    assert feed.source.commands == [("set_option", "latency", "remove", "c")]
    assert feed.row(" c ")[-1] == "removing"
    feed(1, sample())
    assert "no targets: press f" in feed.texts()[1]
    assert feed.headline() == "0 targets  0 calls/s"
    assert not feed.pane.press("d")
    assert feed.pane.hints() == [("v", "view")]


@pytest.mark.parametrize("key", ["d", "delete", "backspace"])
def test_a_target_that_cannot_be_removed_stays(feed: Feed, key: str) -> None:
    feed(2)
    feed.source.errors["set_option"] = ProbeError("a recording cannot be changed")
    with pytest.raises(ProbeError):
        feed.pane.press(key)
    assert "removing" not in "".join(feed.texts())


def test_the_processes_behind_a_target_and_back(feed: Feed) -> None:
    before = sample(target("f", {}), comms={1: "one", 2: HOSTILE_COMM})
    after = sample(
        target("f", {20: 10, 10: 20}),
        comms=before.comms,
        processes={("f", 1): Spent(20, 200), ("f", 2): Spent(10, 200), ("g", 3): Spent(9, 9)},
    )
    feed(1, before)
    feed(1, after)
    assert feed.pane.enter()
    assert feed.pane.crumbs() == ["f"]
    assert not feed.pane.drills
    heading = feed.texts()[0].split()
    assert heading == ["pid", "process", "calls/s", "▾time/s", "mean", "share"]
    assert feed.row("one")[:6] == ["1", "one", "20", "200ns", "10ns", "50.0%"]
    assert feed.row("pwn")[:6] == ["2", "\\e[31mpwn\\a", "10", "200ns", "20ns", "50.0%"]
    assert not any(" 3 " in text for text in feed.texts()[:4])
    assert feed.pane.selected_pid() == 1
    # Nothing is removed from here, and who goes quiet stays for a while.
    assert not feed.pane.press("d")
    feed(1, after)
    assert feed.row("one")[:6] == ["1", "one", "0", "0ns", "-", "0.0%"]
    feed(12, after)
    assert any("no process called it" in text for text in feed.texts())
    assert feed.pane.back()
    assert not feed.pane.back()
    assert feed.pane.crumbs() == []


def test_texts_stand_in_the_place_of_processes(feed: Feed) -> None:
    by_text = target("q", {}, by_text=True)
    after = sample(
        target("q", {20: 10, 10: 20}, by_text=True),
        texts={("q", "SELECT 1"): Spent(20, 200), ("q", HOSTILE_COMM): Spent(10, 200)},
    )
    feed(1, sample(by_text))
    feed(1, after)
    assert feed.pane.enter()
    heading = feed.texts()[0].split()
    assert heading == ["text", "calls/s", "▾time/s", "mean", "share"]
    assert feed.row("SELECT 1")[:6] == ["SELECT", "1", "20", "200ns", "10ns", "50.0%"]
    assert feed.row("pwn")[:3] == ["\\e[31mpwn\\a", "10", "200ns"]
    assert feed.pane.selected_pid() is None
    feed(12, after)
    assert any("no call in this interval" in text for text in feed.texts())


def test_values_have_no_unit_of_time(feed: Feed) -> None:
    feed(1, sample(target("t@bytes", {}, unit="")))
    feed(1, sample(target("t@bytes", {10: 50, 20: 40, 30: 10}, unit="", floor=None)))
    heading = feed.texts()[0].split()
    shown = dict(zip(heading, feed.row(" uprobe "), strict=True))
    assert (shown["p50"], shown["p99"], shown["mean"], shown["time/s"]) == (
        "10",
        "30",
        "16",
        "1.60k",
    )
    screen = feed.texts(120, 30)
    assert any("values, not durations" in text for text in screen)
    # The axes count in plain numbers.
    assert ["5", "10", "20", "50"] in [text.split() for text in screen]
    assert not any("ns" in text.replace("durations", "") for text in screen[1:])


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        ("usdt:/a:p:begin,usdt:/a:p:end@arg0", "usdt:/a:p:begin,end@arg0"),
        ("usdt:/a:p:begin,usdt:/b:p:end", "usdt:/a:p:begin,usdt:/b:p:end"),
        ("usdt:/a:p:n@arg0,str(arg1)", "usdt:/a:p:n@arg0,str(arg1)"),
        ("tracepoint:block:x,tracepoint:block:y", "tracepoint:block:x,y"),
        ("uprobe:/a,b:f", "uprobe:/a,b:f"),
        ("runq", "runq"),
    ],
)
def test_what_both_ends_share_stands_once(spec: str, shown: str) -> None:
    assert label(spec) == shown


def test_a_target_that_goes_takes_the_view_of_its_processes_along(feed: Feed) -> None:
    feed(2)
    feed.pane.enter()
    feed.fake.remove("runq")
    feed(1)
    assert feed.pane.crumbs() == []


def test_the_cursor_goes_to_what_was_added_as_soon_as_it_is_there(feed: Feed) -> None:
    feed(2)
    feed.pane.select("uprobe:libc:free")
    feed(1)
    feed.fake.add("uprobe:libc:free")
    feed(1)
    selected = feed.pane.selected()
    assert selected is not None
    assert selected.spec == "uprobe:libc:free"


def test_v_goes_through_the_views(feed: Feed) -> None:
    feed(4)
    seen = []
    for view in VIEWS:
        assert feed.pane.shows == view
        text = "\n".join(feed.texts())
        seen.append(("calls in 1 s" in text, "over time" in text))
        assert feed.pane.press("v")
    assert seen == [(True, True), (True, False), (False, True), (False, False)]
    assert feed.pane.shows == VIEWS[0]


def test_a_filter_finds_targets_and_then_processes(feed: Feed) -> None:
    feed(3)
    feed.pane.set_filter("fentry")
    assert [row.spec for row in feed.pane.table.rows] == ["fentry:vfs_*"]
    feed.pane.set_filter("")
    feed.pane.enter()
    feed.pane.set_filter("811")
    assert [row.process.pid for row in feed.pane.processes.rows] == [811]
    assert feed.pane.selected() is not None


def test_sorting_targets_and_processes(feed: Feed) -> None:
    feed(3)
    feed.texts()
    assert feed.pane.table.rows[0].spec == "runq"
    for _ in range(3):
        feed.pane.sort()
    assert "▾calls/s" in feed.texts()[0]
    assert feed.pane.table.rows[0].spec == "uprobe:libc:malloc"
    feed.pane.enter()
    feed.texts()
    feed.pane.sort()
    assert "▾mean" in feed.texts()[0]


def test_switching_off_leaves_a_gap_of_that_time(feed: Feed) -> None:
    feed(5)
    assert feed.pane.drawings.heat.tick == 4
    feed(1)
    feed.pane.reset()
    assert feed.pane.drawings.heat.tick == 0
    feed(3)
    feed.last = None
    off = LatencySample(state="off")
    feed(10, off)
    assert feed.texts() == []
    feed(3)
    # The first after it has none before it to be compared with.
    assert feed.pane.drawings.heat.tick == 3 + 10 + 1 + 2
    ends = [moment.time for moment in feed.pane.drawings.heat.moments]
    assert [b - a for a, b in pairwise(ends)] == [1.0] * (len(ends) - 1)
    feed(1, replace(sample(), **{k: getattr(failed(off), k) for k in ("state", "why", "fix")}))
    assert "EPERM" in " ".join(feed.texts())


HUGE = Target(
    spec="\x1b]0;owned\x07:[red]x[/]\u202e" + "y" * 300,
    mechanism="uprobe",
    state="on",
    functions=64,
    histogram=Histogram({1279: 10**15, 0: 1, 700: 10**9}, 10**15 + 10**9 + 1, 10**30),
)


@pytest.mark.parametrize("themes", [Theme(), Theme(many=True), Theme(ASCII, False, True)])
def test_everything_fits_and_is_harmless(feed: Feed, themes: Theme) -> None:
    feed.pane.theme = themes
    many = [target(f"uprobe:lib{at}:function_{at}", {10: at}) for at in range(100)]
    nothing = sample(replace(HUGE, histogram=Histogram({}, 0, 0)), BROKEN)
    for first, then in (
        (
            nothing,
            sample(
                HUGE, BROKEN, comms={7: HOSTILE_COMM}, processes={(HUGE.spec, 7): Spent(9, 10**30)}
            ),
        ),
        (sample(), sample(*many)),
        (sample(), sample()),
    ):
        feed(1, first)
        feed(2, then)
        for drilled in (False, True):
            if drilled:
                feed.pane.enter()
            for width in (12, 20, 39, 60, 80, 120, 200, 333):
                for height in (1, 2, 5, 6, 13, 14, 18, 22, 28, 58):
                    lines = feed.lines(width, height)
                    assert len(lines) <= height
                    for line in lines:
                        drawn = compose(line, width, themes.plain)
                        assert line_text(drawn).isprintable()
                        assert line_width(drawn) == width
                        assert not themes.plain or line_text(drawn).isascii()
        feed.pane.back()


def test_drawings_never_overflow_their_half(feed: Feed) -> None:
    feed(90)
    for width in (72, 80, 119, 160, 200):
        for height in (14, 20, 30, 58):
            assert all(line_width(line) <= width for line in feed.lines(width, height)[9:])


def test_a_hundred_targets_can_all_be_reached(feed: Feed) -> None:
    many = [target(f"f{at:03}", {10: at}) for at in range(100)]
    feed(2, sample(*many))
    feed.pane.move("end")
    assert any("f099" in text for text in feed.texts(200, 28))
    # So many stand beside the drawings, in all of the height.
    assert feed.texts(200, 28)[-1].split()[0] == "f099"


def test_a_wildcard_of_which_some_are_only_counted_says_so(feed: Feed) -> None:
    why = "timed 1 of 2 functions; 1 counted only: g: an exception"
    feed(1, sample(target("?", {}, why=why)))
    feed(1, sample(target("?", {10: 50}, why=why)))
    for size in ((80, 24), (120, 40)):
        assert why in " ".join(feed.texts(*size))


def test_what_is_only_counted_for_its_own_good_says_so(feed: Feed) -> None:
    why = "counted only: an exception through it would abort the program"
    fix = "--force-timing if you know that none comes"
    spared = target("f", {}, counts_only=True, why=why, fix=fix)
    feed(1, sample(spared))
    feed(1, sample(replace(spared, histogram=Histogram({}, 70, 0))))
    for size in ((80, 24), (60, 12)):
        text = " ".join(" ".join(feed.texts(*size)).split())
        assert why in text
        assert fix in text
