# SPDX-License-Identifier: Apache-2.0
"""How measurements become tables, and pictures of the screen files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest

from bench import cost, goals, hooks, measure, peers, tables, variants
from bench.budget import DEFAULT, LOST, NOTHING, SETTLED, SHORT, SILENT, WORST
from bench.measure import BenchError, Turns, Variant
from bench.screen import _SEQUENCE
from bench.tables import Table
from tui.export.picture import tight


def variant(name: str, beside: str = "") -> Variant:
    return Variant(name, f"{name}'s", nullcontext, beside)


def test_medians_count_and_are_compared_within_each_round() -> None:
    which = [variant("nothing"), variant("a"), variant("b", "a"), variant("c", "gone")]
    values = {
        "nothing": [90.0, 80.0, 100.0],
        "a": [140.0, 131.0, 152.0],
        "b": [165.0, 182.0, 204.0],
        "c": [90.0, 79.5, 101.0],
    }
    title, head, rows = tables.added_table("A call", "ns", which, Turns(values, 0, {}))
    assert title == "A call"
    assert head == ("attached", "counts", "ns", "added ns", "75 % interval", "compared")
    assert rows == [
        ("nothing", "nothing's", "90.0", "-", "-", "-"),
        ("a", "a's", "140.0", "+51.0", "+50.0 to +52.0", "-"),
        ("b", "b's", "182.0", "+102.0", "+75.0 to +104.0", "2.00 (1.50 to 2.00) x a"),
        ("c", "c's", "90.0", "+0.0", "-0.5 to +1.0", "-"),
    ]


def test_disturbed_measurements_are_said_and_what_is_left_out_has_no_row() -> None:
    turns = Turns({"nothing": [1.0, 1.0], "a": [2.0, 2.0]}, 3, {"b": "no headers"})
    which = [variant("nothing"), variant("a", "b"), variant("b")]
    title, _, rows = tables.added_table("A call", "ns", which, turns)
    assert title == "A call (in 3 of 4 measurements others traced as well)"
    assert [row[0] for row in rows] == ["nothing", "a"]


def test_tables_for_readers_and_terminals() -> None:
    table: Table = ("Title", ("what", "ns"), [("one", "1.0"), ("eleven", "11.0")])
    assert tables.as_markdown(table) == (
        "## Title\n\n| what | ns |\n| --- | ---: |\n| one | 1.0 |\n| eleven | 11.0 |\n"
    )
    assert tables.as_text(table) == "Title\n  what      ns\n  one      1.0\n  eleven  11.0\n"
    assert tables.for_readme([table, table]).startswith("**Title**\n\n| what | ns |\n")
    assert tables.for_readme([table, table]).count("**Title**") == 2


def test_figures_of_a_table_are_found_by_its_other_columns() -> None:
    table: Table = (
        "T",
        ("who", "the size", "MB"),
        [("a", "big", "1.5"), ("b", "big", "-"), ("a", "small", "+2")],
    )
    assert tables.figure(table, "MB", who="a", the_size="small") == 2.0
    assert tables.figures(table, "MB", who="a") == [1.5, 2.0]
    assert tables.figure(table, "MB", who="b") is None
    assert tables.figure(table, "kB", who="a") is None
    assert tables.figure(None, "MB", who="a") is None
    assert tables.rows_where(table, "who", "b")[2] == [("b", "big", "-")]


def run_with(**changes: str) -> dict[str, Table]:
    """The tables of a run in which every goal is met, but for what is changed."""
    added = {
        variants.PROBETOP: "+80.0",
        variants.SYSCOUNT: "+100.0",
        variants.LATENCY: "+120.0",
        variants.SYSCOUNT_L: "+200.0",
        variants.TWO_CLOCKS: "+100.0",
        variants.SAMPLED: "+65.0",
        variants.TWO_EMPTY: "+50.0",
    }
    added.update({name: value for name, value in changes.items() if name in added})
    screens: list[list[str]] = []
    for size, load, ours, btop in (
        ("120x40", "idle", "14000", "14000"),
        ("120x40", "workload", changes.get("bytes", "5000"), "15000"),
    ):
        cpu = "0.40" if load == "idle" else "1.00"
        screens.append(["probetop", size, load, cpu, ours, "80", "2"])
        screens.append(["btop", size, load, "0.50", btop, "3", "1"])
    head = ("dashboard", "size", "machine", "% of a CPU", "bytes/s", "MB (PSS)", "processes")
    return {
        "calls": ("Calls", ("attached", "added ns"), [[*pair] for pair in added.items()]),
        "screens": ("Dashboards", head, [*screens]),
        "start": ("Start", ("until", "ms"), [[goals.ALL_ON, changes.get("start", "1000")]]),
        "budget": (
            "Budget",
            ("load", "beside it", LOST, WORST, SETTLED, SILENT),
            [
                ["a", NOTHING, "9", "9", "-", "-"],
                ["a", DEFAULT, changes.get("lost", "2.0"), "4.0", "3.0", "5.0"],
                ["b", DEFAULT, "-1.0", "4.0", changes.get("settled", "3.0"), "5.0"],
            ],
        ),
        "polls": (
            "Polls",
            ("probe", "active", "poll", "all"),
            [
                ["a", "2,000", "5.0", "9.0"],
                ["b", "2,000", "-", "9.0"],
                ["a", "16,384", "20.0", "45"],
            ],
        ),
    }


def test_goals_are_met_up_to_their_limits() -> None:
    _, _, rows = goals.goals_table(run_with())
    assert len(rows) == len(goals.GOALS)
    assert [row for row in rows if row[3] != "met"] == []


def test_missed_goals_say_by_how_much() -> None:
    changes = {
        variants.PROBETOP: "+88.0", "bytes": "20000", "start": "1250", "settled": ">16",
    }  # fmt: skip
    _, _, rows = goals.goals_table(run_with(**changes))
    missed = {row[0]: row[1:] for row in rows if row[3] != "met"}
    assert list(missed.values()) == [
        ("0.8 x", "0.88 x", "missed by 10.0 %"),
        ("1 s", "1.25 s", "missed by 25.0 %"),
        ("5000 bytes/s", "20000 bytes/s", "missed by 300.0 %"),
        ("1 x", "1.33 x", "missed by 33.3 %"),
        ("3 s", "16.00 s", "missed by 433.3 %"),
    ]


def test_goals_of_what_was_not_measured_are_neither_met_nor_missed() -> None:
    _, _, rows = goals.goals_table({})
    assert {row[2:] for row in rows} == {("-", "not measured")}
    found = run_with()
    title, head, calls = found["calls"]
    found["calls"] = (title, head, [row for row in calls if row[0] != variants.SYSCOUNT])
    _, _, rows = goals.goals_table(found)
    assert [row[3] for row in rows].count("not measured") == 1


def test_peers_that_are_not_installed_are_named_in_one_line_and_left_out() -> None:
    assert peers.missing(lambda command: "/bin/true") == ""
    line = peers.missing(lambda command: None if "trace" in command else "/bin/true")
    assert line == "peers that are not installed are left out: bpftrace (--peers installs them)"
    for find in (variants.of_calls, variants.of_switches, variants.of_execs):
        names = [one.name for one in find(lambda command: None)]
        assert names[0] == variants.NOTHING
        assert [n for n in names if "(" in n or "bpftrace" in n or n.startswith("perf")] == []


def test_every_row_says_what_it_counts_and_is_compared_with_one_that_is_there() -> None:
    for find in (variants.of_calls, variants.of_switches, variants.of_execs):
        which = find(lambda command: f"/usr/sbin/{command}")
        names = [one.name for one in which]
        assert len(set(names)) == len(names)
        for one in which:
            assert one.beside in ("", *names)
            bare = one.name == variants.NOTHING or re.search("empty|clock", one.name)
            assert (one.counts == "-") == bool(bare), one.name


def test_why_a_tool_failed_is_one_line() -> None:
    said = "warning: x\n/virtual/main.c:2:10: fatal error: 'linux/sched.h' file not found\n 1\n"
    assert hooks.complaint(said) == "'linux/sched.h' file not found"
    assert hooks.complaint("a\nno such probe\n\n") == "no such probe"
    assert hooks.complaint("") == "it attached nothing and said nothing"


def test_variants_take_turns_and_strangers_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    programs: set[int] = set()
    order: list[str] = []

    @contextmanager
    def ours() -> Iterator[None]:
        order.append("ours")
        programs.add(1)
        yield
        programs.clear()

    def broken() -> AbstractContextManager[object]:
        order.append("broken")
        raise BenchError("no headers")

    def timing() -> float:
        order.append("measure")
        if len(order) == 5:  # the second round's first
            programs.add(99)
        return float(len(order))

    monkeypatch.setattr(measure, "ALONE_SECONDS", 0.0)
    monkeypatch.setattr(measure, "tracing_programs", lambda: set(programs))
    which = [variant("none"), Variant("broken", "", broken), Variant("ours", "", ours)]
    turns = measure.take_turns(which, timing, 2, lambda text: None)
    assert order == ["measure", "broken", "ours", "measure", "measure", "ours", "measure"]
    assert turns.values == {"none": [1.0, 5.0], "ours": [4.0, 7.0]}
    assert turns.left_out == {"broken": "no headers"}
    # The stranger came during one measurement and was there before the next.
    assert turns.disturbed == 2


def test_a_part_that_fails_is_left_out_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fails(self: cost.Bench) -> Table:
        raise BenchError("no gcc")

    for part in cost.PARTS:
        table: Table = ("T", ("a",), [(part,)])
        monkeypatch.setattr(cost.Bench, part, lambda self, table=table: table)
    monkeypatch.setattr(cost.Bench, "execs", fails)
    bench = cost.Bench(tmp_path, 1, 1, 1, SHORT)
    found = cost.run(bench, None)
    assert list(found) == [part for part in cost.PARTS if part != "execs"]
    assert bench.left_out == {"probetop, programs": "no gcc"}
    text = cost.results("# Head\n", found, ["a peer: why"])
    assert text.endswith("## Left out\n\n- a peer: why\n")
    capsys.readouterr()


def test_a_new_file_belongs_to_the_user_who_called_sudo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    owners: list[object] = []
    monkeypatch.setenv("SUDO_UID", "1234")
    monkeypatch.setenv("SUDO_GID", "99")
    monkeypatch.setattr("bench.tables.os.chown", lambda *args: owners.append(args))
    path = tmp_path / "RESULTS.md"
    tables.write(path, "new")
    tables.write(path, "again")
    assert owners == [(path, 1234, 99)]
    assert path.read_text() == "again"


def test_only_what_is_between_the_marks_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"a\n{tables.BEGIN}\nold\n{tables.END}\nb\n")
    tables.write_between(path, "new\n")
    assert path.read_text() == f"a\n{tables.BEGIN}\nnew\n{tables.END}\nb\n"
    path.write_text("no marks")
    with pytest.raises(BenchError):
        tables.write_between(path, "new")


def test_terminal_sequences_leave_the_text() -> None:
    screen = b"\x1b[?1049h\x1b[1;36mprobe\x1b[0mtop\x1b]0;title\x07 \x1bP+q\x1b\\\x1b(Bshare"
    assert _SEQUENCE.sub(b"", screen) == b"probetop share"


def test_blanks_around_a_text_of_a_picture_become_its_place() -> None:
    pattern = r'x="([\d.]+)"( y="[\d.]+") textLength="([\d.]+)"([^>]*)>([^<]*)'
    text = '<text x="12.2" y="20" textLength="73.2" c="d">&#160;a&#160;&lt;&#160;&#160;</text>'
    assert re.sub(pattern, tight, text) == (
        '<text x="24.4" y="20" textLength="36.6" c="d">a&#160;&lt;</text>'
    )


def test_the_readme_quotes_no_figure_that_was_not_measured() -> None:
    text = cost.README.read_text(encoding="utf-8")
    quoted = text.partition(tables.BEGIN)[2].partition(tables.END)[0]
    rows = [line for line in quoted.splitlines() if line.startswith("| ")]
    measured = cost.RESULTS.read_text(encoding="utf-8").splitlines()
    assert len(rows) > 10
    assert [row for row in rows if row not in measured] == []
