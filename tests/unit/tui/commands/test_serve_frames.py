# SPDX-License-Identifier: Apache-2.0
"""The far side of a remote dashboard: commands in, Frames out, and what ends it."""

from __future__ import annotations

import fcntl
import json
import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from probes.core.errors import ProbeError
from probes.core.frame import Filters, Frame
from probes.execs.sample import ExecSample
from probes.recording.framing import Decoder
from probes.remote import answers as far_answers
from probes.source import Found
from tests.unit.probes.recording.test_recording import make_frames
from tui.commands import flow_control as room
from tui.commands import serve_frames as far

DEADLINE = 10.0


class FakeSource:
    """Notes commands; Frames are what the test puts."""

    live, title, lifts = True, "here", True

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.put: Callable[[Frame], None] = lambda frame: None
        self.end: Callable[[str], None] = lambda why: None
        self.started, self.stopped = threading.Event(), False

    def start(self, on_frame: Callable[[Frame], None], on_end: Callable[[str], None]) -> None:
        self.put, self.end = on_frame, on_end
        self.started.set()

    def stop(self) -> None:
        self.stopped = True

    def toggle(self, probe: str, on: bool) -> None:
        if probe == "nothing":
            raise ProbeError("there is no probe nothing", "choose another")
        self.calls.append(("toggle", probe, on))

    def set_option(self, probe: str, option: str, value: Any) -> None:
        self.calls.append(("option", probe, option, value))

    def set_filters(self, filters: Filters) -> None:
        self.calls.append(("filters", filters))

    def set_interval(self, seconds: float) -> None:
        self.calls.append(("interval", seconds))

    def lift_budget(self, seconds: float) -> None:
        self.calls.append(("budget", seconds))

    def search(self, query: str, on_found: Callable[[Sequence[Found]], None]) -> None:
        on_found([Found(query, "uprobe", "", 2.0)])


class Link:
    """Both ends of a far side that runs in a thread."""

    def __init__(self) -> None:
        self.source = FakeSource()
        reading, self.to = os.pipe()
        self.out, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        self.status: list[int] = []
        self.said: list[str] = []
        self.items: list[Any] = []
        self._decoder = Decoder()
        self._fds = [reading, self.to, self.out, writing]

        def run() -> None:
            status = far.stream_frames(self.source, reading, writing, self.said.append)
            self.status.append(status)

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()
        assert self.source.started.wait(DEADLINE)

    def close(self) -> None:
        if self.to >= 0:
            self.hang_up()
        self.thread.join(DEADLINE)
        for fd in self._fds:
            if fd >= 0:
                os.close(fd)

    def hang_up(self) -> None:
        os.close(self.to)
        self._fds[1] = self.to = -1

    def ended(self) -> bool:
        self.thread.join(DEADLINE)
        return not self.thread.is_alive() and self.source.stopped

    def ask(self, *commands: Any) -> None:
        for command in commands:
            line = command if isinstance(command, bytes) else json.dumps(command).encode()
            os.write(self.to, line + b"\n")

    def until(self, condition: Callable[[list[Any]], object]) -> list[Any]:
        end = time.monotonic() + DEADLINE
        while not condition(self.items):
            ready, _, _ = select.select([self.out], [], [], max(0.0, end - time.monotonic()))
            assert ready, self.items
            self.items += self._decoder.feed(os.read(self.out, 65536))
        return self.items


@pytest.fixture
def link() -> Iterator[Link]:
    made = Link()
    yield made
    made.close()


def answers(items: list[Any]) -> dict[Any, Any]:
    return {item["id"]: item for item in items if isinstance(item, dict) and "id" in item}


def test_it_says_what_it_is_and_sends_frames_as_they_come(link: Link) -> None:
    frames = make_frames(3)
    for number, frame in enumerate(frames):
        link.source.put(frame)
        link.until(lambda items, n=number: len(items) == n + 2)  # type: ignore[misc]
    assert link.items[0]["hello"]["protocol"] == far_answers.PROTOCOL
    assert link.items[1:] == frames


def test_commands_are_carried_out_in_order_and_answered(link: Link) -> None:
    link.ask(
        {"id": 1, "op": "toggle", "probe": "pmc", "on": False},
        {"id": 2, "op": "option", "probe": "latency", "option": "targets", "value": ["runq"]},
        {"id": 3, "op": "filters", "filters": {"pid": 7, "comm": None}},
        {"id": 4, "op": "interval", "seconds": 2},
        {"id": 5, "op": "search", "query": "malloc"},
        {"id": 6, "op": "budget", "seconds": 60},
    )
    got = answers(link.until(lambda items: len(answers(items)) == 6))
    assert all(answer["ok"] for answer in got.values())
    assert got[5]["found"] == [["malloc", "uprobe", "", 2.0]]
    assert link.source.calls == [
        ("toggle", "pmc", False),
        ("option", "latency", "targets", ("runq",)),
        ("filters", Filters(pid=7)),
        ("interval", 2.0),
        ("budget", 60.0),
    ]


