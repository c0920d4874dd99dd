# SPDX-License-Identifier: Apache-2.0
"""Children of the broker: their limits, and what they have open."""

from __future__ import annotations

import os
import resource
import socket
from typing import Any

import pytest

from probes import child, ipc
from probes.child import Limits
from tests.unit.broker_bench import open_descriptors


def own_memory() -> int:
    """Bytes of this process's address space."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def test_a_child_has_its_limits_and_nothing_else_open() -> None:
    reading, writing = os.pipe()

    def work(sock: socket.socket) -> None:
        names = sorted(os.readlink(f"/proc/self/fd/{n}") for n in open_descriptors())
        limits = [resource.getrlimit(n)[0] for n in (resource.RLIMIT_AS, resource.RLIMIT_CORE)]
        ipc.send(sock, {"names": names, "limits": limits, "group": os.getpgid(0) == os.getpid()})

    one = child.start(work, Limits(memory=1 << 30, cpu=3))
    received = ipc.receive(one.ours)
    one.end()
    ipc.close_all([reading, writing])
    assert received is not None
    told: Any = received[0]
    memory, core = told["limits"]
    assert 1 << 30 < memory < (1 << 30) + own_memory() + (64 << 20)
    assert core == 0
    assert told["group"]
    assert told["names"][:3] == ["/dev/null"] * 3
    assert len(told["names"]) == 4
    assert told["names"][3].startswith("socket:")


def test_a_child_that_eats_memory_or_time_ends() -> None:
    def eats(sock: socket.socket) -> None:
        held = [bytearray(50 << 20) for _ in range(100)]
        ipc.send(sock, {"held": len(held)})

    def spins(sock: socket.socket) -> None:
        child.limit_time(Limits(cpu=0))
        while True:
            pass

    for work in (eats, spins):
        one = child.start(work, Limits(memory=512 << 20, cpu=5))
        assert ipc.receive(one.ours) is None
        one.end()


def test_children_that_cannot_be_ended_have_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that answers nothing holds whoever asked it, killed or not."""
    one = child.start(lambda sock: None, Limits())
    monkeypatch.setattr(child.Child, "_lingering", [one] * child.MOST_LINGERING)
    with pytest.raises(BlockingIOError):
        child.start(lambda sock: None, Limits())
    monkeypatch.undo()
    child.start(lambda sock: None, Limits()).end()
    one.end()
