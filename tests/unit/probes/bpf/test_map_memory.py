# SPDX-License-Identifier: Apache-2.0
"""The maps that exist take a bounded part of the kernel's memory, whoever holds them."""

from __future__ import annotations

import errno
import os

import pytest

from probes.bpf import bpf_syscall, map_memory
from probes.bpf.map_memory import MapMemory, NoRoomError

MIB = 1 << 20


@pytest.fixture
def existing(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The maps that the kernel has; three of a MiB each are the most."""
    found: set[int] = set()
    monkeypatch.setattr(map_memory, "most", lambda: 3 * MIB)
    monkeypatch.setattr(bpf_syscall, "map_exists", lambda number: number in found)
    return found


def test_maps_of_attached_units_count(existing: set[int]) -> None:
    memory = MapMemory()
    memory.add([(1, MIB), (2, MIB)])
    memory.add([(3, MIB)])
    memory.check()
    with pytest.raises(NoRoomError, match="would take 4 MiB of the kernel's memory, and 3 MiB"):
        memory.add([(4, MIB)])


def test_maps_of_detached_units_count_while_somebody_holds_them(existing: set[int]) -> None:
    memory = MapMemory()
    existing |= {2}
    memory.add([(1, MIB), (2, MIB), (3, MIB)])
    memory.detach([1, 2])
    # The first one is gone, the second one is held by somebody else.
    memory.add([(4, MIB)])
    with pytest.raises(NoRoomError):
        memory.add([(5, MIB)])
    existing.clear()
    memory.add([(5, MIB)])


def test_thousands_that_are_gone_take_no_room(existing: set[int]) -> None:
    memory = MapMemory()
    for number in range(5000):
        memory.add([(number, MIB)])
        memory.detach([number])


def test_where_the_kernel_does_not_say_they_count_for_a_while(
    existing: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(number: int) -> bool:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(bpf_syscall, "map_exists", refuse)
    memory = MapMemory()
    memory.add([(1, 3 * MIB)])
    memory.detach([1])
    with pytest.raises(NoRoomError):
        memory.add([(2, MIB)])
    monkeypatch.setattr(map_memory, "UNKNOWN_SECONDS", 0.0)
    memory.add([(2, MIB)])


def test_a_map_to_which_no_descriptor_is_left_counts(
    existing: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(number: int) -> bool:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(bpf_syscall, "map_exists", refuse)
    memory = MapMemory()
    memory.add([(1, 3 * MIB)])
    memory.detach([1])
    with pytest.raises(NoRoomError):
        memory.check(1)


def test_the_bound_is_never_more_than_half_of_the_machine() -> None:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    assert 0 < map_memory.most() <= pages // 2


def test_programs_count_as_long_as_their_unit_is_attached(existing: set[int]) -> None:
    memory = MapMemory()
    memory.add([(1, MIB)], MIB)
    with pytest.raises(NoRoomError, match="maps and programs of all probes would take 4 MiB"):
        memory.add([(2, MIB)], MIB)
    memory.detach([1], MIB)
    memory.add([(2, MIB)], 2 * MIB)
    with pytest.raises(NoRoomError):
        memory.check(1)
