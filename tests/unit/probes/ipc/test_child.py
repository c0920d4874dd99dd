# SPDX-License-Identifier: Apache-2.0
"""Children of the broker: their limits, and what they have open."""

from __future__ import annotations

import os
import resource
import socket
import time
from typing import Any

import pytest

from probes.ipc import child_process, cpu_pace, packets
from probes.ipc.child_process import Kind, Limits
from probes.ipc.cpu_pace import Pace
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
        packets.send(
            sock, {"names": names, "limits": limits, "group": os.getpgid(0) == os.getpid()}
        )

    one = child_process.start(work, Limits(memory=1 << 30, cpu=3))
    received = packets.receive(one.ours)
    one.end()
    packets.close_all([reading, writing])
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
        packets.send(sock, {"held": len(held)})

    def spins_on(sock: socket.socket) -> None:
        child_process.limit_time(Limits(cpu=0))
        while True:
            pass

    for work in (eats, spins_on):
        one = child_process.start(work, Limits(memory=512 << 20, cpu=5))
        assert packets.receive(one.ours) is None
        one.end()


def test_children_that_cannot_be_ended_have_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that answers nothing holds whoever asked it, killed or not."""
    kind = Kind()
    one = child_process.start(lambda sock: None, Limits(), kind=kind)
    monkeypatch.setattr(child_process.Child, "_lingering", [one] * child_process.MOST_LINGERING)
    with pytest.raises(BlockingIOError):
        child_process.start(lambda sock: None, Limits(), kind=kind)
    with pytest.raises(BlockingIOError):
        child_process.start_untrusted(lambda: {}, Limits(), kind=kind)
    # They hold up none that are for something else.
    for other in (Kind(kind.pace), child_process.OTHER):
        child_process.start(lambda sock: None, Limits(), kind=other).end()
    monkeypatch.undo()
    child_process.start(lambda sock: None, Limits()).end()
    one.end()


def spins(seconds: float) -> None:
    """Take CPU time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_what_children_take_is_charged_to_their_kind() -> None:
    """While they go on, and what their own children took at their end; each once."""

    def work(sock: socket.socket) -> None:
        while packets.receive(sock) is not None:
            if os.fork() == 0:
                spins(0.2)
                os._exit(0)
            os.wait()
            spins(0.2)
            packets.send(sock, {})

    kind = Kind(Pace(lambda: 0.0))
    one = child_process.start(work, Limits(), kind=kind)
    left = []
    for _ in range(2):
        packets.send(one.ours, {})
        assert packets.receive(one.ours) is not None
        one.charge()
        left.append(cpu_pace.BURST - kind.pace._left)
    assert left[0] >= 0.2
    assert left[1] >= left[0] + 0.2
    # It may wait for a CPU for any time, and takes none by that.
    one.ended(20)
    assert 0.8 <= cpu_pace.BURST - kind.pace._left < 1.6


def void(value: object) -> None:
    """Nothing."""


def test_a_kind_that_takes_much_is_less_urgent_and_then_waits() -> None:
    now = [0.0]
    kind = Kind(Pace(lambda: now[0]))
    one = child_process.start(lambda sock: void(packets.receive(sock)), Limits(), kind=kind)
    usual = os.getpriority(os.PRIO_PROCESS, 0)

    def urgency() -> int:
        one.begin()
        return os.getpriority(os.PRIO_PROCESS, one.pid) - usual

    assert (urgency(), kind.pace.delay()) == (0, 0.0)
    kind.pace.charge(cpu_pace.BURST / 2 + 1)
    assert (urgency(), kind.pace.delay()) == (cpu_pace.NICE, 0.0)
    kind.pace.charge(cpu_pace.BURST / 2)
    assert kind.pace.delay() == pytest.approx(1 / cpu_pace.RATE)
    now[0] += 1 / cpu_pace.RATE
    assert kind.pace.delay() == 0.0
    # In the mean it is the rate, however long.
    used = 0
    for _ in range(1000):
        now[0] += 1.0
        if kind.pace.delay() == 0.0:
            kind.pace.charge(1.0)
            used += 1
    assert used == pytest.approx(1000 * cpu_pace.RATE, abs=2)
    now[0] += 10 * cpu_pace.BURST / cpu_pace.RATE
    assert (urgency(), kind.pace._left) == (0, cpu_pace.BURST)
    one.end()
