# SPDX-License-Identifier: Apache-2.0
"""Reading the row tables of include/rows.h.

A poll costs about a microsecond for each row that changed, and nothing for the others.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain, compress, repeat, zip_longest
from operator import eq, ne
from typing import Any

from probes.bpf.control_page import Control
from probes.bpf.layouts import ROW, TOUCHED
from probes.bpf.maps import MappedArray, RingBuffer
from probes.core.process_keys import EXECUTIONS, INDEX_BITS, Processes
from probes.core.safe_text import readable

_ROW = struct.Struct("=QQ4x28s16s")
"""Count and sum of a row, whose it is, and its extras: all words but the epoch."""
_OWNER = struct.Struct("=IQ")
"""Start and key, in front of the name."""
_EXTRAS = struct.Struct("=IIII")
_NO_EXTRAS = bytes(_EXTRAS.size)
ROW_SIZE = ROW.size
ROW_MAPS = ("rows", "touched", "lists", "crowded")
"""The maps behind a table of rows."""
_TOUCHED = TOUCHED.size // 4
"""Words of 32 bits of a CPU: its lists' epochs and lengths, and the events without a row."""
MASK = 0xFFFFFFFF
INDEX = (1 << INDEX_BITS) - 1
"""The bits of a list's entry that are a row's index; above them is the time."""
UNSETTLED = 4
"""Entries at a list's end that may not be written yet: as many programs run within each other.

There are four contexts: a task's, a soft and a hard interrupt's, and that of the NMI."""

Extra = tuple[int, int]
"""The id of an extra, and by how much its count grew."""


class SeenRow:
    """A row as it was read last.

    `owner` are the bytes that tell whose it is, `process` is the number of its process, and `what`
    it does. `key` and `comm` are for whoever reads rows: key is None whenever the row has another
    owner or another name than before.
    """

    __slots__ = ("comm", "count", "extras", "key", "owner", "process", "total", "what")

    def __init__(self) -> None:
        self.count = self.total = self.process = self.what = 0
        self.owner, self.extras = b"", _NO_EXTRAS
        self.key: Any = None
        self.comm: Any = None

    @property
    def name(self) -> bytes:
        """What the kernel calls its process; what is behind the first zero is none of it.

        Rows that are not of a process have a text instead.
        """
        return self.owner[_OWNER.size :]

    def new_extras(self, extras: bytes) -> tuple[Extra, ...]:
        """By how much the extras of the same owner grew."""
        old, self.extras = self.extras, extras
        if not extras:
            return ()
        id0, n0, id1, n1 = _EXTRAS.unpack(extras)
        _, old0, _, old1 = _EXTRAS.unpack(old)
        return ((id0, (n0 - old0) & MASK), (id1, (n1 - old1) & MASK))


Values = tuple[int, int, bytes, bytes]
"""What a row holds: count, sum, the bytes that tell its owner, those of its extras."""


NOT_IN_MEMORY = b"\0\xff"
"""How a text that could not be read begins."""


@lru_cache(8192)
def name_of_comm(raw: bytes) -> str:
    """A process's name as the kernel keeps it."""
    return readable(raw.partition(b"\0")[0])


def text_of(raw: bytes) -> str:
    """A text that tells calls apart, as a program read it from a process."""
    return "(not in memory)" if raw.startswith(NOT_IN_MEMORY) else name_of_comm(raw)


