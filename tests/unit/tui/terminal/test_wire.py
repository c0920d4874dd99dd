# SPDX-License-Identifier: Apache-2.0
"""The wire to the terminal: what a terminal does not take is bounded, and nobody waits for it."""

from __future__ import annotations

import fcntl
import os
import pty
import threading
import tty
from collections.abc import Iterator

import pytest

from tui.terminal.writer import LIMIT, NO_STALL, TerminalWriter

DEADLINE = 20.0


class Clock:
    """A clock that is put forward."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Pipe:
    """A pipe with a wire at its one end, and what became of it."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.idle, self.died = threading.Event(), threading.Event()
        self.clock = Clock()
        self.wire = TerminalWriter(
            self.writer, on_idle=self.idle.set, on_death=self.died.set, clock=self.clock
        )
        self.wire.start()

    def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        out = b""
        while len(out) < size:
            out += os.read(self.reader, size - len(out))
        return out

    def fill(self) -> int:
        """Have the wire wait for its reader: more than the pipe holds; how much that is."""
        room = fcntl.fcntl(self.writer, fcntl.F_GETPIPE_SZ) + 1
        self.wire.write("x" * room)
        while self.wire._waiting:  # until the thread has taken it
            threading.Event().wait(0.001)
        return room


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    os.close(made.reader)
    made.wire.stop(DEADLINE)
    os.close(made.writer)


def test_bytes_come_in_their_order_and_are_counted(pipe: Pipe) -> None:
    texts = [f"{n};" for n in range(1000)] + ["\u2588\u65e5"]
    for text in texts:
        pipe.wire.write(text)
    whole = "".join(texts).encode()
    assert pipe.read(len(whole)) == whole
    assert pipe.wire.drain(DEADLINE)
    assert (pipe.wire.written, pipe.wire.held, pipe.wire.torn) == (len(whole), 0, False)


def test_what_is_not_taken_is_bounded_and_the_rest_dropped_whole(pipe: Pipe) -> None:
    held = pipe.fill()
    for paint in (True, False):
        for n in range(10_000):
            pipe.wire.write(f"{n:05}" * 20, paint)
    assert pipe.wire.torn
    assert pipe.wire.held <= held + LIMIT
    assert pipe.read(held) == b"x" * held
    left = LIMIT // 100 * 100
    data = pipe.read(left)
    assert [data[at : at + 5] for at in range(0, left, 100)] == [
        f"{n:05}".encode() for n in range(left // 100)
    ]
    assert pipe.wire.drain(DEADLINE)
    pipe.wire.torn = False
    pipe.wire.write("anew", paint=True)
    assert pipe.read(4) == b"anew"
    assert not pipe.wire.torn


def test_one_repaint_may_be_larger_than_the_limit(pipe: Pipe) -> None:
    pipe.wire.write("y" * (3 * LIMIT), paint=True)
    pipe.wire.write("z", paint=True)
    assert pipe.wire.torn
    assert pipe.read(3 * LIMIT) == b"y" * (3 * LIMIT)
    assert pipe.wire.drain(DEADLINE)
    pipe.wire.write("end")
    assert pipe.read(3) == b"end"


def test_who_asks_is_told_once_when_all_is_sent(pipe: Pipe) -> None:
    assert pipe.wire.ask_idle()
    room = pipe.fill()
    assert not pipe.wire.ask_idle()
    assert not pipe.idle.is_set()
    pipe.read(room)
    assert pipe.idle.wait(DEADLINE)
    pipe.idle.clear()
    pipe.wire.write("more")
    assert pipe.wire.drain(DEADLINE)
    assert not pipe.idle.is_set()


def test_stalls_are_measured_until_they_are_read(pipe: Pipe) -> None:
    assert pipe.wire.stall() == NO_STALL
    room = pipe.fill()
    pipe.clock.now += 3
    assert pipe.wire.stall() == (100.0, 3.0)
    pipe.clock.now += 4
    pipe.read(room)
    assert pipe.wire.drain(DEADLINE)
    pipe.clock.now += 50
    assert pipe.wire.stall() == (100.0, 7.0)
    assert pipe.wire.stall() == NO_STALL


def test_a_time_in_which_we_stood_still_ourselves_is_no_stall(pipe: Pipe) -> None:
    room = pipe.fill()
    pipe.clock.now += 30
    pipe.wire.forgive()
    pipe.clock.now += 1
    assert pipe.wire.stall() == (130.0, 1.0)
    pipe.read(room)


def test_repaints_that_wait_can_be_dropped_and_nothing_else(pipe: Pipe) -> None:
    room = pipe.fill()
    for word in ("paint", "mode"):
        pipe.wire.write(word, paint=word == "paint")
    pipe.wire.discard()
    assert pipe.read(room + 4)[-4:] == b"mode"
    assert pipe.wire.drain(DEADLINE)


def test_stopping_does_not_wait_for_a_terminal_that_takes_nothing(pipe: Pipe) -> None:
    pipe.fill()
    assert not pipe.wire.drain(0.01)
    pipe.wire.stop(0.01)
    held = pipe.wire.held
    pipe.wire.write("late")
    assert pipe.wire.held == held > 0


def test_a_terminal_that_is_gone_is_said_once_and_takes_everything() -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    died: list[str] = []
    gone = threading.Event()

    def on_death() -> None:
        died.append("died")
        gone.set()

    wire = TerminalWriter(slave, on_death=on_death)
    wire.start()
    for _ in range(20):
        wire.write("x" * 60_000)
    os.close(master)
    assert gone.wait(DEADLINE)
    wire.write("to nobody")
    assert (wire.dead, wire.held, died) == (True, 0, ["died"])
    assert wire.ask_idle()
    wire.stop(DEADLINE)
    os.close(slave)


def test_a_terminal_that_another_program_made_non_blocking(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer, False)
    room = pipe.fill()
    assert pipe.read(room) == b"x" * room
    assert pipe.wire.drain(DEADLINE)
    assert not pipe.wire.dead


def test_characters_that_a_terminal_does_not_know_are_escaped() -> None:
    reader, writer = os.pipe()
    wire = TerminalWriter(writer, encoding="latin-1")
    wire.start()
    wire.write("\xe9\u2588")
    assert os.read(reader, 100) == b"\xe9\\u2588"
    wire.stop(DEADLINE)
    os.close(reader)
    os.close(writer)


def test_writes_from_many_threads_are_whole(pipe: Pipe) -> None:
    def send(word: str) -> None:
        for _ in range(50):
            pipe.wire.write(word * 10)

    threads = [threading.Thread(target=send, args=(word,)) for word in "abcd"]
    for thread in threads:
        thread.start()
    data = pipe.read(4 * 50 * 10).decode()
    for thread in threads:
        thread.join()
    pieces = [data[at : at + 10] for at in range(0, len(data), 10)]
    assert all(len(set(piece)) == 1 for piece in pieces)
