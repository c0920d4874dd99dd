# SPDX-License-Identifier: Apache-2.0
"""Every place at which a function returns to its caller, as far as that can be proven.

A return probe replaces the return address on the stack of the traced program. An exception that
passes, or a runtime that moves stacks, finds an address that is in no table, and the program ends.
Uprobes at the return instructions themselves change nothing that a program reads. They are
only used where they are all of them: code that may leave the function elsewhere is an error.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from probes.core import kernel
from probes.host.open_file import OpenFile
from probes.symbols import functions as elf_functions
from probes.symbols.binaries import is_fragment
from probes.symbols.elf import Elf
from probes.symbols.functions import Function
from probes.symbols.instruction_boundaries import MOST_CODE
from probes.symbols.unwind_tables import UnwindTables
from probes.uprobes import return_decoding
from probes.uprobes.return_decoding import (
    BRANCH,
    BROKEN,
    END,
    INDIRECT,
    JUMP,
    NEVER,
    PROLOGUE,
    RETURN,
    SLOT,
    TABLE,
    UNREACHED,
    Fact,
    Region,
)

MOST_RETURNS = 256
"""Most places at which one function returns."""
MOST_REGIONS, ROUNDS = 8, 4
"""Most parts of one function, and how often what decoding found leads to more of them."""
MOST_TOGETHER = 2 << 20
"""Bytes of all functions of one target together."""
_PLT = (".plt", ".plt.sec", ".plt.got", ".iplt")


class OwnReturns(NamedTuple):
    """Places in the file, in bytes: where a call is counted, and where it ends.

    At `shared` ends calls of something else may end as well.
    """

    entry: int
    ends: tuple[int, ...]
    shared: tuple[int, ...] = ()


class NotProven(Exception):
    """The returns of a function are not all known; the message says why."""


class _Function:
    """What is known of one function so far."""

    def __init__(self, function: Function, address: int) -> None:
        self.offset, self.address = function.offset, address
        self.regions: list[tuple[int, int]] = []
        self.entry = function.offset
        self.ends: set[int] = set()
        self.shared: set[int] = set()
        self.maybe: set[tuple[int, int]] = set()
        self.more: list[tuple[int, int]] = []
        self.unreached: set[int] = set()
        self.failed = ""


def find(
    file: OpenFile, functions: Sequence[Function], go: bool = False
) -> list[OwnReturns | NotProven]:
    """The returns of each function, or why they are not known; raises ProbeError."""
    with Elf(file) as elf:
        return _Search(file, elf, go).run(functions)


class _Search:
    """Decodes functions of one file, round by round."""

    def __init__(self, file: OpenFile, elf: Elf, go: bool) -> None:
        self._file, self._elf, self._go = file, elf, go
        self._size = 0

    @cached_property
    def _tables(self) -> UnwindTables:
        return UnwindTables(self._elf)

    @cached_property
    def _known(self) -> list[tuple[int, int, str]]:
        """Offset, size and name of each function, by offset."""
        known = elf_functions.functions(self._file).items()
        return sorted((one.offset, one.size, name) for name, one in known)

    def run(self, functions: Sequence[Function]) -> list[OwnReturns | NotProven]:
        """As `find`."""
        found = [self._begin(function) for function in functions]
        for _ in range(ROUNDS):
            open_ones = [one for one in found if one.more and not one.failed]
            if not open_ones:
                break
            self._round(open_ones)
        for one in found:
            if one.more and not one.failed:
                one.failed = "it has too many parts"
        return [self._result(one) for one in found]

    def _result(self, one: _Function) -> OwnReturns | NotProven:
        if not one.failed and len(one.ends) + len(one.shared) > MOST_RETURNS:
            one.failed = f"it returns at {len(one.ends)} places"
        if not one.failed and not one.ends | one.shared:
            one.failed = "it does not return"
        if one.failed:
            return NotProven(one.failed)
        return OwnReturns(one.entry, tuple(sorted(one.ends)), tuple(sorted(one.shared)))

    def _begin(self, function: Function) -> _Function:
        address = self._address(function.offset)
        one = _Function(function, address or 0)
        size = function.size
        if not size and address is not None and not self._go:
            frame = self._tables.frame(address)
            size = frame.size if frame and frame.address == address else 0
        if address is None or not size:
            one.failed = "its size is not known"
        else:
            self._add(one, address, size)
        return one

    def _add(self, one: _Function, address: int, size: int) -> None:
        """Have some code decoded as part of a function."""
        if (address, size) in one.more:
            return
        self._size += size
        whole = sum(length for _, length in [*one.regions, *one.more]) + size
        if whole > MOST_CODE or self._size > MOST_TOGETHER:
            one.failed = "its code is too large to be decoded"
        elif len(one.regions) + len(one.more) >= MOST_REGIONS:
            one.failed = "it has too many parts"
        else:
            one.more.append((address, size))

    def _address(self, offset: int) -> int | None:
        for segment in self._elf.segments:
            if segment.executable and segment.offset <= offset < segment.offset + segment.size:
                return offset - segment.offset + segment.address
        return None

    def _round(self, functions: Sequence[_Function]) -> None:
        """Decode all parts of some functions, and judge what they say."""
        regions: list[Region] = []
        for number, one in enumerate(functions):
            one.regions += one.more
            one.more, one.ends, one.shared = [], set(), set()
            for address, size in one.regions:
                offset = self._elf.code_offset(address)
                code = self._file.read(size, offset) if offset is not None else b""
                if len(code) != size:
                    one.failed = "its code is not in the file"
                regions.append(Region(number, address, code))
        found = return_decoding.facts(regions, kernel.arch())
        of_each: dict[int, list[Fact]] = {}
        for fact in found:
            of_each.setdefault(regions[fact.region].function, []).append(fact)
        for number, one in enumerate(functions):
            try:
                if not one.failed:
                    self._judge(one, regions, of_each.get(number, []))
            except NotProven as error:
                one.failed = str(error)

    def _judge(self, one: _Function, regions: Sequence[Region], found: Sequence[Fact]) -> None:
        """Take in what decoding says; raises NotProven."""
        # Go's runtime goes on within a function after a panic, where nothing else leads to.
        if not self._go:
            one.unreached = {regions[f.region].address + f.at for f in found if f.kind == UNREACHED}
        again = [f for f in found if f.kind in (JUMP, BRANCH) and f.target == one.address]
        if again and self._go:
            self._behind_check(one, regions, found, again)
        for fact in found:
            region = regions[fact.region]
            address = region.address + fact.at
            if fact.kind == BROKEN:
                raise NotProven("its instructions overlap")
            if fact.kind == END and (fact.at < len(region.code) or fact.target != NEVER):
                raise NotProven("it has code that is not understood, or goes on behind its end")
            if fact.kind == RETURN:
                self._end(one, address)
            elif fact.kind in (INDIRECT, TABLE, SLOT):
                self._judge_indirect(one, fact, address)
            elif fact.kind in (JUMP, BRANCH) and not (fact in again and self._go):
                self._judge_jump(one, fact, address)

    def _end(self, one: _Function, address: int) -> None:
        offset = self._elf.code_offset(address)
        if offset is None:
            raise NotProven("its code is not in the file")
        if address in one.unreached:
            raise NotProven(f"nothing is known to lead to the end at +{address - one.address:#x}")
        shared = any(start <= address < start + size for start, size in one.maybe)
        (one.shared if shared else one.ends).add(offset)

    def _as_called(self, address: int) -> bool | None:
        """Whether the stack is as after the call at an address; None where it is not known."""
        frame = self._tables.frame(address)
        return frame.as_called(address) if frame else None

    def _judge_indirect(self, one: _Function, fact: Fact, address: int) -> None:
        """A jump to a computed place: by a table of the function's own, or out of it."""
        if fact.kind == TABLE and (self._go or self._is_inside(one, fact.target)):
            return
        called = self._as_called(address)
        # With something of its own on the stack a function cannot end.
        if called is False:
            return
        if fact.kind == SLOT and (called or self._go):
            self._end(one, address)
            return
        raise NotProven(f"the jump at +{address - one.address:#x} may lead anywhere")

    def _is_inside(self, one: _Function, table: int) -> bool:
        """Whether the first entry of a table of addresses is a place within the function."""
        offset = self._elf.offset(table) if table else None
        entry = int.from_bytes(self._file.read(8, offset), "little") if offset is not None else 0
        return any(start < entry < start + size for start, size in one.regions)

    def _judge_jump(self, one: _Function, fact: Fact, address: int) -> None:
        """A jump out of the known code: to another part of the function, or to another one."""
        if fact.target == one.address:
            raise NotProven("it jumps to its own beginning, which looks like a call")
        offset = self._elf.code_offset(fact.target)
        if offset is None:
            raise NotProven("it jumps to what is not in the file")
        fragment = self._fragment(offset)
        frame = None if self._go else self._tables.frame(fact.target)
        named = self._is_named(fact.target, offset)
        begins = frame is not None and frame.address == fact.target
        if fragment is not None:
            self._add(one, fact.target - (offset - fragment[0]), fragment[1])
        elif frame is not None and not named and not frame.begins_called:
            self._add(one, frame.address, frame.size)
        elif not named and not begins:
            raise NotProven(f"it jumps to {fact.target:#x}, which is no function's beginning")
        elif fact.kind == BRANCH and frame is not None and not named:
            # A rarely run part, most likely; a function that nothing names would end it as well.
            one.maybe.add((frame.address, frame.size))
            self._add(one, frame.address, frame.size)
        elif fact.kind == BRANCH:
            raise NotProven("it jumps to another function under a condition")
        elif not self._go and not self._as_called(address):
            raise NotProven(f"the jump at +{address - one.address:#x} may lead anywhere")
        else:
            self._end(one, address)

    def _fragment(self, offset: int) -> tuple[int, int] | None:
        """Offset and size of the rarely run part that some code belongs to."""
        at = bisect_right(self._known, (offset, 1 << 64, "")) - 1
        while at >= 0 and self._known[at][0] + self._known[at][1] > offset:
            if is_fragment(self._known[at][2]):
                return self._known[at][:2]
            at -= 1
        return None

    def _is_named(self, address: int, offset: int) -> bool:
        """Whether a function begins at an address, here or (by a linkage table) elsewhere."""
        at = bisect_right(self._known, (offset, -1, ""))
        named = at < len(self._known) and self._known[at][0] == offset
        return named or any(
            s.name in _PLT and s.address <= address < s.address + s.size for s in self._elf.sections
        )

    def _behind_check(
        self,
        one: _Function,
        regions: Sequence[Region],
        found: Sequence[Fact],
        again: Sequence[Fact],
    ) -> None:
        """A Go function begins anew on a larger stack: count it behind the check for space."""
        first = next(at for at, region in enumerate(regions) if region.address == one.address)
        early = [f for f in found if f.kind == PROLOGUE and f.region == first]
        checks = [f for f in early if f.target == early[0].target]
        slow = checks[0].target - one.address if checks else 0
        returns = [f.at for f in found if f.kind == RETURN and f.region == first]
        sound = checks and all(
            f.kind == JUMP
            and f.region == first
            and checks[-1].at <= slow <= f.at
            and not any(slow <= at <= f.at for at in returns)
            for f in again
        )
        if not sound:
            raise NotProven("it jumps to its own beginning, which looks like a call")
        one.entry = one.offset + checks[-1].at