class RowTable:
    """The rows of all CPUs, `per_cpu` each, `wide` more words in each.

    Takes the descriptors of ROW_MAPS out of `maps`. With `texts` the name of a row may go on to
    the row's end. After `lists`, `others` names the CPUs on which events found no row since
    then. `wait_fd` becomes readable when so many rows have changed that they should be read
    now, lest the table runs full.
    """

    def __init__(
        self,
        maps: dict[str, int],
        cpus: int,
        per_cpu: int,
        wide: int = 0,
        *,
        texts: bool = False,
    ) -> None:
        # A text goes on where other rows have their extras.
        text = struct.Struct(f"=QQ4x{ROW_SIZE - 20 + 8 * wide}s0s")
        self._row = text if texts and wide else _ROW
        self.cpus, self.per_cpu = cpus, per_cpu
        rows, touched, lists, crowded = (maps.pop(name) for name in ROW_MAPS)
        self.rows = MappedArray(rows, ROW_SIZE + 8 * wide, cpus * per_cpu)
        self.touched = MappedArray(touched, 4 * _TOUCHED, cpus)
        self.indexes = MappedArray(lists, 8, 2 * cpus * per_cpu)
        self._crowded = RingBuffer(crowded, mmap.PAGESIZE)
        self.wait_fd = self._crowded.fd
        self.arrays = (self.rows, self.touched, self.indexes)
        self.others: set[int] = set()
        self._settling: set[int] = set()
        self._seen: dict[int, SeenRow] = {}
        self._unsure: list[SeenRow] = []
        self._numbered_by: tuple[Processes, int] | None = None
        self._others_seen = [0] * cpus
        self._starts: dict[int, int] = {}
        self._ends: dict[int, list[int]] = {}
        self._again: list[int] = []

    def read(self, noted: list[int]) -> Iterator[tuple[int, SeenRow | None, Values]]:
        """What is noted, each with the row as it was seen last and what it holds now.

        Rows of other owners go to `meet` first, those that have not changed to `look_again`.
        """
        stride, memory = self.rows.stride, repeat(self.rows.memory)
        places = [(entry & INDEX) * stride for entry in noted]
        values = map(self._row.unpack_from, memory, places)
        return zip(noted, map(self._seen.get, places), values, strict=True)

    def meet(self, noted: list[int], processes: Processes) -> list[int]:
        """Learn whose rows are that have another owner or name than before.

        Returns them in the order in which they were noted: that is how processes are numbered.
        """
        noted = sorted(noted)
        for entry in noted:
            place = (entry & INDEX) * self.rows.stride
            _, _, owner, _ = self._row.unpack_from(self.rows.memory, place)
            start, key = _OWNER.unpack_from(owner)
            row = self._seen.get(place)
            if not key or (row is not None and row.owner == owner):
                continue
            if row is None:
                row = self._seen[place] = SeenRow()
            if not row.owner.startswith(owner[: _OWNER.size]):
                # With another owner the extras began anew, the counters did not.
                row.extras = _NO_EXTRAS
            row.owner, row.key = owner, None
            row.process, row.what = processes.number(key >> 32, start), (key & MASK) - 1
            if start <= EXECUTIONS:
                # It may be of any process that has this pid then.
                self._unsure.append(row)
        return noted

    def look_again(self, noted: list[int]) -> None:
        """Have the next poll look at these rows, which were noted before they were counted."""
        self._again = noted

    def forget_keys(self) -> None:
        """Have whoever reads rows give all of them their keys anew."""
        for row in self._seen.values():
            row.key = None

    def renumber(self, processes: Processes) -> None:
        """Have rows look for the numbers of their processes, where these may be others now."""
        numbered_by = (processes, processes.forgotten)
        unsure: Iterable[SeenRow] = self._unsure
        if self._numbered_by != numbered_by:
            self._numbered_by, unsure = numbered_by, self._seen.values()
        for row in unsure:
            row.owner = row.owner[: _OWNER.size]
        self._unsure = []

    def lists(self, control: Control) -> Iterator[list[int]]:
        """What is noted of the rows that changed, in two lists; begins a new epoch.

        Each says when it was noted above INDEX, the row's index.
        """
        # What found no row is looked at once more: the counter of that rises first.
        settling, self.others = self._settling, set()
        for _ in self._crowded.drain():
            pass
        # First what entered the last epoch's list after it was read; then the list is reused.
        late = self._noted(control.epoch - 1, self._starts)
        yield [*self._again, *self._written_since(late)]
        noted = self._noted(control.next_epoch(), {})
        self._starts = {cpu: max(0, len(found) - UNSETTLED) for cpu, found in noted.items()}
        self._ends = {cpu: found[-UNSETTLED:] for cpu, found in noted.items()}
        yield list(chain.from_iterable(noted.values()))
        self._settling, self.others = self.others, self.others | settling

    def close(self) -> None:
        """Unmap."""
        for array in self.arrays:
            array.close()
        self._crowded.close()

    def _written_since(self, late: Mapping[int, list[int]]) -> Iterator[int]:
        """What is noted at the ends of lists, but was not when these were read."""
        for cpu, found in late.items():
            end = self._ends.get(cpu, [])
            if found != end:
                pairs = zip_longest(found, end)
                yield from [entry for entry, was in pairs if entry is not None and entry != was]

    def _noted(self, epoch: int, starts: Mapping[int, int]) -> dict[int, list[int]]:
        """What is noted in the lists of an epoch by CPU, from its entry of `starts` on."""
        side, per_cpu = epoch & 1, self.per_cpu
        # Memory that somebody holds a view of cannot be unmapped.
        with memoryview(self.touched.memory) as memory, memory.cast("I") as words:
            end = _TOUCHED * self.cpus
            epochs, lengths = [words[at:end:_TOUCHED].tolist() for at in (side, side + 2)]
        with memoryview(self.touched.memory) as memory, memory.cast("Q") as words:
            others = words[2 : end // 2 : _TOUCHED // 2].tolist()
        if others != self._others_seen:
            self.others.update(compress(range(self.cpus), map(ne, others, self._others_seen)))
            self._others_seen = others
        found: dict[int, list[int]] = {}
        with memoryview(self.indexes.memory) as memory, memory.cast("Q") as words:
            for cpu in compress(range(self.cpus), map(eq, epochs, repeat(epoch & MASK))):
                first = (2 * cpu + side) * per_cpu
                found[cpu] = words[first + starts.get(cpu, 0) : first + lengths[cpu]].tolist()
        return found
