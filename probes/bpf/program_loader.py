# SPDX-License-Identifier: Apache-2.0
"""What the loader makes of a plan: maps, programs, links, and who gets which of them."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from probes.bpf import bpf_syscall
from probes.bpf.attach import USER, Again, Attacher, batches
from probes.bpf.object_cache import MapShape
from probes.bpf.plan import Attach, Params
from probes.core.errors import ProbeError
from probes.host.open_file import version_of
from probes.ipc import packets
from probes.ipc.messages import MOST_PLACES as MOST_SWITCHED

PROGRAM_BYTES, LINK_BYTES = 8 << 10, 2 << 10
"""What is taken to be in use for each program and link beside what the kernel tells."""
PLACE_BYTES = 512
"""The same for each place of a file at which a link runs a program."""
MOST_NAME = 64
"""Characters of a name that the broker is told."""
MOST_PLACES = 32768
"""Most such places of one load."""


class Made:
    """The descriptors of a loaded probe, as long as the loader has them.

    `fds` are all that is handed over, see `probes.ipc.messages.LoadAnswer` for their order.
    """

    def __init__(self, facts: Params, maps: Mapping[str, int]) -> None:
        self.facts: Params = facts
        self.programs: list[int] = []
        self.links: list[int] = []
        self.groups: list[int | None] = []
        self.recipes: Mapping[int, Again] = {}
        self.failures: dict[int, tuple[str, str]] = {}
        self.notes: tuple[str, ...] = ()
        self._maps = maps
        self._places: dict[int | None, int] = {}
        self._memory: list[tuple[int, int]] = []
        self._shown: dict[str, int] = {}
        self._held: list[int] = []
        self._files: dict[str, int] = {}

    def attach_all(self, wishes: Sequence[Attach], attacher: Attacher) -> None:
        """Attach everything; what is optional, or of a group, may fail by itself."""
        notes: list[str] = []
        for batch in batches(wishes):
            wish = batch[0]
            if wish.group in self.failures:
                continue
            try:
                self._count_places(wish, len(batch))
                links = attacher.attach_batch(batch)
                if wish.keeper is not None:
                    _keep(self._maps[wish.keeper[0]], wish.keeper[1], links[0])
                    continue
                self.links += links
                self.groups += [wish.group] * len(links)
            except ProbeError as error:
                if wish.group is not None:
                    self.failures[wish.group] = (error.why, error.fix)
                    self._detach(wish.group)
                elif wish.optional:
                    notes.append(error.why)
                else:
                    raise
        self.notes = tuple(dict.fromkeys(notes))

    def _count_places(self, wish: Attach, count: int) -> None:
        """Take note of places that are going to be attached to; raises ProbeError for too many."""
        if wish.kind not in USER:
            return
        if sum(self._places.values()) + count > MOST_PLACES:
            why = f"more than {MOST_PLACES} places of programs would be traced at once"
            raise ProbeError(why, "trace fewer functions and static probes")
        self._places[wish.group] = self._places.get(wish.group, 0) + count

    def _detach(self, group: int) -> None:
        """Detach what is attached of a group already."""
        self._places.pop(group, None)
        pairs = list(zip(self.links, self.groups, strict=True))
        packets.close_all([fd for fd, of in pairs if of == group])
        self.links = [fd for fd, of in pairs if of != group]
        self.groups = [of for _, of in pairs if of != group]

    def part(
        self, shapes: Sequence[MapShape], shown: Sequence[str], writable: Collection[str]
    ) -> None:
        """Decide on each map: the dashboard gets those `shown`, read-only but for the `writable`.

        The broker holds maps of perf events, which are emptied when nobody does; the others are
        kept by the programs that use them.
        """
        fds = self._maps.values()
        self._memory = [
            (bpf_syscall.map_id(fd), int(bpf_syscall.fdinfo(fd).get("memlock", 0))) for fd in fds
        ]
        kinds = {shape.name: shape.kind for shape in shapes}
        for name, fd in self._maps.items():
            if kinds[name] == bpf_syscall.MAP_PERF_ARRAY:
                self._held.append(fd)
            elif name not in shown:
                os.close(fd)
            elif name in writable or kinds[name] == bpf_syscall.MAP_RINGBUF:
                # The reader of a ring buffer writes how far it has read.
                self._shown[name] = fd
            else:
                # A descriptor opened with BPF_F_RDONLY cannot be mapped; a frozen map can.
                bpf_syscall.map_freeze(fd)
                self._shown[name] = fd

    @property
    def fds(self) -> list[int]:
        """Descriptors in the order in which they are sent."""
        shown = [self._shown[name] for name in self._shown]
        return [*shown, *self.programs, *self.links, *self._held]

    def answer(self) -> dict[str, Any]:
        """The fields of a LoadAnswer."""
        attached = LINK_BYTES * len(self.links) + PLACE_BYTES * sum(self._places.values())
        return {
            "facts": dict(self.facts),
            "maps": list(self._shown),
            "programs": len(self.programs),
            "links": self.groups,
            "recipes": [self._recipe(link) for link in self.links],
            "held": len(self._held),
            "notes": list(self.notes),
            "groups": sorted({group for group in self.groups if group is not None}),
            "failures": [[group, *words] for group, words in self.failures.items()],
            "map_bytes": sum(size for _, size in self._memory) or None,
            "memory": self._memory,
            "program_bytes": _bytes_of(self.programs) + attached,
        }

    def hold_files(self) -> None:
        """Have the broker hold the files that it is to attach to again."""
        for link in self.links:
            again = self.recipes.get(link)
            if again is None or again.file is None or again.file.link in self._files:
                continue
            self._files[again.file.link] = len(self._held)
            self._held.append(os.dup(again.file.fd))

    def _recipe(self, link: int) -> list[Any]:
        """How to attach again what a link keeps attached; see `probes.ipc.messages.Recipe`."""
        again = self.recipes.get(link)
        if again is None or len(again.places) > MOST_SWITCHED or len(again.target) > MOST_NAME:
            return [""]
        program, file = self.programs.index(again.program), again.file
        held = [self._files[file.link], version_of(file.stat)] if file is not None else [0, ()]
        return [again.kind, program, again.target, again.config, *held, again.places]


def _bytes_of(programs: Sequence[int]) -> int:
    """Bytes of the kernel's memory that programs take, as far as it tells."""
    told = sum(int(bpf_syscall.fdinfo(fd).get("memlock", 0)) for fd in programs)
    # Machine code is about as long as instructions, and is not told.
    return 2 * told + PROGRAM_BYTES * len(programs)


def _keep(events: int, index: int, link: int) -> None:
    """Have a map of perf events keep one attached."""
    try:
        bpf_syscall.map_update(events, index, link)
    finally:
        os.close(link)
