# SPDX-License-Identifier: Apache-2.0
"""Panes as functions of Frames and keys: their text, read without an application."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from probes.core.frame import Frame, Host
from probes.core.sample import Counts, Sample
from probes.execs.sample import ExecEvent, ExecSample, ExitEvent
from probes.syscalls.sample import SyscallSample
from tests.pilot.fake import NOON, FakeSource, failed
from tui.panes.base import Pane
from tui.panes.execs import ExecPane
from tui.panes.syscalls import SyscallPane
from tui.shared.styled_lines import compose, line_text, line_width


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


def feed(pane: Pane, source: FakeSource, ticks: int = 2) -> None:
    before: Frame | None = getattr(source, "last", None)
    for _ in range(ticks):
        after = source.frame()
        pane.update(before, after)
        before = after
    source.last = after  # type: ignore[attr-defined]


def texts(pane: Pane, width: int = 100, height: int = 20) -> list[str]:
    return [line_text(line) for line in pane.lines(width, height, focused=True)]


def row(pane: Pane, word: str) -> str:
    return next(text for text in texts(pane) if word in text)


def headline(pane: Pane) -> str:
    return line_text(tuple(pane.headline()))


def test_rates_shares_and_errors_of_a_call(source: FakeSource) -> None:
    pane = SyscallPane()
    first, second = source.frame(), source.frame()
    pane.update(None, first)
    pane.update(first, second)
    one, two = first.samples["syscalls"], second.samples["syscalls"]
    assert isinstance(one, SyscallSample)
    assert isinstance(two, SyscallSample)
    count = two.calls["openat"].n - one.calls["openat"].n
    everything = sum([n.n for n in two.calls.values()]) - sum([n.n for n in one.calls.values()])
    found = row(pane, "openat").split()
    assert found[1] == f"{count / 1000:.2f}k"
    assert found[3] == f"{100 * count / everything:.1f}%"
    absent = two.errnos["openat", "ENOENT"] - one.errnos["openat", "ENOENT"]
    assert found[-4:-2] == ["ENOENT", f"{absent / 1000:.2f}k"]
    assert headline(pane).startswith(f"{everything / 1000:.0f}k/s")


def test_a_longer_interval_gives_the_same_rates(source: FakeSource) -> None:
    source.interval = 5.0
    pane = SyscallPane()
    feed(pane, source)
    # The fake counts the same each tick, so that five seconds a tick are a fifth a second.
    assert 54 < float(row(pane, "futex").split()[1].rstrip("k")) < 65


def test_from_a_call_into_its_processes_and_from_there_into_their_calls(
    source: FakeSource,
) -> None:
    pane = SyscallPane()
    feed(pane, source)
    pane.move("down")
    assert pane.selected_pid() is None
    assert pane.enter()
    assert pane.crumbs() == ["read"]
    assert "postgres" in texts(pane)[4]
    assert pane.selected_pid() == 811
    pane.enter()
    assert pane.crumbs() == ["read", "postgres 811"]
    assert row(pane, "futex")
    assert pane.selected_pid() == 811
    assert pane.back()
    assert pane.back()
    assert pane.crumbs() == []
    assert not pane.back()


def test_a_filter_is_for_the_table_that_it_was_typed_for(source: FakeSource) -> None:
    pane = SyscallPane()
    feed(pane, source)
    pane.set_filter("recv")
    pane.enter()
    assert (pane.crumbs(), pane.filter) == (["recvfrom"], "")
    assert row(pane, "postgres")
    pane.set_filter("nginx")
    assert not any("postgres" in text for text in texts(pane))
    pane.back()
    assert pane.filter == "recv"
    feed(pane, source)
    assert row(pane, "recvfrom")
    assert not any("openat" in text for text in texts(pane))
    pane.press("v")
    assert pane.filter == ""
    pane.press("v")
    pane.enter()
    assert pane.filter == ""


def test_by_process_and_into_its_calls(source: FakeSource) -> None:
    pane = SyscallPane()
    feed(pane, source)
    assert pane.press("v")
    assert pane.crumbs() == ["by process"]
    assert row(pane, "postgres").split()[0] == "811"
    pane.enter()
    assert pane.crumbs() == ["by process", "postgres 811"]
    assert row(pane, "epoll_wait")


def test_latency_columns_come_with_the_option_and_go(source: FakeSource) -> None:
    pane = SyscallPane()
    pane.source = source
    feed(pane, source)
    assert "p99" not in "".join(texts(pane))
    assert pane.press("l")
    assert source.commands == [("set_option", "syscalls", "latency", True)]
    feed(pane, source)
    heading = next(text for text in texts(pane) if "p99" in text)
    for name in ("p50", "p99", "max", "time/s"):
        assert name in heading
    assert not any("<=" in text for text in texts(pane))
    pane.sort()
    pane.sort()
    feed(pane, source)
    pane.press("l")
    feed(pane, source)
    assert "p99" not in "".join(texts(pane))


def test_a_call_without_durations_shows_dashes(source: FakeSource) -> None:
    pane = SyscallPane()
    source.latency = True
    feed(pane, source)
    last = source.frame()
    sample = last.samples["syscalls"]
    assert isinstance(sample, SyscallSample)
    source.states["syscalls"] = SyscallSample(
        state="on",
        generation=1,
        calls=sample.calls,
        errnos=sample.errnos,
        matrix=sample.matrix,
        comms=sample.comms,
        latency={},
    )
    feed(pane, source)
    columns = row(pane, "sendto").split()
    assert columns[-4:] == ["-", "-", "-", "-"]


def test_a_row_that_goes_quiet_stays_for_a_while(source: FakeSource) -> None:
    pane = SyscallPane()
    feed(pane, source)
    still = source.frame().samples["syscalls"]
    source.states["syscalls"] = still
    feed(pane, source, 3)
    assert row(pane, "futex").split()[1] == "0"
    feed(pane, source, 12)
    assert not any("futex" in text for text in texts(pane))
    assert any("nothing in this interval" in text for text in texts(pane))


def test_losses_and_samples_are_said(source: FakeSource) -> None:
    pane = SyscallPane()
    feed(pane, source)
    sample = source.frame().samples["syscalls"]
    assert isinstance(sample, SyscallSample)
    source.states["syscalls"] = SyscallSample(
        state="on",
        generation=1,
        calls=sample.calls,
        latency={},
        sample_every=16,
        unattributed=500,
        missed=7,
        notes=("compat calls are not counted",),
    )
    feed(pane, source, 1)
    assert "timed 1 in 16" in headline(pane)
    # The fake's clock went on by two seconds.
    assert "no process 250/s" in headline(pane)
    assert "untimed 3.5/s" in headline(pane)
    assert texts(pane)[-1] == " compat calls are not counted"


def test_one_row_per_program_newest_first(source: FakeSource) -> None:
    pane = ExecPane()
    feed(pane, source, 1)
    # The header, then the programs of the first tick from the last to the first.
    lines = texts(pane)
    assert [line.split()[1] for line in lines[3:7]] == ["8004", "8003", "8002", "8001"]
    failure = row(pane, "8002").split()
    assert "ENOENT" in failure
    assert "deploy" in failure
    assert "docker:012" in row(pane, "8003")
    feed(pane, source, 5)
    assert "SIGKILL" in "".join(texts(pane, 100, 40))


def test_the_cursor_stays_on_its_program_while_others_arrive(source: FakeSource) -> None:
    pane = ExecPane()
    feed(pane, source)
    pane.move("down")
    pane.move("down")
    pid = pane.selected_pid()
    feed(pane, source, 5)
    assert pane.selected_pid() == pid
    pane.move("home")
    feed(pane, source, 1)
    assert pane.selected_pid() == 8000 + source._pid


def test_one_program_in_full(source: FakeSource) -> None:
    pane = ExecPane()
    feed(pane, source, 1)
    pane.set_filter("nginx")
    assert pane.enter()
    shown = "\n".join(texts(pane, 60, 30))
    for part in (
        "pid 8003 (nginx)",
        "parent containerd-shim (402)",
        "user root (0)",
        "daemon off;",
        "3 arguments",
    ):
        assert part in shown
    assert pane.back()
    assert not pane.back()


def searched(source: FakeSource, *rets: int) -> ExecPane:
    """A pane after one interval in which a process tried a program in some directories."""
    events = tuple(
        ExecEvent(
            time=NOON + 0.5 + at / 1e4,
            pid=77,
            ppid=1,
            uid=0,
            comm="make",
            parent="make",
            args=("cc", "-c"),
            truncated=False,
            ret=ret,
            cgroup="/",
            path=f"/opt/{at}/cc",
        )
        for at, ret in enumerate(rets)
    )
    ended = ExitEvent(time=NOON + 0.9, pid=77, comm="cc", exit_code=127, signal=0, duration=1)
    failures = sum([ret < 0 for ret in rets])
    source.states["execs"] = ExecSample(
        state="on", execs=len(rets) - failures, failed=failures, events=(*events, ended)
    )
    pane = ExecPane()
    feed(pane, source, 1)
    return pane


def test_a_program_that_was_searched_for_says_where_it_was_found(source: FakeSource) -> None:
    pane = searched(source, -2, -2, 0)
    assert [line.split()[1] for line in texts(pane, 100, 9)[1:]] == ["77"]
    assert "tries" not in row(pane, " 77 ")
    assert headline(pane) == "1.0/s  failed 0/s"
    assert pane.enter()
    assert "file /opt/2/cc, found after 2 tries that failed" in "\n".join(texts(pane))


def test_a_program_that_was_found_nowhere_is_one_failure(source: FakeSource) -> None:
    pane = searched(source, -2, -2, -2)
    assert row(pane, "ENOENT").rstrip().endswith("cc -c  3 tries, last /opt/2/cc")
    assert headline(pane) == "0/s  failed 1.0/s"
    assert pane.enter()
    assert "file /opt/2/cc, the last of 3 tries" in "\n".join(texts(pane))


def hostile_panes(source: FakeSource) -> Iterator[Pane]:
    for view in ("", "v"):
        calls = SyscallPane()
        feed(calls, source, 3)
        calls.press(view)
        yield calls
    execs = ExecPane()
    feed(execs, source, 3)
    yield execs
    execs.set_filter("pwn")
    execs.enter()
    yield execs


def test_what_processes_chose_is_harmless_text(source: FakeSource) -> None:
    seen = ""
    for pane in hostile_panes(source):
        for width in (20, 33, 80, 131):
            for line in pane.lines(width, 40, True):
                drawn = compose(line, width)
                assert line_text(drawn).isprintable()
                assert line_width(drawn) == width
                seen += line_text(drawn)
    for shown in ("\\e[31mpwn\\a", "[red]x[/]", "\\xff\\xfe", "\\u202egnp.exe"):
        assert shown in seen


def test_failed_starting_and_off(source: FakeSource) -> None:
    pane = SyscallPane()
    assert "starting" in texts(pane)[0]
    source.states["syscalls"] = failed(Sample())
    feed(pane, source)
    shown = texts(pane, 40)
    assert "EPERM" in " ".join(shown)
    assert "sudo probetop" in " ".join(shown)
    assert all(len(text) <= 40 for text in shown)
    source.states["syscalls"] = Sample(state="starting")
    feed(pane, source)
    assert "starting" in texts(pane)[0]
    source.states["syscalls"] = Sample(state="off")
    feed(pane, source)
    assert texts(pane) == []


def test_of_very_many_processes_the_busiest_are_shown_and_the_filter_finds_the_rest() -> None:
    matrix = {(pid, "read"): Counts(pid, 0) for pid in range(1, 2001)}
    sample = SyscallSample(
        state="on",
        generation=1,
        calls={"read": Counts(2_001_000, 0)},
        matrix=matrix,
        comms={pid: f"p{pid}" for pid in range(1, 2001)},
    )
    frame = Frame(time=1.0, mono=1.0, interval=1.0, host=Host(), samples={"syscalls": sample})
    pane = SyscallPane()
    pane.press("v")
    pane.update(None, frame)
    assert "p2000" in texts(pane)[4 - 1]
    assert texts(pane)[-1] == " the 500 busiest; 1500 more were active: / finds them"
    # Its share is of all, not of those that are shown.
    assert row(pane, "p2000").split()[4] == "0.1%"
    pane.set_filter("p17 17")
    assert row(pane, "p17 ").split()[:3] == ["17", "p17", "17"]
