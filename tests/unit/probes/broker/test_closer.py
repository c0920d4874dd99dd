# SPDX-License-Identifier: Apache-2.0
"""Descriptors that are closed by a child, so that nobody waits for the kernel."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator

import pytest

from probes.broker import fd_closer
from probes.broker.fd_closer import Closer


@pytest.fixture
def descriptors() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def end_of(one: Closer) -> None:
    """Wait until all children have ended, and are reaped."""
    last = time.monotonic() + 20
    while one._pids and time.monotonic() < last:
        one.reap()
        time.sleep(0.01)
    assert not one._pids


def assert_closed(reading: int) -> None:
    """The last copy of the other end is closed."""
    assert select.select([reading], [], [], 20)[0]
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_ours_are_closed_at_once_and_the_last_ones_by_a_child(descriptors: None) -> None:
    one = Closer()
    one.close([])
    assert not one._pids
    pipes = [os.pipe() for _ in range(300)]
    one.close([writing for _, writing in pipes])
    assert len(one._pids) == 1
    for reading, writing in pipes:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(writing)
        assert_closed(reading)
    end_of(one)


def test_a_child_keeps_nothing_else_open(
    descriptors: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    go, wait = os.pipe()
    monkeypatch.setattr(fd_closer, "close_at_once", lambda fds: time.sleep(0.3))
    one = Closer()
    one.close([wait])
    os.close(writing)
    # The child still sleeps, and does not hold this pipe.
    assert_closed(reading)
    assert one._pids
    end_of(one)
    os.close(go)


def test_without_processes_the_caller_waits(
    descriptors: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    reading, writing = os.pipe()
    Closer().close([writing])
    assert_closed(reading)
