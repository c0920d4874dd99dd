# SPDX-License-Identifier: Apache-2.0
"""Descriptors that are given back: closed by a child, which ends when there are no more."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

import pytest

from probes import closer
from probes.closer import Closer


def pipe_to(one: Closer) -> int:
    """The reading end of a pipe whose other end was given to be closed."""
    reading, writing = os.pipe()
    one.close([writing])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(writing)
    return reading


def assert_closed(reading: int) -> None:
    """The last copy of the other end is closed."""
    assert select.select([reading], [], [], 20)[0]
    assert os.read(reading, 1) == b""
    os.close(reading)


@pytest.fixture
def descriptors() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def test_one_child_closes_what_comes(descriptors: None) -> None:
    one = Closer(lambda: None)
    one.close([])
    assert one.sock is None
    first = pipe_to(one)
    child = one._pid
    second = pipe_to(one)
    assert one._pid == child
    assert_closed(first)
    assert_closed(second)
    one.end()
    os.waitpid(child, 0)


def test_an_idle_child_ends_and_the_next_is_another(
    descriptors: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closer, "IDLE_SECONDS", 0.01)
    one = Closer(lambda: None)
    assert_closed(pipe_to(one))
    assert one.sock is not None
    assert select.select([one.sock], [], [], 20)[0]
    # Not told yet: what is given to a child that has ended is closed all the same.
    assert_closed(pipe_to(one))
    child = one._pid
    one.reap()
    with pytest.raises(ChildProcessError):
        os.waitpid(child, os.WNOHANG)
    assert_closed(pipe_to(one))
    assert one._pid != child
    one.end()
    os.waitpid(one._pid, 0)


def test_the_child_lets_go_of_what_it_must_not_keep(descriptors: None) -> None:
    reading, writing = os.pipe()
    one = Closer(lambda: os.close(writing))
    other = pipe_to(one)
    os.close(writing)
    assert_closed(reading)
    assert_closed(other)
    one.end()
    os.waitpid(one._pid, 0)
