# SPDX-License-Identifier: Apache-2.0
"""What is attached: the programs and links that the broker keeps, by the load that made them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

from probes import bpfsys
from probes.map_memory import MapMemory, NoRoomError
from probes.messages import LoadAnswer, MessageError

MOST_UNITS = 1000
"""Loads that may be attached at the same time: each takes kernel memory."""


@dataclass(slots=True)
class Unit:
    """Descriptors that one load left: programs, links by group, and maps that only we hold.

    `maps` are the ids of all of its maps, `program_bytes` what programs and links take.
    """

    programs: list[int]
    links: list[tuple[int | None, int]]
    held: list[int]
    maps: list[int]
    program_bytes: int


class Units:
    """All that is attached. `close_all` closes descriptors without making us wait."""

    def __init__(self, close_all: Callable[[Sequence[int]], None]) -> None:
        self._close = close_all
        self._units: dict[int, Unit] = {}
        self._memory = MapMemory()
        self._last = 0
        self._measuring: int | None = None

    def check_room(self) -> None:
        """Raises NoRoomError if no more may be attached."""
        if len(self._units) >= MOST_UNITS:
            raise NoRoomError(f"{MOST_UNITS} groups of programs are attached, which is the most")
        self._memory.check()

    def adopt(self, answer: LoadAnswer, fds: Sequence[int]) -> list[int]:
        """Keep what a loader made, as the answer's `unit`; returns the maps' descriptors.

        Raises MessageError, and keeps nothing, if the descriptors are not those of the answer, and
        NoRoomError if its maps and programs are too much.
        """
        first = len(answer.maps)
        second = first + answer.programs
        third = second + len(answer.links)
        if min(answer.programs, answer.held) < 0 or third + answer.held != len(fds):
            raise MessageError(f"{len(fds)} descriptors are not what it tells of")
        if answer.ok:
            self._memory.add(answer.memory, answer.program_bytes)
            self._last += 1
            answer.unit = self._last
            links = list(zip(answer.links, fds[second:third], strict=True))
            maps = [number for number, _ in answer.memory]
            held = list(fds[third:])
            unit = Unit(list(fds[first:second]), links, held, maps, answer.program_bytes)
            self._units[self._last] = unit
        return list(fds[:first])

    def detach(self, number: int, groups: Collection[int] | None) -> None:
        """Detach a unit, or only some of its groups; what is not there is detached already."""
        unit = self._units.get(number)
        if unit is None:
            return
        if groups is None:
            del self._units[number]
            self._close([fd for _, fd in unit.links] + unit.programs + unit.held)
            self._memory.detach(unit.maps, unit.program_bytes)
            return
        gone = [fd for group, fd in unit.links if group in groups]
        unit.links = [(group, fd) for group, fd in unit.links if group not in groups]
        self._close(gone)

    def runs(self) -> dict[str, tuple[int, int, int]]:
        """By unit, what all of its programs ran; see `probes.messages.RunStats`."""
        found = {}
        for number, unit in self._units.items():
            totals = (0, 0, 0)
            for fd in unit.programs:
                with suppress(OSError):
                    one = bpfsys.run_stats(fd)
                    totals = (totals[0] + one[0], totals[1] + one[1], totals[2] + one[2])
            found[str(number)] = totals
        return found

    def measure(self, on: bool) -> None:
        """Have the kernel count runs from now on, if `on`; raises OSError where it cannot."""
        if on and self._measuring is None:
            self._measuring = bpfsys.enable_stats()

    def measure_no_more(self) -> None:
        """The kernel counts runs no more, as far as we are concerned."""
        if self._measuring is not None:
            os.close(self._measuring)
            self._measuring = None

    def close(self) -> None:
        """Detach everything."""
        self.measure_no_more()
        units, self._units = list(self._units.values()), {}
        links = [fd for unit in units for _, fd in unit.links]
        self._close(links + [fd for unit in units for fd in (*unit.programs, *unit.held)])
