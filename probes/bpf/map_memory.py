# SPDX-License-Identifier: Apache-2.0
"""Bounds the kernel memory of what loads have made, also of maps that were detached.

A map lives for as long as anybody holds it, and the unprivileged side holds what it was handed. So
the maps of a detached unit count until the kernel says that they are gone. Programs and links are
the broker's alone, and go with their unit.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable

from probes.bpf import bpf_syscall
from probes.core import kernel
from probes.ipc.messages import MessageError

MOST, MOST_A_CPU = 1 << 30, 16 << 20
"""Bytes of all maps at the same time: the same everywhere, and for each possible CPU."""
UNKNOWN_SECONDS = 60.0
"""How long maps of a detached unit count where the kernel does not say whether they are gone."""


class NoRoomError(MessageError):
    """The maps that exist take as much memory as they may."""


def most() -> int:
    """Bytes that all maps may take here: never more than half of the machine's memory."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    return min(MOST + MOST_A_CPU * kernel.possible_cpus(), memory // 2)


class MapMemory:
    """Which maps exist, by their ids, as far as is known.

    Without CAP_SYS_ADMIN the kernel does not tell whether a map exists. There a map of a detached
    unit counts for a minute: refusing probes for ever, to somebody who has often switched them
    on and off, would be worse than memory that a process may keep which was taken over.
    """

    def __init__(self) -> None:
        self._bytes: dict[int, int] = {}
        self._detached: dict[int, float] = {}
        self._total = 0
        self._programs = 0

    def check(self, more: int = 0) -> None:
        """Raises NoRoomError if `more` bytes are too many."""
        limit = most()
        if self._total + self._programs + more > limit:
            self._forget()
        if self._total + self._programs + more > limit:
            taken = self._total + self._programs + more
            why = f"the maps and programs of all probes would take {taken >> 20} MiB"
            raise NoRoomError(f"{why} of the kernel's memory, and {limit >> 20} MiB is the most")

    def add(self, maps: Iterable[tuple[int, int]], programs: int = 0) -> None:
        """Count maps, ids with bytes, and bytes of programs of a new unit.

        Raises NoRoomError, and counts none.
        """
        new = dict(maps)
        self.check(sum(new.values()) + programs)
        self._programs += programs
        self._bytes |= new
        self._total = sum(self._bytes.values())

    def detach(self, ids: Iterable[int], programs: int = 0) -> None:
        """The unit of these maps is detached: they are gone when nobody else holds them.

        Its bytes of programs are gone.
        """
        self._programs -= programs
        self._detached |= dict.fromkeys(ids, time.monotonic())

    def _forget(self) -> None:
        """Count no more what is gone."""
        for number, since in list(self._detached.items()):
            exists = _exists(number)
            if exists is None:
                exists = time.monotonic() - since < UNKNOWN_SECONDS
            if not exists:
                del self._detached[number]
                del self._bytes[number]
        self._total = sum(self._bytes.values())


def _exists(number: int) -> bool | None:
    """Whether there is a map of this id; None where the kernel does not say."""
    try:
        return bpf_syscall.map_exists(number)
    except OSError as error:
        # Of a map that exists, there may be no descriptor left for it: it counts.
        return None if error.errno == errno.EPERM else True
