# SPDX-License-Identifier: Apache-2.0
"""The history: it gives back what was added, never takes more than it may, and says so."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probes.core.frame import Frame, Host
from probes.core.sample import Counts, Histogram
from probes.recording.history import CHUNK, History
from probes.recording.timeline import Cursor
from probes.syscalls.sample import SyscallSample
from tests.unit import strategies as own
from tests.unit.probes.recording.test_recording import make_frames


def filled(frames: list[Frame], seconds: float = 600.0, most_bytes: int = 1 << 26) -> History:
    history = History(seconds, most_bytes)
    for frame in frames:
        history.add(frame)
    return history


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(own.frames, min_size=1, max_size=4))
def test_any_frames_come_back_as_they_were(frames: list[Frame]) -> None:
    frames = [replace(frame, mono=float(at)) for at, frame in enumerate(frames)]
    history = filled(frames)
    assert history.last(1e9) == frames


def test_every_frame_in_any_order() -> None:
    frames = make_frames(3 * CHUNK + 5)
    history = filled(frames)
    cursor = Cursor(history)
    for number in (0, 94, 3, 4, 5, CHUNK, CHUNK - 1, 60, 60, 88, 2):
        assert cursor.frame(number) == frames[number]
    for number in (-1, len(frames)):
        with pytest.raises(LookupError):
            cursor.frame(number)
        with pytest.raises(LookupError):
            history.mono(number)


def test_going_forward_decodes_one_frame_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    history = filled(make_frames(2 * CHUNK))
    asked: list[int] = []
    value = history.value

    def remember(number: int, light: bool = False) -> object:
        asked.append(number)
        return value(number, light)

    monkeypatch.setattr(history, "value", remember)
    cursor = Cursor(history)
    for number in (20, 21, 21, 25, 24):
        cursor.frame(number)
    assert asked == [*range(21), 21, *range(22, 26), *range(25)]


def test_frames_are_found_by_their_time() -> None:
    history = filled(make_frames(50))
    found = [history.number_at(50.0 + at) for at in (-9, 0, 0.5, 1, 7.99, 49, 1000)]
    assert found == [0, 0, 0, 1, 7, 49, 49]
    assert [frame.mono for frame in history.last(3)] == [96.0, 97.0, 98.0, 99.0]
    assert [frame.mono for frame in history.last(1.5, until=10)] == [58.0, 59.0, 60.0]
    assert History().last(10) == []


def test_what_is_older_than_asked_for_is_forgotten_by_chunks() -> None:
    history = filled(make_frames(400), seconds=100)
    assert history.end == 400
    assert 101 <= len(history) <= 101 + CHUNK
    assert history.first % CHUNK == 0
    assert history.span >= 100
    assert not history.short
    assert history.mono(history.first) == 50.0 + history.first


def test_too_much_makes_the_span_shorter_and_says_so() -> None:
    frames = make_frames(400)
    whole = filled(frames).size
    history = filled(frames, most_bytes=whole // 4)
    assert history.short
    assert history.size <= whole // 4
    assert 0 < len(history) < 200
    assert history.last(1e9) == frames[history.first :]


def test_a_frame_that_is_not_later_begins_a_new_history() -> None:
    frames = make_frames(5)
    history = filled([*frames, frames[1], frames[2]])
    assert len(history) == 2
    assert history.last(1e9) == frames[1:3]
    assert history.first == 5


def test_a_light_cursor_leaves_out_what_only_tables_need() -> None:
    frames = make_frames(40)
    light = Cursor(filled(frames), light=True)
    for number in (39, 3, 4):
        sample, whole = light.frame(number).samples["syscalls"], frames[number].samples["syscalls"]
        assert isinstance(sample, SyscallSample)
        assert isinstance(whole, SyscallSample)
        assert sample == replace(whole, matrix={})


def busiest(ticks: int, processes: int = 16_384) -> list[Frame]:
    """A tick in which every process of a full table makes calls, all of them timed, and more."""
    names = ["read", "write", "futex"]
    frames = []
    for tick in range(1, ticks + 1):
        matrix = {
            (pid, names[pid % 3]): Counts(tick * (pid * 7919 % 5000 + 1), tick * (pid % 3))
            for pid in range(1, processes + 1)
        }
        latency = {
            name: Histogram({b: tick * (b % 97 + 1) for b in range(200, 700)}, tick, tick)
            for name in names
        }
        frames.append(
            Frame(
                time=1.7e9 + tick,
                mono=float(tick),
                interval=1.0,
                host=Host("busy", "6.18.0", "x86_64", 128),
                samples={
                    "syscalls": SyscallSample(
                        state="on",
                        calls={name: Counts(tick * 1_000_000, tick) for name in names},
                        matrix=matrix,
                        comms={pid: f"worker-{pid}" for pid in range(1, processes + 1)},
                        latency=latency,
                    )
                },
            )
        )
    return frames


def measured(history: History) -> int:
    """Bytes of what the history holds, as Python counts them."""
    chunks = list(history._chunks)
    payloads = sum([sys.getsizeof(p) for c in chunks for p in (*c.light, *c.heavy)])
    lists = sum([sys.getsizeof(part) for c in chunks for part in (c.light, c.heavy, c.monos)])
    monos = sum([sys.getsizeof(mono) for chunk in chunks for mono in chunk.monos])
    return payloads + lists + monos + sum([sys.getsizeof(chunk) for chunk in chunks])


def test_a_minute_of_the_busiest_frames_is_all_there_and_within_bounds() -> None:
    whole, small = History(), History(most_bytes=1 << 20)
    first, second = busiest(2)
    for tick in range(60):
        # Counters go up and down between two Frames: as large as changes can be.
        frame = replace(second if tick % 2 else first, mono=float(tick), time=1.7e9 + tick)
        whole.add(frame)
        if tick < 30:
            small.add(frame)
            assert measured(small) <= small.size <= small.most_bytes
    assert (len(whole), whole.short, whole.span) == (60, False, 59.0)
    assert measured(whole) <= whole.size <= whole.most_bytes // 4
    assert small.short
    assert 5 < len(small) < 30


def test_the_account_of_bytes_is_not_below_what_is_held() -> None:
    for ticks in (1, CHUNK, 5 * CHUNK):
        history = filled(make_frames(ticks))
        assert measured(history) <= history.size <= measured(history) + 100 * ticks + 700


def test_one_thread_adds_while_another_reads() -> None:
    frames = make_frames(600)
    history = History(seconds=60.0)
    wrong: list[object] = []

    def read() -> None:
        cursor = Cursor(history)
        while history.end < len(frames):
            try:
                number = max(history.first, history.end - 3)
                if history.end and cursor.frame(number) != frames[number]:
                    wrong.append(number)
            except LookupError:
                continue

    reader = threading.Thread(target=read)
    reader.start()
    for frame in frames:
        history.add(frame)
    reader.join(30)
    assert wrong == []
