# SPDX-License-Identifier: Apache-2.0
"""The PMC pane as a function of Frames and keys, read without an application."""

from __future__ import annotations

from dataclasses import replace

import pytest

from probes.base import ProbeError
from probes.pmc_view import PmcView, pmc_view
from probes.samples import (
    CpuTimes,
    Frame,
    Host,
    PmcSample,
    Reading,
    Sample,
    TaskTimes,
)
from tests.pilot.fake import PROCESSES, FakeSource, failed
from tests.pilot.fake_pmc import NO_PMU, FakePmc
from tui.lines import Line, compose, line_text, line_width
from tui.look import ASCII, Look
from tui.panes import cpu_strip
from tui.panes.pmc import BUSIEST, LINGER, PmcPane
from tui.panes.pmc_columns import BRANCHES, IPC, fmt_small


class Feed:
    """Feeds a pane with made-up samples, or with those that it is given."""

    def __init__(self, cpus: int = 8, sockets: int = 1) -> None:
        self.pane = PmcPane()
        self.source = FakeSource()
        self.pane.source = self.source
        self.fake = FakePmc(PROCESSES, cpus, sockets)
        self.tick = 0
        self.last: Frame | None = None

    def __call__(self, ticks: int = 1, sample: Sample | None = None) -> None:
        for _ in range(ticks):
            self.tick += 1
            frame = Frame(
                time=1e9 + self.tick,
                mono=float(self.tick),
                interval=1.0,
                host=Host(),
                samples={"pmc": sample or self.fake.sample(self.tick)},
            )
            self.pane.update(self.last, frame)
            self.last = frame

    def lines(self, width: int = 120, height: int = 30) -> list[Line]:
        return self.pane.lines(width, height, focused=True)

    def texts(self, width: int = 120, height: int = 30) -> list[str]:
        return [line_text(line).rstrip() for line in self.lines(width, height)]

    def heading(self, width: int = 120) -> str:
        texts = self.texts(width)
        return next(t for t in texts if t.split()[:2] in (["pid", "process"], ["counter", "/s"]))

    def columns(self, width: int = 120) -> str:
        return " ".join(self.heading(width).replace("▾", "").split())

    def row(self, word: str, width: int = 120) -> dict[str, str]:
        found = [text.split() for text in self.texts(width)[6:] if f" {word} " in text]
        return dict(zip(self.columns(width).split(), found[0], strict=True))

    def headline(self) -> str:
        return line_text(tuple(self.pane.headline()))


@pytest.fixture
def feed() -> Feed:
    return Feed()


def counted(
    counts: dict[str, int], share: float = 1.0, clock: int = 500_000_000, **more: object
) -> list[PmcSample]:
    """Two Samples a second apart, between which process 7 and CPU 0 counted this."""
    nothing = PmcSample(
        state="on",
        generation=1,
        hardware=True,
        events=tuple(counts),
        tasks={7: TaskTimes(0, 0, 0, 0)},
        readings={(7, event): Reading(0, 0, 0) for event in counts},
        cpus={0: CpuTimes(0, 0, 0, 0)},
        cpu_readings={(0, event): Reading(0, 0, 0) for event in counts},
        comms={7: "postgres"},
    )
    ran = {event: Reading(n, clock, int(clock * share)) for event, n in counts.items()}
    then = replace(
        nothing,
        tasks={7: TaskTimes(clock, 50, 3, 20_000_000)},
        readings={(7, event): reading for event, reading in ran.items()},
        cpus={0: CpuTimes(clock, 10**9 - clock, 90, 20_000_000)},
        cpu_readings={(0, event): reading for event, reading in ran.items()},
    )
    return [replace(sample, **more) for sample in (nothing, then)]  # type: ignore[arg-type]


def feed_counted(feed: Feed, *args: object, **more: object) -> None:
    for sample in counted(*args, **more):  # type: ignore[arg-type]
        feed(1, sample)


BASE = {
    "cycles": 1_500_000_000,
    "instructions": 600_000_000,
    "cache-misses": 18_000_000,
    "branches": 100_000_000,
    "branch-misses": 4_000_000,
    "page-faults": 12,
}


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


def test_the_busiest_of_many_and_a_filter_that_finds_the_others(feed: Feed) -> None:
    feed.fake.comms = {1000 + at: f"worker{at}" for at in range(BUSIEST + 100)}
    feed(3)
    assert any(f"the {BUSIEST} busiest; " in text for text in feed.texts())
    assert len(feed.pane.table.rows) == BUSIEST
    last = BUSIEST + 99
    feed.pane.set_filter(f"WORKER{last}")
    assert [row.pid for row in feed.pane.table.rows] == [1000 + last]
    assert feed.pane.selected_pid() == 1000 + last


# -- CPUs -----------------------------------------------------------------------------------


def view_of(cpus: int, sockets: int = 1, hardware: bool = True) -> PmcView:
    fake = FakePmc(PROCESSES, cpus, sockets)
    fake.hardware = hardware
    first = fake.sample(1)
    return pmc_view(first, fake.sample(2), 1.0)


def drawn(view: PmcView, width: int, rows: int, look: Look | None = None) -> list[str]:
    lines = cpu_strip.strip(view, width, rows, look or Look())
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
    assert {style for _, style in cpu_strip.strip(view, 80, 1, Look())[0]} <= {
        "", "dim", "bar", "text",
    }  # fmt: skip


def test_any_number_of_cpus_in_any_room_is_ascii_where_it_must_be() -> None:
    look = Look(glyphs=ASCII, plain=True)
    for cpus in (1, 2, 3, 7, 16, 31, 64, 100, 256, 300):
        view = view_of(cpus, min(cpus, 4))
        for width in (20, 40, 59, 80, 120, 200):
            for rows in (1, 2, 4, 8):
                assert "".join(drawn(view, width, rows, look)).isascii()


def test_a_cpu_whose_use_is_not_known_is_no_idle_one() -> None:
    view = view_of(64)
    view.cpus[3].clock = view.cpus[3].idle = 0
    assert drawn(view, 59, 2)[0].split()[1][3] == "?"
    view = view_of(2)
    view.cpus[1].clock = view.cpus[1].idle = 0
    assert drawn(view, 80, 1)[0].split()[-1] == "-"


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
    for look in (Look(), Look(glyphs=ASCII, plain=True)):
        feed = Feed()
        feed.pane.look = look
        feed(30)
        for _ in range(2):
            for width in (30, 59, 80, 120, 200):
                for height in (5, 11, 21, 38, 58):
                    for line in feed.lines(width, height):
                        text = line_text(compose(line, width, look.plain))
                        assert "\x1b" not in text
                        assert not look.plain or text.isascii()
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
