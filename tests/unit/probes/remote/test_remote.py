# SPDX-License-Identifier: Apache-2.0
"""Another machine as a Source: links that break, answers that come late, and hostile peers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

import pytest

from probes.core.errors import ProbeError
from probes.core.frame import Filters, Frame
from probes.recording.framing import Encoder, message
from probes.remote import source as remote
from probes.remote.source import GENERATIONS, LONGEST_SILENCE, RemoteSource
from probes.source import Found
from tests.unit.probes.recording.test_recording import make_frames

DEADLINE = 10.0
Item = bytes | Exception


class FakeConnection:
    """What is put into it is received; b"" is its end."""

    def __init__(self, known: ProbeError | None = None) -> None:
        self.items: SimpleQueue[Item] = SimpleQueue()
        self.sent: list[Mapping[str, Any]] = []
        self.closed = False
        self.alive = 0
        self.seen: list[int] = []
        self.waited: list[float] = []
        self._known = known

    def receive(self, seconds: float) -> bytes:
        self.waited.append(seconds)
        item = self.items.get(timeout=DEADLINE)
        if isinstance(item, Exception):
            raise item
        return item

    def send(self, command: Mapping[str, Any]) -> None:
        if self.closed:
            raise BrokenPipeError(32, "Broken pipe")
        if command["op"] == "alive":
            self.alive += 1
        elif command["op"] == "seen":
            self.seen.append(command["frames"])
        else:
            self.sent.append(command)

    def why(self) -> ProbeError | None:
        return self._known

    def hang_up(self) -> None:
        self.items.put(b"")

    def close(self) -> None:
        self.closed = True


class FakeTransport:
    """Gives one connection after the other, or raises what stands in their place."""

    target = "ssh://far"

    def __init__(self, *connections: FakeConnection | ProbeError, remembers: bool = False) -> None:
        self.remembers = remembers
        self.asked: list[bool] = []
        self._connections = list(connections)
        self._never = threading.Event()

    def connect(
        self, answered: Callable[[Mapping[str, Any]], None], *, ask: bool
    ) -> FakeConnection:
        self.asked.append(ask)
        if not self._connections:
            self._never.wait(DEADLINE)
            raise ProbeError("nobody is there")
        one = self._connections.pop(0)
        if isinstance(one, ProbeError):
            raise one
        return one


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)


def eventually(what: str, condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.005)


def feed(connection: FakeConnection, frames: Sequence[Frame]) -> None:
    encoder = Encoder()
    for frame in frames:
        connection.items.put(encoder.frame(frame))


class Shown:
    """A source that runs, and what came of it."""

    def __init__(self, transport: FakeTransport) -> None:
        self.frames: list[Frame] = []
        self.refused: list[str] = []
        self.source = RemoteSource(transport)
        self.source.refused = self.refused.append
        self.source.start(self.frames.append, lambda why: None)

    def until(self, count: int) -> list[Frame]:
        eventually(f"{count} frames, not {len(self.frames)}", lambda: len(self.frames) >= count)
        return self.frames


def test_each_connection_is_a_generation_on_this_machines_clock() -> None:
    one, two = FakeConnection(), FakeConnection()
    frames = make_frames(4)
    feed(one, frames)
    one.items.put(b"")
    feed(two, frames)  # the far machine has started anew
    shown = Shown(FakeTransport(one, two))
    got = shown.until(8)
    shown.source.stop()
    monos = [frame.mono for frame in got]
    assert monos == sorted(set(monos))
    assert abs(monos[-1] - time.monotonic()) < 30
    base = frames[0].samples["syscalls"].generation
    generations = [frame.samples["syscalls"].generation - base for frame in got]
    assert generations == [GENERATIONS] * 4 + [2 * GENERATIONS] * 4
    assert [frame.time for frame in got] == 2 * [frame.time for frame in frames]
    assert one.closed
    assert (one.alive, two.alive) == (1, 1)
    assert shown.source.title == "web-3"


def test_nothing_is_comparable_with_what_was_before_the_gap() -> None:
    one = FakeConnection()
    frames = make_frames(2)
    feed(one, frames)
    shown = Shown(FakeTransport(one))
    first, second = shown.until(2)
    shown.source.stop()
    for frame in (first, second):
        since = frame.samples["syscalls"].since
        assert since is None or since >= first.mono


def standing(shown: Shown) -> tuple[str, str | None]:
    """How the link stands, and why."""
    return shown.source.link.state, shown.source.link.why


def test_a_lost_link_says_why_and_comes_back() -> None:
    one, two = FakeConnection(), FakeConnection()
    feed(one, make_frames(1))
    one.items.put(TimeoutError())
    shown = Shown(FakeTransport(one, ProbeError("no route to host"), two))
    shown.until(1)
    eventually("it is lost", lambda: shown.source.link.why == "no route to host")
    assert standing(shown) == ("lost", "no route to host")
    feed(two, make_frames(1))
    shown.until(2)
    assert standing(shown) == ("live", None)
    assert shown.source.link.received > 0
    shown.source.stop()


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        message({"hello": {"protocol": 99}}),
        message({"hello": []}),
        Encoder().frame(make_frames(1)[0])[:-4] + b"????",
    ],
)
def test_what_a_hostile_peer_sends_only_breaks_the_link(data: bytes) -> None:
    one, two = FakeConnection(), FakeConnection()
    one.items.put(data)
    feed(two, make_frames(1))
    shown = Shown(FakeTransport(one, two))
    shown.until(1)
    assert one.closed
    shown.source.stop()


def test_time_that_goes_backwards_breaks_the_link() -> None:
    one = FakeConnection()
    frames = make_frames(2)
    feed(one, frames[::-1])
    shown = Shown(FakeTransport(one))
    shown.until(1)
    eventually("it is lost", lambda: shown.source.link.state == "lost")
    assert len(shown.frames) == 1
    shown.source.stop()


def test_frames_are_confirmed_to_a_far_side_of_our_own() -> None:
    one, two, agent = FakeConnection(), FakeConnection(), FakeConnection()
    feed(one, make_frames(3))
    one.items.put(b"")
    feed(two, make_frames(1))
    feed(agent, make_frames(1))
    shown, other = Shown(FakeTransport(one, two)), Shown(FakeTransport(agent, remembers=True))
    shown.until(4)
    other.until(1)
    for each in (shown, other):
        each.source.stop()
    assert (one.seen, two.seen, agent.seen) == ([1, 2, 3], [1], [])


def test_a_link_is_given_up_after_some_silence_however_long_the_interval() -> None:
    one = FakeConnection()
    feed(one, [replace(frame, interval=3600.0) for frame in make_frames(2)])
    shown = Shown(FakeTransport(one))
    shown.until(2)
    shown.source.stop()
    assert max(one.waited) == LONGEST_SILENCE


def test_a_frame_that_no_kernel_side_can_fill_breaks_the_link(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote, "MOST_ENTRIES", 3)
    one = FakeConnection()
    feed(one, make_frames(2))
    shown = Shown(FakeTransport(one))
    eventually("it broke", lambda: shown.source.link.why == "a frame larger than any")
    shown.source.stop()
    assert shown.frames == []


def test_wishes_are_repeated_where_they_were_forgotten() -> None:
    one, two = FakeConnection(), FakeConnection()
    feed(one, make_frames(1))
    shown = Shown(FakeTransport(one, two))
    shown.until(1)
    source = shown.source
    source.toggle("pmc", False)
    source.toggle("execs", False)
    source.toggle("pmc", True)
    source.set_option("latency", "add", "runq")
    source.set_option("latency", "remove", "runq")
    source.set_filters(Filters(pid=7))
    assert [command["id"] for command in one.sent] == [1, 2, 3, 4, 5, 6]
    one.items.put(b"")
    eventually("they are repeated", lambda: len(two.sent) == 4)
    wishes = [{k: v for k, v in c.items() if k != "id"} for c in two.sent]
    assert wishes == [
        {"op": "toggle", "probe": "execs", "on": False},
        {"op": "toggle", "probe": "pmc", "on": True},
        {"op": "option", "probe": "latency", "option": "remove", "value": "runq"},
        {"op": "filters", "filters": {"pid": 7, "comm": None, "uid": None, "cgroup": None}},
    ]
    # What is refused the second time is no news.
    two.items.put(message({"id": two.sent[2]["id"], "ok": False, "why": "not traced"}))
    feed(two, make_frames(1))
    shown.until(2)
    assert shown.refused == []
    source.stop()


def test_to_follow_a_file_is_asked_for_once_and_its_refusal_leaves_the_target() -> None:
    """A far side that has forgotten its targets attaches them to what is there anyway."""
    one, two = FakeConnection(), FakeConnection()
    feed(one, make_frames(1))
    shown = Shown(FakeTransport(one, two))
    shown.until(1)
    shown.source.set_option("latency", "add", "uprobe:a:b")
    shown.source.set_option("latency", "follow", "uprobe:a:b")
    assert [command["option"] for command in one.sent] == ["add", "follow"]
    one.items.put(message({"id": one.sent[1]["id"], "ok": False, "why": "no", "fix": ""}))
    eventually("it is refused", lambda: shown.refused == ["no"])
    one.items.put(b"")
    eventually("the target is asked for again", lambda: len(two.sent) == 1)
    assert two.sent[0]["option"] == "add"
    feed(two, make_frames(1))
    shown.until(2)
    assert len(two.sent) == 1
    shown.source.stop()


def test_who_remembers_is_not_told_again_nor_while_the_link_is_down() -> None:
    one, two = FakeConnection(), FakeConnection()
    feed(one, make_frames(1))
    transport = FakeTransport(one, two, remembers=True)
    shown = Shown(transport)
    shown.until(1)
    shown.source.toggle("pmc", False)
    one.items.put(b"")
    feed(two, make_frames(1))
    shown.until(2)
    assert two.sent == []
    two.items.put(b"")
    eventually("it is lost", lambda: len(transport.asked) == 3)
    with pytest.raises(ProbeError, match="no link"):
        shown.source.toggle("pmc", True)
    shown.source.stop()


def test_a_refusal_comes_back_once_and_is_not_asked_for_again() -> None:
    one, two = FakeConnection(), FakeConnection()
    feed(one, make_frames(1))
    shown = Shown(FakeTransport(one, two))
    shown.until(1)
    shown.source.set_option("latency", "add", "kprobe:x")
    answer = {"id": one.sent[0]["id"], "ok": False, "why": "no\nfunction", "fix": "see f"}
    one.items.put(message(answer) + message(answer) + message({"id": "x", "ok": False}))
    eventually("it is refused", lambda: shown.refused == ["no function: see f"])
    one.items.put(b"")
    feed(two, make_frames(1))
    shown.until(2)
    assert two.sent == []
    assert shown.refused == ["no function: see f"]
    shown.source.stop()


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (
            {"ok": True, "found": [["a", "uprobe", "", 1.5], ["b", 1, "", None], 7, ["c"]]},
            [Found("a", "uprobe", "", 1.5)],
        ),
        ({"ok": False, "why": "it is busy"}, [Found("", "", "it is busy")]),
        ({"ok": False, "why": 5}, [Found("", "", "its answer cannot be understood")]),
        ({"ok": True, "found": {}}, [Found("", "", "its answer cannot be understood")]),
        ({"ok": True, "found": [[]] * 1001}, [Found("", "", "its answer cannot be understood")]),
        ({"ok": 1}, [Found("", "", "its answer cannot be understood")]),
    ],
)
def test_what_a_search_finds_is_checked(answer: dict[str, Any], found: list[Found]) -> None:
    one = FakeConnection()
    feed(one, make_frames(1))
    shown = Shown(FakeTransport(one))
    shown.until(1)
    got: list[Sequence[Found]] = []
    shown.source.search("a", got.append)
    one.items.put(message({"id": one.sent[0]["id"], **answer}))
    eventually("it is answered", lambda: got)
    assert got == [found]
    shown.source.stop()


def test_what_is_wrong_at_first_is_said_before_there_is_a_screen() -> None:
    known = ProbeError("ssh://far: probetop is not found there", "install it there")
    one = FakeConnection(known)
    one.items.put(b"")
    transport = FakeTransport(one)
    with pytest.raises(ProbeError, match="is not found there"):
        RemoteSource(transport).open()
    assert transport.asked == [True]
    assert one.closed
    other = FakeConnection()
    other.items.put(ConnectionRefusedError(111, "Connection refused"))
    with pytest.raises(ProbeError, match="ssh://far: Connection refused"):
        RemoteSource(FakeTransport(other)).open()
    greeting = FakeConnection()
    greeting.items.put(b"Welcome to web-3, today is Monday\n")
    with pytest.raises(ProbeError, match="login shell there print nothing"):
        RemoteSource(FakeTransport(greeting)).open()


def test_the_first_frame_is_not_lost_on_the_screen() -> None:
    one = FakeConnection()
    one.items.put(message({"hello": {"protocol": 1, "version": "0"}}))
    feed(one, make_frames(1))
    transport = FakeTransport(one)
    source = RemoteSource(transport)
    source.open()
    assert source.link.state == "live"
    frames: list[Frame] = []
    source.start(frames.append, lambda why: None)
    eventually("the frame is there", lambda: frames)
    assert transport.asked == [True]
    source.stop()
    assert one.closed


def test_stopping_waits_neither_for_frames_nor_for_a_connection() -> None:
    one = FakeConnection()
    feed(one, make_frames(1))
    waiting, connecting = Shown(FakeTransport(one)), Shown(FakeTransport())
    waiting.until(1)
    for shown in (waiting, connecting):
        thread = threading.Thread(target=shown.source.stop)
        thread.start()
        thread.join(DEADLINE / 2)
        assert not thread.is_alive()
    eventually("it is let go of", lambda: one.closed)


def test_who_waits_long_for_a_login_is_told_what_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PATIENCE", 0.01)
    one = FakeConnection()
    source, told = RemoteSource(FakeTransport(one)), []

    def tell(line: str) -> None:
        told.append(line)
        feed(one, make_frames(1))

    source.open(tell=tell)
    assert told == [
        "ssh://far: waiting for a login there, and for its first frame; ctrl+C gives up"
    ]


def test_decoding_takes_half_of_the_time_at_most() -> None:
    pace, now, worked, waited = remote.Pace(0.0), 0.0, 0.0, 0.0
    for _ in range(1000):
        now += 0.25
        worked += 0.25
        waited += (wait := pace.wait(0.25, now))
        now += wait
    assert worked <= remote.BURST + remote.SHARE * now
    assert waited > 0.9 * worked
    # Frames of a usual size, one a second, never wait.
    assert sum([pace.wait(0.3, now + second) for second in range(10, 1000)]) == 0


def test_a_chunk_of_many_changes_is_one_frame_before_there_is_a_screen() -> None:
    """Each Frame has a table of its own, and a large one takes a few bytes of changes."""
    one, frames = FakeConnection(), make_frames(40)
    encoder = Encoder()
    one.items.put(b"".join([encoder.frame(frame) for frame in frames]))
    transport = FakeTransport(one)
    source = RemoteSource(transport)
    source.open()
    assert isinstance(source._early, Frame)
    assert source._frames == 1
    got: list[Frame] = []
    source.start(got.append, lambda why: None)
    eventually("all of them come", lambda: len(got) == len(frames))
    eventually("they are confirmed", lambda: one.seen == [len(frames)])
    source.stop()


def test_decoding_waits_after_each_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    paced: list[int] = []

    def wait(pace: remote.Pace, worked: float, now: float) -> float:
        paced.append(len(shown.frames))
        return 0.0

    monkeypatch.setattr(remote.Pace, "wait", wait)
    one, encoder = FakeConnection(), Encoder()
    shown = Shown(FakeTransport(one))
    one.items.put(b"".join([encoder.frame(frame) for frame in make_frames(5)]))
    shown.until(5)
    eventually("it waits for more", lambda: len(one.waited) == 2)
    shown.source.stop()
    assert set(paced) >= {1, 2, 3, 4, 5}


def test_signs_of_life_are_not_waited_for_instead_of_a_frame() -> None:
    """Before it was given up after as long without anything at all."""
    link = FakeConnection()
    for _ in range(200):
        link.items.put(message({}))
    source = RemoteSource(FakeTransport(link))
    with pytest.raises(ProbeError, match="nothing was received"):
        source.open(0.0)
    assert link.items.qsize() > 100