@pytest.mark.parametrize(
    "command",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff\xfe",
        {"op": "toggle", "probe": "pmc", "on": True},
        {"id": 9, "op": "exec", "probe": "pmc"},
        {"id": 9, "op": "toggle"},
        {"id": 9, "op": "toggle", "probe": "nothing", "on": True},
        {"id": 9, "op": "interval", "seconds": "soon"},
        {"id": 9, "op": "interval", "seconds": 0},
        {"id": 9, "op": "budget", "seconds": 61},
        {"id": 9, "op": "budget", "seconds": -1},
        {"id": 9, "op": "filters", "filters": {"pid": "7"}},
        {"id": 9, "op": "filters", "filters": {"pid": -7}},
        {"id": 9, "op": "filters", "filters": {"name": "x"}},
        {"id": 9, "op": "filters", "filters": []},
        {"id": {}, "op": "nothing"},
        {"id": 9, "op": "seen"},
        {"id": 9, "op": "seen", "frames": 1},
        {"id": 9, "op": "seen", "frames": -1},
        {"id": 9, "op": "seen", "frames": True},
        {"id": 9, "op": "option", "probe": "latency", "option": "add", "value": 5},
        {"id": 9, "op": "option", "probe": "latency", "option": "remove", "value": ["runq"]},
        {"id": 9, "op": "option", "probe": "latency", "option": "targets", "value": 5},
        {"id": 9, "op": "option", "probe": "latency", "option": "targets", "value": {"runq": 1}},
        {"id": 9, "op": "option", "probe": "pmc", "option": "set", "value": []},
        {"id": 9, "op": "option", "probe": "pmc", "option": "no_such_option", "value": 1},
        {"id": 9, "op": "option", "probe": ["pmc"], "option": "set", "value": "base"},
        {"id": 9, "op": "toggle", "probe": "p\x1b[31m", "on": True},
        {"id": 9, "op": "toggle", "probe": "pmc", "on": 1},
        {"id": 9, "op": "filters", "filters": {"comm": "\ud800"}},
        {"id": 9, "op": "filters", "filters": {"comm": "x" * 16}},
        {"id": 9, "op": "search", "query": "\ud800"},
        {"id": 9, "op": "search", "query": ["a"]},
        b'{"id": 9, "op": "interval", "seconds": 1' + b"0" * 400 + b"}",
        b'{"id": 9, "op": "interval", "seconds": NaN}',
        b'{"id": 9, "op": "alive", "op": "toggle", "probe": "pmc", "on": true}',
        b'{"id": ' + b"9" * 5000 + b', "op": "search", "query": "a"}',
        b"[" * 30_000,
    ],
)
def test_what_is_wrong_is_refused_and_it_goes_on(link: Link, command: Any) -> None:
    link.ask(command, {"id": 10, "op": "interval", "seconds": 3})
    got = answers(link.until(lambda items: 10 in answers(items)))
    (refused,) = [answer for number, answer in got.items() if number != 10]
    assert not refused["ok"]
    assert refused["why"]
    assert refused["why"].isprintable()
    assert link.source.calls == [("interval", 3.0)]


def pids(items: Sequence[Any]) -> list[int]:
    """The processes of all events."""
    samples = [item.samples["execs"] for item in items if isinstance(item, Frame)]
    return [e.pid for sample in samples if isinstance(sample, ExecSample) for e in sample.events]


def test_a_slow_reader_gets_the_newest_frame_and_nothing_is_queued(link: Link) -> None:
    frames = make_frames(400)
    for frame in frames:
        link.source.put(frame)
    got = link.until(lambda items: frames[-1].mono in [getattr(i, "mono", 0) for i in items])
    assert len(got) < 100
    assert pids(got) == pids(frames)


def test_frames_wait_until_what_was_sent_long_ago_has_arrived(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "AHEAD", 0.0)
    frames = make_frames(6)
    for number, frame in enumerate(frames[:2]):  # nobody has said what arrived
        link.source.put(frame)
        link.until(lambda items, n=number: len(items) == n + 2)  # type: ignore[misc]
    link.ask({"id": 0, "op": "seen", "frames": 1})
    for frame in frames[2:5]:
        link.source.put(frame)
    # An answer goes out all the same.
    link.ask({"id": 1, "op": "interval", "seconds": 2})
    assert 1 in answers(link.until(lambda items: len(items) == 4))
    link.ask({"id": 0, "op": "seen", "frames": 2})
    got = link.until(lambda items: len(items) == 5)
    assert got[4].mono == frames[4].mono
    link.ask({"id": 0, "op": "seen", "frames": 3})
    link.source.put(frames[5])
    assert pids(link.until(lambda items: len(items) == 6)) == pids(frames)


def test_it_ends_when_its_reader_hangs_up(link: Link) -> None:
    link.hang_up()
    assert link.ended()
    assert link.status == [0]


def test_it_ends_when_nobody_reads_any_more() -> None:
    made = Link()
    made.until(lambda items: items)
    os.close(made.out)
    made._fds[2] = -1
    made.source.put(make_frames(1)[0])
    assert made.ended()
    made.close()


def test_it_ends_when_nothing_moves_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(far, "PATIENCE", 0.2)
    made = Link()
    for frame in make_frames(400):
        made.source.put(frame)
        time.sleep(0.001)
    assert made.ended()
    made.close()


def test_it_ends_when_its_reader_is_alive_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(far, "PATIENCE", 0.2)
    monkeypatch.setattr(far, "HEARTBEAT", 0.05)
    made = Link()
    made.until(lambda items: items.count({}) > 8)  # nobody has said so yet
    made.ask({"id": 0, "op": "alive"})
    assert made.ended()
    made.close()


def test_it_says_why_its_source_ended(link: Link) -> None:
    link.source.end("the helper has ended")
    assert link.ended()
    assert (link.status, link.said) == ([1], ["the helper has ended"])


def test_a_line_without_an_end_ends_it(link: Link) -> None:
    for _ in range(far.LONGEST_LINE // 1024 + 4):
        os.write(link.to, b"x" * 1024)
    assert link.ended()


def test_there_are_signs_of_life_without_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(far, "HEARTBEAT", 0.05)
    made = Link()
    assert {} in made.until(lambda items: {} in items)
    made.close()
