# SPDX-License-Identifier: Apache-2.0
"""What is attached: the programs and links that the broker keeps, by the load that made them."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

from probes.bpf import bpf_syscall
from probes.bpf.map_memory import MapMemory, NoRoomError
from probes.ipc.messages import LoadAnswer, MessageError, Recipe

MOST_UNITS = 1000
"""Loads that may be attached at the same time: each takes kernel memory."""


@dataclass(slots=True)
class Link:
    """What keeps a program attached, -1 while nothing does, and how to make it again."""

    group: int | None
    fd: int
    recipe: Recipe


@dataclass(slots=True)
class Unit:
    """Descriptors that one load left: programs, links by group, and maps that only we hold.

    `maps` are the ids of all of its maps, `program_bytes` what programs and links take. `gate` is
    the memory of its control page.
    """

    programs: list[int]
    links: list[Link]
    held: list[int]
    maps: list[int]
    program_bytes: int
    gate: mmap.mmap | None


QUICK = ("", "raw_tracepoint", "btf_tracepoint", "tracepoint", "edge")
"""Kinds that are attached and detached at once, or are attached to nothing."""


@dataclass(slots=True)
class Bound:
    """What attaching one group of a unit in bursts takes: descriptors that the unit keeps open."""

    recipes: list[Recipe]
    programs: list[int]
    held: list[int]
    gate: mmap.mmap


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
        if answer.recipes and len(answer.recipes) != len(answer.links):
            raise MessageError("it does not tell of each link how to make it again")
        if answer.ok:
            self._memory.add(answer.memory, answer.program_bytes)
            self._last += 1
            answer.unit = self._last
            recipes = answer.recipes or [Recipe()] * len(answer.links)
            made = zip(answer.links, fds[second:third], recipes, strict=True)
            links = [Link(*one) for one in made]
            maps = [number for number, _ in answer.memory]
            held = list(fds[third:])
            gate = _gate(answer, fds)
            unit = Unit(list(fds[first:second]), links, held, maps, answer.program_bytes, gate)
            self._units[self._last] = unit
        return list(fds[:first])

    def detach(self, number: int, groups: Collection[int] | None) -> None:
        """Detach a unit, or only some of its groups; what is not there is detached already."""
        unit = self._units.get(number)
        if unit is None:
            return
        if groups is None:
            del self._units[number]
            self._close(_attached(unit.links) + unit.programs + unit.held)
            _unmap(unit)
            self._memory.detach(unit.maps, unit.program_bytes)
            return
        gone = [link for link in unit.links if link.group in groups]
        unit.links = [link for link in unit.links if link.group not in groups]
        self._close(_attached(gone))

    def runs(self) -> dict[str, tuple[int, int, int]]:
        """By unit, what all of its programs ran; see `probes.ipc.messages.RunStats`."""
        found = {}
        for number, unit in self._units.items():
            totals = (0, 0, 0)
            for fd in unit.programs:
                with suppress(OSError):
                    one = bpf_syscall.run_stats(fd)
                    totals = (totals[0] + one[0], totals[1] + one[1], totals[2] + one[2])
            found[str(number)] = totals
        return found

    def measure(self, on: bool) -> None:
        """Have the kernel count runs from now on, if `on`; raises OSError where it cannot."""
        if on and self._measuring is None:
            self._measuring = bpf_syscall.enable_stats()

    def measure_no_more(self) -> None:
        """The kernel counts runs no more, as far as we are concerned."""
        if self._measuring is not None:
            os.close(self._measuring)
            self._measuring = None

    def close(self) -> None:
        """Detach everything."""
        self.measure_no_more()
        units, self._units = list(self._units.values()), {}
        links = [fd for unit in units for fd in _attached(unit.links)]
        self._close(links + [fd for unit in units for fd in (*unit.programs, *unit.held)])
        for unit in units:
            _unmap(unit)

    def switchable(self, number: int, group: int | None) -> list[Link]:
        """Links that can be attached in bursts, of a unit or of one of its groups."""
        unit = self._units.get(number)
        links = [] if unit is None else unit.links
        quick = [one for one in links if one.recipe.kind in QUICK[1:]]
        return [one for one in quick if group in (None, one.group)]

    def has_long(self, number: int, group: int) -> bool:
        """Whether a group has links that take long to make, and to close."""
        return any(one.recipe.kind not in QUICK for one in self._of(number, group))

    def bound(self, number: int, group: int) -> Bound | None:
        """A group that is alone in its unit, so that the gate is its own; None where it is not.

        All of its links have to be such that they can be made again.
        """
        unit, links = self._units.get(number), self._of(number, group)
        if unit is None or unit.gate is None or not links or len(links) != len(unit.links):
            return None
        if not all(one.recipe.kind for one in links):
            return None
        return Bound([one.recipe for one in links], unit.programs, unit.held, unit.gate)

    def pause_all(self, number: int, group: int) -> None:
        """Detach a group, for a while, without waiting for that."""
        links = self._of(number, group)
        self._close(_attached(links))
        for link in links:
            link.fd = -1

    def _of(self, number: int, group: int) -> list[Link]:
        unit = self._units.get(number)
        return [] if unit is None else [one for one in unit.links if one.group == group]

    def gated(self, number: int, group: int | None) -> mmap.mmap | None:
        """The control page by which the whole unit is told to count; of a group there is none."""
        unit = self._units.get(number)
        return unit.gate if unit is not None and group is None else None

    def run_edges(self, number: int, links: Sequence[Link], burst: int) -> None:
        """Run what is to run where a burst begins, or ends (`burst` 0), on each CPU that runs.

        Raises OSError where that cannot be done.
        """
        programs = self._units[number].programs
        for link in links:
            if link.recipe.kind == "edge" and link.recipe.program < len(programs):
                for cpu in range(link.recipe.config):
                    try:
                        bpf_syscall.run_on_cpu(programs[link.recipe.program], cpu, [burst])
                    except OSError as error:
                        if error.errno != errno.ENXIO:  # a CPU that does not run now
                            raise

    def attach_again(self, number: int, links: Sequence[Link]) -> None:
        """Attach what is detached; raises OSError."""
        programs = self._units[number].programs
        for link in links:
            if link.fd < 0:
                link.fd = _attached_again(link.recipe, programs)

    def pause(self, links: Sequence[Link]) -> None:
        """Detach, for a while."""
        slow = [link.fd for link in links if link.recipe.kind == "tracepoint" and link.fd >= 0]
        for link in links:
            if link.recipe.kind == "edge":
                continue
            if link.fd >= 0 and link.recipe.kind != "tracepoint":
                os.close(link.fd)
            link.fd = -1
        self._close(slow)


def _attached(links: Sequence[Link]) -> list[int]:
    return [link.fd for link in links if link.fd >= 0]


def _unmap(unit: Unit) -> None:
    if unit.gate is not None:
        unit.gate.close()


def _gate(answer: LoadAnswer, fds: Sequence[int]) -> mmap.mmap | None:
    """The control page in memory, if there is one that can be written."""
    if "control" not in answer.maps:
        return None
    with suppress(OSError, ValueError):
        return mmap.mmap(fds[answer.maps.index("control")], mmap.PAGESIZE)
    return None


def _attached_again(recipe: Recipe, programs: Sequence[int]) -> int:
    """The descriptor that keeps a program attached; raises OSError."""
    if recipe.program >= len(programs):
        raise OSError(errno.EINVAL, "there is no such program")
    program = programs[recipe.program]
    if recipe.kind != "tracepoint":
        name = recipe.target if recipe.kind == "raw_tracepoint" else None
        return bpf_syscall.raw_tracepoint_open(program, name)
    event = bpf_syscall.perf_event_open(bpf_syscall.PERF_TRACEPOINT, recipe.config, cpu=0)
    try:
        bpf_syscall.perf_set_bpf(event, program)
        bpf_syscall.perf_enable(event)
    except OSError:
        os.close(event)
        raise
    return event
