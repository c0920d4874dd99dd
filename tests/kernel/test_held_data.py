# SPDX-License-Identifier: Apache-2.0
"""The unprivileged side holds memory, not programs: what can be done with what it is given."""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from probes.bpf import bpf_syscall
from probes.broker import server as broker
from probes.broker.client import BrokerLink
from probes.host import privileges
from probes.ipc import packets
from tests.kernel.harness import (
    children_of,
    eventually,
    held_programs,
    left_in_kernel,
    program_ids,
)
from tui.registry import REGISTRY

pytestmark = pytest.mark.kernel

PATHS = {entry.name: entry.probe_path for entry in REGISTRY}
PARAMS: dict[str, dict[str, Any]] = {
    "syscalls": {"latency": True},
    "execs": {},
    "latency": {"targets": ["runq", "uprobe:libc:malloc"]},
    "pmc": {"set": "base", "mode": "all"},
}
CONTROL_PAGES = {"control", "handover"}
RING_BUFFERS = {"crowded", "events"}
MAP_UPDATE, MAP_DELETE, LINK_CREATE, RAW_TRACEPOINT_OPEN, MAP_FREEZE = 2, 3, 28, 17, 22


class Held(dict[str, list[tuple[str, int]]]):
    """By probe the maps that the broker hands over, with their names; and the link to it."""

    link: BrokerLink
    units: list[int]


@pytest.fixture(scope="module")
def held() -> Iterator[Held]:
    pid, link = broker.fork(PATHS)
    link.answers.settimeout(60)
    found = Held()
    found.link, found.units = link, []
    for number, (name, params) in enumerate(PARAMS.items()):
        link.send({"id": number, "op": "load", "probe": name, "params": params})
        received = packets.receive(link.answers)
        assert received is not None
        answer: Any = received[0]
        assert answer["ok"], answer
        found[name] = list(zip(answer["maps"], received[1], strict=True))
        found.units.append(answer["unit"])
    yield found
    link.close()
    packets.close_all([fd for maps in found.values() for _, fd in maps])
    os.waitpid(pid, 0)


def every_map(held: Held) -> list[tuple[str, int]]:
    return [(name, fd) for maps in held.values() for name, fd in maps]


def bpf(command: int, attr: bytes) -> int | None:
    """The errno of a bpf(2) call, None if it succeeded (what it made is closed)."""
    try:
        made = bpf_syscall._bpf(command, attr)
    except OSError as error:
        return error.errno
    if made > 2:
        os.close(made)
    return None


def as_nobody(work: Callable[[], Any]) -> Any:
    """What a function returns in a process that is nobody, without capabilities."""
    ours, theirs = packets.pair()
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            privileges.drop(privileges.User(65534, 65534, None))
            packets.send(theirs, {"result": work()})
        os._exit(0)
    theirs.close()
    received = packets.receive(ours)
    os.waitpid(pid, 0)
    ours.close()
    assert received is not None
    told: Any = received[0]
    return told["result"]


def test_nothing_of_it_is_a_program_or_a_link(held: Held) -> None:
    kinds = {os.readlink(f"/proc/self/fd/{fd}") for _, fd in every_map(held)}
    assert kinds == {"anon_inode:bpf-map"}
    for _, fd in every_map(held):
        assert "map_type" in bpf_syscall.fdinfo(fd)
    # There are programs, and the broker has them.
    assert program_ids()


def test_the_kernel_tells_which_maps_exist(held: Held) -> None:
    numbers = [bpf_syscall.map_id(fd) for _, fd in every_map(held)]
    assert len(set(numbers)) == len(numbers)
    assert all(map(bpf_syscall.map_exists, numbers))
    fd = bpf_syscall.map_create(bpf_syscall.MAP_ARRAY, 4, 4096, 1, bpf_syscall.MAP_MMAPABLE)
    number = bpf_syscall.map_id(fd)
    # A mapping keeps it as a descriptor does.
    mapped = mmap.mmap(fd, 4096, mmap.MAP_SHARED)
    os.close(fd)
    assert bpf_syscall.map_exists(number)
    mapped.close()
    eventually("it is gone", lambda: not bpf_syscall.map_exists(number))


def test_maps_can_be_read_and_not_written_by_anybody(held: Held) -> None:
    key, value = ctypes.c_uint32(0), ctypes.create_string_buffer(1 << 16)
    addresses = [ctypes.addressof(key), ctypes.addressof(value)]

    def tries() -> dict[str, list[object]]:
        found: dict[str, list[object]] = {}
        for probe, maps in held.items():
            for name, fd in maps:
                update = bpf(MAP_UPDATE, struct.pack("=2I3Q", fd, 0, *addresses, 0))
                delete = bpf(MAP_DELETE, struct.pack("=2I3Q", fd, 0, addresses[0], 0, 0))
                try:
                    mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_WRITE).close()
                    mapped = True
                except OSError:
                    mapped = False
                found[f"{probe} {name}"] = [update, delete, mapped]
        return found

    unwritable = 0
    for result in (tries(), as_nobody(tries)):
        for name, (update, delete, mapped) in result.items():
            kind = name.split()[1]
            if kind in CONTROL_PAGES:
                continue
            assert delete is not None
            assert update is not None
            # The page of a ring buffer that says how far it was read is its reader's.
            assert mapped is (kind in RING_BUFFERS), name
            unwritable += kind not in RING_BUFFERS
    assert unwritable >= 2 * 12


def test_what_is_held_attaches_to_nothing(held: Held) -> None:
    path = ctypes.create_string_buffer(b"/usr/bin/su")
    offset = (ctypes.c_uint64 * 1)(0x1000)
    places = struct.pack(
        "=4Q4I", ctypes.addressof(path), *[ctypes.addressof(offset)] * 2, 0, 1, 0, 0, 0
    )

    def tries() -> list[int | None]:
        found = []
        for _, fd in every_map(held):
            multi = struct.pack("=4I", fd, 0, bpf_syscall.ATTACH_UPROBE_MULTI, 0) + places
            found.append(bpf(LINK_CREATE, multi))
            name = ctypes.create_string_buffer(b"sys_enter")
            raw = struct.pack("=QII", ctypes.addressof(name), fd, 0)
            found.append(bpf(RAW_TRACEPOINT_OPEN, raw))
        return found

    assert None not in as_nobody(tries)
    assert None not in tries()


def test_hostile_words_in_control_pages_harm_nothing(held: Held) -> None:
    """Any words at any moment: programs go on, and other processes see nothing of it."""
    pages = [(name, fd) for name, fd in every_map(held) if name in CONTROL_PAGES]
    assert {name for name, _ in pages} == CONTROL_PAGES
    mapped = [mmap.mmap(os.dup(fd), 4096, mmap.MAP_SHARED) for _, fd in pages]
    for round_ in range(300):
        for memory in mapped:
            # Enabled, with all filters, and every other word at its extremes.
            words = [(1 << 64) - 1 - round_ * 7 * n if n & 1 else round_ << n for n in range(64)]
            memory[:512] = struct.pack("=64Q", *(word & (1 << 64) - 1 for word in words))
            memory[:8] = struct.pack("=Q", 1)
        for _ in range(20):
            os.getppid()
    for memory in mapped:
        memory[:8] = bytes(8)
        memory.close()
    held.link.send({"id": 50, "op": "runs"})
    received = packets.receive(held.link.answers)
    assert received is not None
    told: Any = received[0]
    assert len(told["runs"]) == len(PARAMS)


def test_the_end_of_the_broker_detaches_all_although_maps_are_held() -> None:
    before = program_ids()
    pid, link = broker.fork(PATHS)
    link.answers.settimeout(60)
    params = {"targets": ["uprobe:libc:malloc"]}
    link.send({"id": 1, "op": "load", "probe": "latency", "params": params})
    received = packets.receive(link.answers)
    assert received is not None
    assert received[1]
    assert held_programs(pid)
    assert pid in children_of(os.getpid())
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    eventually("all programs are gone", lambda: not left_in_kernel(before))
    packets.close_all(received[1])
    link.close()


def test_the_broker_ends_with_the_dashboard_although_others_hold_its_socket() -> None:
    reading, writing = os.pipe()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    dashboard = os.fork()
    if dashboard == 0:
        pid, link = broker.fork(PATHS)
        held = [link.requests, link.answers.fileno()]
        socket.send_fds(theirs, [str(pid).encode()], held)
        os.read(reading, 1)
        os._exit(0)
    data, fds, _, _ = socket.recv_fds(ours, 64, 2)
    broker_pid = int(data)
    assert len(fds) == 2
    assert os.path.exists(f"/proc/{broker_pid}")
    os.close(writing)
    os.kill(dashboard, 9)
    os.waitpid(dashboard, 0)

    def has_ended() -> bool:
        try:
            with open(f"/proc/{broker_pid}/stat", encoding="ascii") as file:
                return ") Z " in file.read()
        except FileNotFoundError:
            return True

    eventually("the broker ends as well", has_ended)
    packets.close_all([*fds, reading])
    ours.close()
    theirs.close()
